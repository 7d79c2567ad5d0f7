//! Ends the process.

use crate::output;

/// Ends the process once the log is written, or after [`output::FLUSH_TIMEOUT`]. Runs neither
/// destructors nor exit handlers: threads may still be inside native code that these would unload,
/// or hold locks that these wait for.
pub fn exit(code: i32) -> ! {
    output::flush(output::FLUSH_TIMEOUT);
    exit_now(code)
}

pub(super) fn exit_now(code: i32) -> ! {
    // SAFETY: ends the process, and is safe in a signal handler too.
    unsafe { libc::_exit(code) }
}
