//! What an operator may want to know of plugins that are gone: calls that did not end in time when their plugin was
//! replaced, and were ended by force. The latest few.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

const ENTRIES_MAX: usize = 16;

/// Ids of one entry.
const REQUESTS_MAX: usize = 64;

#[derive(Default)]
pub struct DrainTimeouts(Mutex<VecDeque<DrainTimeout>>);

/// The calls of one instance.
#[derive(Clone, Debug)]
pub struct DrainTimeout {
    pub plugin: Arc<str>,
    pub at: SystemTime,
    pub calls: usize,
    /// Ids of requests, as far as there is room.
    pub requests: Vec<String>,
}

impl DrainTimeouts {
    pub(super) fn add(&self, plugin: &Arc<str>, mut requests: Vec<String>) {
        let calls = requests.len();
        requests.truncate(REQUESTS_MAX);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= ENTRIES_MAX {
            all.pop_front();
        }
        all.push_back(DrainTimeout { plugin: Arc::clone(plugin), at: SystemTime::now(), calls, requests });
    }

    /// From the oldest to the newest.
    pub fn list(&self) -> Vec<DrainTimeout> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}
