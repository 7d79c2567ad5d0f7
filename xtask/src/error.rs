//! The one error of xtask: what was attempted and why it failed, and how to mend it.

use std::fmt;

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug)]
pub struct Error {
    attempted: String,
    mend: String,
}

impl Error {
    /// `attempted` names the action, its object and the cause; an empty `mend` is not printed.
    pub fn new(attempted: impl Into<String>, mend: impl Into<String>) -> Error {
        Error { attempted: attempted.into(), mend: mend.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.attempted)?;
        for line in self.mend.lines() {
            write!(f, "\n  {line}")?;
        }
        Ok(())
    }
}

/// Says what was attempted when the standard library says only why it failed.
pub trait Attempt<T> {
    fn attempting(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: fmt::Display> Attempt<T> for std::result::Result<T, E> {
    fn attempting(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|cause| Error::new(format!("{}: {cause}", what()), ""))
    }
}
