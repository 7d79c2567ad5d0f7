//! From the first signal to the exit: not ready, serve on, stop accepting, finish, name what is left.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Whether a load balancer should send requests here.
#[derive(Default)]
pub struct Readiness {
    draining: watch::Sender<bool>,
}

impl Readiness {
    pub fn drain(&self) {
        self.draining.send_replace(true);
    }

    /// Why not, if not.
    pub fn refusal(&self) -> Option<&'static str> {
        self.draining.borrow().then_some("draining: the host is stopping")
    }

    /// For whoever wants to know when that changes.
    pub fn changes(&self) -> watch::Receiver<bool> {
        self.draining.subscribe()
    }
}

/// Returns at each SIGTERM or SIGINT.
pub struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    pub fn new() -> std::io::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
