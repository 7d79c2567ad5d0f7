//! Keeps work going whose caller leaves.

use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::runtime::Handle;

type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Runs `work` in the task of the caller. If the caller leaves before its end, `work` goes on in a
/// task of its own. This costs less than a task for every call.
pub(super) fn complete<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
    runtime: &Handle,
) -> Completion<T> {
    Completion { work: Some(Box::pin(work)), runtime: runtime.clone() }
}

pub(super) struct Completion<T: Send + 'static> {
    /// `None` once it has ended.
    work: Option<Work<T>>,
    runtime: Handle,
}

impl<T: Send + 'static> Future for Completion<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        // Work that panics is not polled again.
        let Some(mut work) = self.work.take() else { return Poll::Pending };
        let polled = work.as_mut().poll(context);
        if polled.is_pending() {
            self.work = Some(work);
        }
        polled
    }
}

impl<T: Send + 'static> Drop for Completion<T> {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            self.runtime.spawn(work);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn work_ends_with_its_caller_or_without() {
        let runtime = Handle::current();
        assert_eq!(complete(async { 7 }, &runtime).await, 7);

        let (start, started) = oneshot::channel::<()>();
        let (end, ended) = oneshot::channel();
        let work = async {
            let _ = started.await;
            let _ = end.send(8);
        };
        let mut left = complete(work, &runtime);
        assert!((&mut left).now_or_never().is_none());
        drop(left);
        start.send(()).unwrap();
        assert_eq!(ended.await, Ok(8));
    }
}
