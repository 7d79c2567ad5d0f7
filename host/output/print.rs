//! The output of commands that do not serve.

use super::queue::log;
use super::write::write_all;
use std::fmt;
use std::io;
use std::sync::OnceLock;

/// The first error of [`print()`].
static PRINT_ERROR: OnceLock<io::Error> = OnceLock::new();

/// Prints one line of a command's output. Waits for a slow reader. After a write has failed,
/// nothing more is printed.
pub fn print(line: impl fmt::Display) {
    print_text(format!("{line}\n"));
}

/// Prints text like [`print()`], without a newline.
pub fn print_text(text: impl AsRef<str>) {
    if PRINT_ERROR.get().is_none()
        && let Err(failed) = write_all(libc::STDOUT_FILENO, text.as_ref().as_bytes())
    {
        let _ = PRINT_ERROR.set(failed.error);
    }
}

/// Returns why a command could not print all of its output. A reader that closed the pipe is not an
/// error.
pub fn print_error() -> Option<&'static io::Error> {
    PRINT_ERROR.get().filter(|error| error.kind() != io::ErrorKind::BrokenPipe)
}

/// Writes a message for a person to stderr: the progress of a command, or why it ends.
pub fn report(message: impl fmt::Display) {
    log().write(format!("{message}\n").as_bytes());
}
