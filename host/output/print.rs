//! The output of commands that do not serve.

use super::escape::{Form, escape};
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
    write(&format!("{line}\n"), Form::Line);
}

/// Prints lines like [`print()`]. Parts of them that are not the host's own text must have passed
/// [`one_line`](super::one_line).
pub fn print_text(lines: impl AsRef<str>) {
    write(lines.as_ref(), Form::Lines);
}

/// Prints JSON like [`print()`].
pub fn print_json(json: impl fmt::Display) {
    write(&format!("{json}\n"), Form::Json);
}

/// Prints bytes as they are, like [`print()`]: an image, for example.
pub fn print_bytes(bytes: &[u8]) {
    write_out(bytes);
}

fn write(text: &str, form: Form) {
    write_out(&escape(text.as_bytes(), form));
}

fn write_out(bytes: &[u8]) {
    if PRINT_ERROR.get().is_none()
        && let Err(failed) = write_all(libc::STDOUT_FILENO, bytes)
    {
        let _ = PRINT_ERROR.set(failed.error);
    }
}

/// Returns why a command could not print all of its output. A reader that closed the pipe is not an
/// error.
pub fn print_error() -> Option<&'static io::Error> {
    PRINT_ERROR.get().filter(|error| error.kind() != io::ErrorKind::BrokenPipe)
}

/// Returns whether nothing more is printed, because a write has failed or the reader has closed the
/// pipe.
pub fn has_failed() -> bool {
    PRINT_ERROR.get().is_some()
}

/// Writes a message for a person to stderr: the progress of a command, or why it ends.
pub fn report(message: impl fmt::Display) {
    log().write(format!("{message}\n").as_bytes(), Form::Line);
}

/// Marks the lines of a text that a plugin has written, so that none passes for a line of a
/// command.
pub fn quoted_lines(text: &str) -> String {
    text.trim_end().lines().map(|line| format!("  | {line}\n")).collect()
}

/// Writes lines that the host has laid out to stderr, like [`report()`].
pub fn report_lines(lines: &str) {
    log().write(format!("{}\n", lines.trim_end()).as_bytes(), Form::Lines);
}
