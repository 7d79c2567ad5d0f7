//! Tasks that wait for a change of a job.

use crate::lock::LockUnpoisoned;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;

/// The jobs that somebody watches. Others cost nothing but a look-up.
#[derive(Default)]
pub(in crate::jobs) struct Watchers(Mutex<HashMap<Arc<str>, Watched>>);

struct Watched {
    changed: Arc<Notify>,
    watchers: usize,
}

impl Watchers {
    /// Wakes all who watch the job. Called when its record has changed.
    pub fn notify(&self, id: &str) {
        if let Some(watched) = self.0.lock_unpoisoned().get(id) {
            watched.changed.notify_waiters();
        }
    }

    /// Wakes all who watch any job, for a store that was away for a while.
    pub fn notify_all(&self) {
        self.0.lock_unpoisoned().values().for_each(|watched| watched.changed.notify_waiters());
    }

    pub fn watch(&self, id: &str) -> Watcher<'_> {
        let mut watched = self.0.lock_unpoisoned();
        let id: Arc<str> = id.into();
        let entry = watched.entry(Arc::clone(&id));
        let entry = entry.or_insert_with(|| Watched { changed: Arc::default(), watchers: 0 });
        entry.watchers += 1;
        Watcher { watchers: self, changed: Arc::clone(&entry.changed), id }
    }
}

pub(in crate::jobs) struct Watcher<'a> {
    watchers: &'a Watchers,
    changed: Arc<Notify>,
    id: Arc<str>,
}

impl Watcher<'_> {
    /// Returns at the first change after this was called, unless `already` says that there was one
    /// before.
    pub async fn changed<E>(&self, already: impl AsyncFnOnce() -> Result<bool, E>) -> Result<(), E> {
        let mut changed = std::pin::pin!(self.changed.notified());
        changed.as_mut().enable();
        if !already().await? {
            changed.await;
        }
        Ok(())
    }
}

impl Drop for Watcher<'_> {
    fn drop(&mut self) {
        let mut watched = self.watchers.0.lock_unpoisoned();
        if let Some(entry) = watched.get_mut(&self.id) {
            entry.watchers -= 1;
            if entry.watchers == 0 {
                watched.remove(&self.id);
            }
        }
    }
}
