//! From the first signal to the exit: not ready, serve on, stop accepting, finish, name what is left.

mod signals;

pub use signals::{Event, Signals, end_as_first_process};

use crate::output;
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

/// Ends the process once the log is written, or [`output::FLUSH_TIMEOUT`] later. Neither destructors nor exit handlers
/// run: threads may still be inside native code that those would pull away, or hold what those wait for.
pub fn exit(code: i32) -> ! {
    output::flush(output::FLUSH_TIMEOUT);
    exit_now(code)
}

fn exit_now(code: i32) -> ! {
    // SAFETY: ends the process, and is safe in a signal handler too.
    unsafe { libc::_exit(code) }
}
