//! From the first signal to the exit: not ready, serve on, stop accepting, finish, name what is left.

use std::sync::atomic::{AtomicBool, Ordering};
use tokio::signal::unix::{SignalKind, signal};

/// Whether a load balancer should send requests here.
#[derive(Default)]
pub struct Readiness {
    draining: AtomicBool,
}

impl Readiness {
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Why not, if not.
    pub fn refusal(&self) -> Option<&'static str> {
        self.draining.load(Ordering::Relaxed).then_some("draining: the host is stopping")
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
