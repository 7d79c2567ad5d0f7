//! The stop signal of a listener, as its connections and calls await it.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use tokio::sync::watch;

/// Returns once the listeners must stop.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender was dropped, which also is a stop.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Returns once the listeners must stop, like `stopped`, for a task that is polled often: a poll
/// takes no lock as long as nothing has changed.
pub(super) async fn stopped_without_lock(stop: &mut watch::Receiver<bool>) {
    let seen = stop.clone();
    let mut stopped = pin!(stopped(stop));
    let mut is_first = true;
    poll_fn(|context| match seen.has_changed() {
        Ok(false) if !std::mem::take(&mut is_first) => Poll::Pending,
        _ => stopped.as_mut().poll(context),
    })
    .await;
}
