//! Readiness: whether a load balancer should send requests to this host.

use tokio::sync::watch;

/// Whether a load balancer should send requests to this host.
#[derive(Default)]
pub struct Readiness {
    draining: watch::Sender<bool>,
}

impl Readiness {
    pub fn drain(&self) {
        self.draining.send_replace(true);
    }

    /// Returns why the host is not ready; `None` if it is.
    pub fn refusal(&self) -> Option<&'static str> {
        self.draining.borrow().then_some("draining: the host is stopping")
    }

    /// Returns a receiver that is notified of changes.
    pub fn changes(&self) -> watch::Receiver<bool> {
        self.draining.subscribe()
    }
}
