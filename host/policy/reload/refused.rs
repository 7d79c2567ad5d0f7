//! Files that must not go live again until they change.

use std::collections::VecDeque;

/// What the files said when they were rolled back or failed to load, by its digest, and why. Keeps
/// only the latest few.
#[derive(Default)]
pub(super) struct Refused(VecDeque<(String, String)>);

impl Refused {
    const KEPT_MAX: usize = 8;

    pub fn insert(&mut self, written: String, why: String) {
        self.0.retain(|(known, _)| *known != written);
        self.0.truncate(Self::KEPT_MAX - 1);
        self.0.push_front((written, why));
    }

    pub fn why(&self, written: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == written).map(|(_, why)| why.as_str())
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }
}
