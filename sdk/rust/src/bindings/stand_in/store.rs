//! The interface `wasi:config/store`.

use crate::testing::with_host;
use std::fmt;

/// Why the configuration cannot be read. Hostler never returns it.
#[derive(Clone, Debug)]
pub enum Error {
    /// A store behind the host failed.
    Upstream(String),
    /// Reading failed.
    Io(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for Error {}

pub fn get(key: &str) -> Result<Option<String>, Error> {
    Ok(with_host("config", |host| host.config.get(key).cloned()))
}

pub fn get_all() -> Result<Vec<(String, String)>, Error> {
    Ok(with_host("config", |host| host.config.clone().into_iter().collect()))
}
