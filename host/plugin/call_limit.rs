//! The time limit that a guest sets for its call of a model.

use crate::error::{Error, Kind, Result};
use std::time::{Duration, Instant};

/// The time that the guest allows for one call.
#[derive(Clone, Copy)]
pub(super) struct CallLimit {
    us: Option<u64>,
    pub until: Option<Instant>,
}

impl CallLimit {
    pub fn new(us: Option<u64>) -> Self {
        // A limit too far in the future to represent is no limit.
        CallLimit { us, until: us.and_then(|us| Instant::now().checked_add(Duration::from_micros(us))) }
    }

    pub async fn hold<T>(self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let Some(until) = self.until else { return work.await };
        match tokio::time::timeout_at(until.into(), work).await {
            // The callee may know the limit and notice it first.
            Ok(Err(error)) if error.kind() == Kind::Deadline && Instant::now() >= until => {}
            Ok(outcome) => return outcome,
            Err(_) => {}
        }
        let us = self.us.unwrap_or_default();
        Err(Error::deadline(format!("the model has not answered within {us} us")))
    }
}
