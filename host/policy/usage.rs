//! How many requests use a route now, so that who takes it away can wait for them.

use super::Route;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

#[derive(Default)]
pub struct Usage {
    requests: AtomicUsize,
    idle: Notify,
}

/// A route, used for as long as this lives.
pub struct InUse(Arc<Route>);

impl InUse {
    pub fn new(route: &Arc<Route>) -> Self {
        route.usage.requests.fetch_add(1, Ordering::Relaxed);
        InUse(Arc::clone(route))
    }
}

impl Deref for InUse {
    type Target = Arc<Route>;

    fn deref(&self) -> &Arc<Route> {
        &self.0
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let usage = &self.0.usage;
        if usage.requests.fetch_sub(1, Ordering::AcqRel) == 1 {
            usage.idle.notify_waiters();
        }
    }
}

impl Usage {
    /// Returns once no request uses the route.
    pub async fn idle(&self) {
        loop {
            let mut idle = std::pin::pin!(self.idle.notified());
            // From here on no wake-up is missed.
            idle.as_mut().enable();
            if self.requests.load(Ordering::Acquire) == 0 {
                return;
            }
            idle.await;
        }
    }
}
