//! Standard output and standard error.
//!
//! The reader of these descriptors may be slow, stopped or gone, and the disk may be full. A host
//! that serves therefore writes through a [`Queue`]: callers append whole lines to a bounded buffer
//! and never wait, and the queue's thread writes them. Lines that do not fit or cannot be written
//! are dropped and counted; when a write succeeds again, the log says how many. [`serve`] also
//! replaces descriptors 1 and 2 with a pipe that the host reads itself, so that native libraries
//! and child processes cannot block either.
//!
//! Everything that is written passes one function, which escapes line breaks and control
//! characters: text from clients, guests and files cannot pass as a line of the host.
//!
//! Other commands write directly and wait for their reader, like other programs; see [`print()`].

mod descriptors;
mod escape;
mod flush;
mod print;
mod queue;
mod write;

pub use descriptors::{serve, wait_for_last_words};
pub use escape::{Form, one_line};
pub use flush::{FLUSH_TIMEOUT, REPORT_TIMEOUT, flush};
pub use print::{
    has_failed, print, print_bytes, print_error, print_json, print_text, quoted_lines, report, report_lines,
};
pub use queue::{Queue, log, stdout};
