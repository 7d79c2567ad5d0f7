//! One open call: what ends it from outside, and the task that it runs as.

use crate::server::connection::Connection;
use crate::server::transfers::Abort;
use futures_util::task::AtomicWaker;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

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

    /// Runs what serves the call, until the call is aborted: dropping it resets the stream.
    async fn run(self: Arc<Self>, serve: impl Future) {
        let mut serve = pin!(serve);
        poll_fn(|context| {
            if serve.as_mut().poll(context).is_ready() {
                return Poll::Ready(());
            }
            self.task.register(context.waker());
            match self.is_aborted.load(Ordering::Acquire) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
        self.is_done.store(true, Ordering::Release);
    }
}

impl Abort for Call {
    /// Resets the stream. Where everything was handed over already and waits for the client, only the end of the
    /// connection takes it back.
    fn abort(&self) {
        if self.is_done.load(Ordering::Acquire) {
            self.connection.abort();
        } else {
            self.is_aborted.store(true, Ordering::Release);
            self.task.wake();
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
            Some(call) => drop(tokio::spawn(call.run(task))),
            None => drop(tokio::spawn(task)),
        }
    }
}
