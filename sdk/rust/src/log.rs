//! Writes to the host's log, which adds the plugin's name and the request id. Output to stdout and
//! stderr goes there as well, but pulls the code for formatting and files into the component.

use crate::bindings::logging::{Level, log};

pub fn debug(message: &str) {
    log(Level::Debug, "", message);
}

pub fn info(message: &str) {
    log(Level::Info, "", message);
}

pub fn warn(message: &str) {
    log(Level::Warn, "", message);
}

pub fn error(message: &str) {
    log(Level::Error, "", message);
}
