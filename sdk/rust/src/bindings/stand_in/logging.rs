//! The interface `wasi:logging/logging`.

use crate::testing::{LogLine, try_with_host};

/// How important a line of the log is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Level {
    /// Details of each step.
    Trace,
    /// Details for the author.
    Debug,
    /// Normal operation.
    Info,
    /// Something that the operator should look at.
    Warn,
    /// A failure.
    Error,
    /// A failure after which the plugin cannot go on.
    Critical,
}

pub fn log(level: Level, context: &str, message: &str) {
    // Shown with the output of a test that fails.
    println!("log {level:?}: {message}");
    let line = LogLine { level, context: context.into(), message: message.into() };
    try_with_host(|host| host.log.push(line));
}
