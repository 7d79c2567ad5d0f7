//! Calls that did not end in time when their plugin was replaced and were therefore ended by force.
//! The latest few are kept, for operators who ask about plugins that are gone.

use crate::lock::LockUnpoisoned;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

const ENTRIES_MAX: usize = 16;

/// Maximum request ids in one entry.
const REQUESTS_MAX: usize = 64;

#[derive(Default)]
pub struct DrainTimeouts(Mutex<VecDeque<DrainTimeout>>);

/// The calls of one instance that were ended by force.
#[derive(Clone, Debug)]
pub struct DrainTimeout {
    pub plugin: Arc<str>,
    pub at: SystemTime,
    pub calls: usize,
    /// Ids of the requests; at most `REQUESTS_MAX`.
    pub requests: Vec<String>,
}

impl DrainTimeouts {
    pub(super) fn add(&self, plugin: &Arc<str>, mut requests: Vec<String>) {
        let calls = requests.len();
        requests.truncate(REQUESTS_MAX);
        let mut all = self.0.lock_unpoisoned();
        if all.len() >= ENTRIES_MAX {
            all.pop_front();
        }
        all.push_back(DrainTimeout { plugin: Arc::clone(plugin), at: SystemTime::now(), calls, requests });
    }

    /// Returns the entries from the oldest to the newest.
    pub fn list(&self) -> Vec<DrainTimeout> {
        self.0.lock_unpoisoned().iter().cloned().collect()
    }
}
