//! Writes to the host's log, which adds the plugin's name and the request id. Output to stdout and
//! stderr goes there as well, but pulls the code for formatting and files into the component.

use crate::bindings::logging::{Level, log};

/// Writes a line of the level debug, which hosts show with `HOSTLER_LOG=debug` only.
pub fn debug(message: &str) {
    log(Level::Debug, "", message);
}

/// Writes a line of the level info.
pub fn info(message: &str) {
    log(Level::Info, "", message);
}

/// Writes a line of the level warn.
pub fn warn(message: &str) {
    log(Level::Warn, "", message);
}

/// Writes a line of the level error.
pub fn error(message: &str) {
    log(Level::Error, "", message);
}
