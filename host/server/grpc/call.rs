//! One open call: what ends it from outside, and the task that it runs as.

use crate::server::connection::Connection;
use crate::server::transfers::Abort;
use futures_util::task::AtomicWaker;
use pin_project_lite::pin_project;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

/// A call, from its head to the end of its answer.
pub(super) struct Call {
    connection: Arc<Connection>,
    is_aborted: AtomicBool,
    /// Its task has ended; what it has sent may still wait for the client.
    is_done: AtomicBool,
    task: AtomicWaker,
}

impl Call {
    pub fn begin(connection: &Arc<Connection>) -> Arc<Self> {
        connection.call_begun();
        let (is_aborted, is_done, task) = Default::default();
        Arc::new(Call { connection: Arc::clone(connection), is_aborted, is_done, task })
    }

    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }
}

pin_project! {
    /// The task of a call. It ends once the call is aborted: dropping what serves it resets the stream.
    #[project = Projected]
    struct Serving<F> {
        // Large, so it is moved as seldom as can be.
        #[pin]
        serve: F,
        call: Arc<Call>,
    }
}

impl<F: Future> Future for Serving<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Projected { serve, call } = self.project();
        let is_done = serve.poll(context).is_ready();
        if !is_done {
            call.task.register(context.waker());
            if !call.is_aborted.load(Ordering::SeqCst) {
                return Poll::Pending;
            }
        }
        call.is_done.store(true, Ordering::SeqCst);
        if is_done && call.is_aborted.load(Ordering::SeqCst) {
            // Too late to reset the stream.
            call.connection.abort();
        }
        Poll::Ready(())
    }
}

impl Abort for Call {
    /// Resets the stream. Where everything was handed over already and waits for the client, only the end of the
    /// connection takes it back.
    fn abort(&self) {
        self.is_aborted.store(true, Ordering::SeqCst);
        self.task.wake();
        // A socket that takes nothing keeps what was handed over even of streams that were reset.
        if self.is_done.load(Ordering::SeqCst) || self.connection.write_blocked().is_some() {
            self.connection.abort();
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.connection.call_ended();
    }
}

/// Runs the calls of one connection. hyper asks for a call's answer and spawns its task right after that, so the call
/// that began last is the one whose task comes.
#[derive(Clone, Default)]
pub(super) struct Spawner(Arc<Mutex<Option<Arc<Call>>>>);

impl Spawner {
    /// The next task is that of this call.
    pub fn next_is(&self, call: &Arc<Call>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(call));
    }
}

impl<F: Future<Output: Send> + Send + 'static> hyper::rt::Executor<F> for Spawner {
    fn execute(&self, task: F) {
        let call = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        match call {
            Some(call) => drop(tokio::spawn(Serving { serve: task, call })),
            None => drop(tokio::spawn(task)),
        }
    }
}
