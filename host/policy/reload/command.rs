//! The commands that the reload thread follows.

use super::step::Step;
use crate::error::{Error, Result};
use crate::policy::overlay::Overrides;
use crate::policy::record::Record;
use crate::policy::route::Route;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::oneshot;

pub(super) enum Command {
    /// Files have changed. `unquiet` lists those that still keep changing.
    Changed {
        unquiet: Vec<PathBuf>,
    },
    /// A thread of this attempt has finished its step.
    Built {
        id: u64,
        step: Box<Step>,
    },
    Reload {
        dry_run: bool,
        operator: String,
        reply: oneshot::Sender<Result<Record>>,
    },
    Rollback {
        /// The generation that the previous policy must have.
        generation: Option<u64>,
        operator: String,
        reply: oneshot::Sender<Result<Record>>,
    },
    Promote {
        /// The generation that the candidate must have.
        generation: Option<u64>,
        operator: String,
        reply: oneshot::Sender<Result<Record>>,
    },
    Load {
        model: String,
        overrides: Overrides,
        reply: oneshot::Sender<Result<()>>,
    },
    Unload {
        model: String,
        reply: oneshot::Sender<Result<Vec<Arc<Route>>>>,
    },
    Stop,
}

/// The error of a command that cannot be answered: the reload thread has ended, or it panicked.
pub(super) fn stopping() -> Error {
    Error::unavailable("the host is stopping, or its reload thread failed; see the log")
}
