//! One open call, which is a request of HTTP/2: how it is aborted from outside, and the task that
//! it runs as.

use crate::lock::LockUnpoisoned;
use crate::server::connection::Connection;
use crate::server::transfers::Abort;
use futures_util::task::AtomicWaker;
use pin_project_lite::pin_project;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use tokio::sync::watch;

/// What the calls of one connection share.
pub(in crate::server) struct ConnectionScope {
    pub connection: Arc<Connection>,
    /// Set when the listener stops.
    pub stop: watch::Receiver<bool>,
}

/// A call, from its head to the end of its reply and of its body.
pub(in crate::server) struct Call {
    scope: Arc<ConnectionScope>,
    is_aborted: AtomicBool,
    /// Its task has ended. Bytes of its reply may still wait for the client.
    is_done: AtomicBool,
    task: AtomicWaker,
    /// The task that reads the rest of its body.
    rest: AtomicWaker,
}

impl Call {
    pub fn begin(scope: &Arc<ConnectionScope>) -> Arc<Self> {
        scope.connection.call_begun();
        let (is_aborted, is_done, task, rest) = Default::default();
        Arc::new(Call { scope: Arc::clone(scope), is_aborted, is_done, task, rest })
    }

    pub fn connection(&self) -> &Arc<Connection> {
        &self.scope.connection
    }

    /// Returns the channel that says when the listener stops.
    pub fn stop(&self) -> &watch::Receiver<bool> {
        &self.scope.stop
    }

    pub fn is_aborted(&self) -> bool {
        self.is_aborted.load(Ordering::SeqCst)
    }

    /// Ready once the call is aborted. Only the task that reads the rest of its body may poll this.
    pub fn poll_aborted(&self, context: &mut Context<'_>) -> Poll<()> {
        self.rest.register(context.waker());
        if self.is_aborted() { Poll::Ready(()) } else { Poll::Pending }
    }
}

pin_project! {
    /// The task of a call. It ends once the call is aborted: dropping hyper's task resets the
    /// stream.
    #[project = Projected]
    struct Serving<F> {
        // Large, and therefore moved as rarely as possible.
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
            if !call.is_aborted() {
                return Poll::Pending;
            }
        }
        call.is_done.store(true, Ordering::SeqCst);
        if is_done && call.is_aborted() {
            // Too late to reset the stream.
            call.connection().abort();
        }
        Poll::Ready(())
    }
}

impl Abort for Call {
    /// Resets the stream. If the whole reply was handed to hyper already, only the end of the
    /// connection discards it.
    fn abort(&self) {
        self.is_aborted.store(true, Ordering::SeqCst);
        self.task.wake();
        self.rest.wake();
        // A socket that takes no bytes keeps those that were handed over, even of streams that were
        // reset.
        if self.is_done.load(Ordering::SeqCst) || self.connection().write_blocked().is_some() {
            self.connection().abort();
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.connection().call_ended();
    }
}

/// Spawns the tasks of the calls of one connection. hyper calls the service and spawns the task of
/// the call immediately afterwards, so a new task belongs to the call that began last.
#[derive(Clone, Default)]
pub(in crate::server) struct Spawner(Arc<Mutex<Option<Arc<Call>>>>);

impl Spawner {
    /// Announces that the next task is that of this call.
    pub fn next_is(&self, call: &Arc<Call>) {
        *self.0.lock_unpoisoned() = Some(Arc::clone(call));
    }
}

impl<F: Future<Output: Send> + Send + 'static> hyper::rt::Executor<F> for Spawner {
    fn execute(&self, task: F) {
        let call = self.0.lock_unpoisoned().take();
        match call {
            Some(call) => drop(tokio::spawn(Serving { serve: task, call })),
            None => drop(tokio::spawn(task)),
        }
    }
}
