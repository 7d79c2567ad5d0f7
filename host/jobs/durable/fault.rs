//! Why a store cannot be used.

use crate::error::Error;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It may pass: the disk is full or away, or another process has the store. The store is opened
    /// again and again.
    Unavailable(String),
    /// The files are not what the host has written. They stay as they are until an operator resets
    /// the store.
    Damaged(String),
}

impl Fault {
    pub fn unavailable(why: impl Into<String>) -> Self {
        Fault::Unavailable(why.into())
    }

    pub fn damaged(why: impl Into<String>) -> Self {
        Fault::Damaged(why.into())
    }

    pub fn io(what: &str, error: &io::Error) -> Self {
        match error.kind() {
            // What redb reports for a file that is not a database.
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                Fault::damaged(format!("{what}: {error}"))
            }
            _ => Fault::unavailable(format!("{what}: {error}")),
        }
    }

    pub fn why(&self) -> &str {
        match self {
            Fault::Unavailable(why) | Fault::Damaged(why) => why,
        }
    }

    /// Returns the error for a caller whose request needs the store.
    pub fn error(&self) -> Error {
        let error = match self {
            Fault::Unavailable(why) => Error::unavailable(format!("the job store is unavailable: {why}")),
            Fault::Damaged(why) => Error::unavailable(format!(
                "the job store is damaged: {why}; its files are kept as they are until an operator runs `hostler jobs \
                 reset`, or sends POST /admin/jobs/reset to the admin listener"
            )),
        };
        error.transient()
    }
}

/// Runs work on files that may be damaged, which can make the library panic.
pub(super) fn catch_panics<T>(
    what: impl FnOnce() -> String,
    work: impl FnOnce() -> Result<T, Fault>,
) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let why = panic.downcast_ref::<String>().map(String::as_str);
        let why = why.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        Err(Fault::damaged(format!("{}: {why}", what())))
    })
}

/// Names what was attempted when a database returns an error.
pub(super) trait Attempted<T> {
    fn attempted(self, what: &str) -> Result<T, Fault>;
}

impl<T, E: Into<redb::Error>> Attempted<T> for Result<T, E> {
    fn attempted(self, what: &str) -> Result<T, Fault> {
        self.map_err(|error| fault(what, error.into()))
    }
}

fn fault(what: &str, error: redb::Error) -> Fault {
    match error {
        redb::Error::Io(error) => Fault::io(what, &error),
        redb::Error::DatabaseAlreadyOpen => {
            Fault::unavailable(format!("{what}: another process has it open"))
        }
        redb::Error::PreviousIo => Fault::unavailable(format!("{what}: an earlier write has failed")),
        redb::Error::Corrupted(why) => Fault::damaged(format!("{what}: {why}")),
        error @ (redb::Error::UpgradeRequired(_) | redb::Error::RepairAborted) => {
            Fault::damaged(format!("{what}: {error}"))
        }
        error => Fault::damaged(format!("{what}: {error}")),
    }
}
