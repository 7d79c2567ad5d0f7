//! Readiness: whether a load balancer should send requests to this host.

use tokio::sync::watch;

/// What the host does. It goes through these states in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    #[default]
    Starting,
    Serving,
    Draining,
}

/// Whether a load balancer should send requests to this host.
#[derive(Default)]
pub struct Readiness {
    phase: watch::Sender<Phase>,
}

impl Readiness {
    /// Why a host that starts is not ready.
    pub const STARTING: &str = "starting: the models are being loaded; try again";

    /// Notes that everything is loaded.
    pub fn serve(&self) {
        self.phase.send_replace(Phase::Serving);
    }

    pub fn drain(&self) {
        self.phase.send_replace(Phase::Draining);
    }

    /// Returns why the host is not ready; `None` if it is.
    pub fn refusal(&self) -> Option<&'static str> {
        match *self.phase.borrow() {
            Phase::Starting => Some(Self::STARTING),
            Phase::Serving => None,
            Phase::Draining => Some("draining: the host is stopping"),
        }
    }

    /// Returns a receiver that is notified of changes.
    pub fn changes(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }
}
