//! The shutdown, from the first signal to the exit: become not ready, serve on, stop accepting,
//! finish requests, log what is left.

mod exit;
mod readiness;
mod signals;

pub use exit::exit;
pub use readiness::Readiness;
pub use signals::{Event, MARGIN, Signals, end_as_first_process};
