//! The error type of xtask: what was attempted, why it failed, and how to fix it.

use std::fmt;

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug)]
pub struct Error {
    attempted: String,
    fix: String,
}

impl Error {
    /// `attempted` names the action, its object and the cause. `fix` says what to do; an empty one
    /// is not printed.
    pub fn new(attempted: impl Into<String>, fix: impl Into<String>) -> Error {
        Error { attempted: attempted.into(), fix: fix.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.attempted)?;
        for line in self.fix.lines() {
            write!(f, "\n  {line}")?;
        }
        Ok(())
    }
}

/// Adds what was attempted to an error that only says why it failed, as the standard library's do.
/// `what` completes the sentence "cannot …".
pub trait Attempt<T> {
    fn attempting(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: fmt::Display> Attempt<T> for std::result::Result<T, E> {
    fn attempting(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|cause| Error::new(format!("cannot {}: {cause}", what()), ""))
    }
}
