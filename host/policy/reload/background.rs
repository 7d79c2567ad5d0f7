//! Slow work for the reload thread: saving the last-good copy, and freeing what is no longer used.
//!
//! The time depends on the disk and on the size of a policy, so the reload thread does not do it
//! itself.

use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::policy::content::PolicyContent;
use crate::policy::files::Files;
use crate::policy::last_good::LastGood;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

enum BackgroundTask {
    Save(Arc<PolicyContent>),
    RollBack,
    Free(Box<dyn Send>),
    /// Reports that all earlier tasks are done.
    Flush(Sender<()>),
}

pub(super) struct Background {
    tasks: Sender<BackgroundTask>,
    keeps_copies: bool,
}

impl Background {
    pub fn start(last_good: Option<LastGood>, files: Files, metrics: Arc<Metrics>) -> Result<Self> {
        let (tasks, inbox) = channel();
        let keeps_copies = last_good.is_some();
        let run = move || work(last_good.as_ref(), &files, &metrics, &inbox);
        let spawned = std::thread::Builder::new().name("background".into()).spawn(run);
        spawned.map_err(|error| Error::io(&error).context("cannot start the background thread"))?;
        Ok(Background { tasks, keeps_copies })
    }

    /// Copies the files of a policy as the last good ones.
    pub fn save(&self, content: Arc<PolicyContent>) {
        if self.keeps_copies {
            self.send(BackgroundTask::Save(content));
        }
    }

    /// Makes the copy before the last one current again.
    pub fn roll_back(&self) {
        if self.keeps_copies {
            self.send(BackgroundTask::RollBack);
        }
    }

    /// Drops a value on the background thread, since freeing a large policy takes a while.
    pub fn free(&self, value: impl Send + 'static) {
        self.send(BackgroundTask::Free(Box::new(value)));
    }

    /// Waits until all tasks are done, at most this long.
    pub fn flush(&self, limit: Duration) {
        let (done, finished) = channel();
        self.send(BackgroundTask::Flush(done));
        let _ = finished.recv_timeout(limit);
    }

    fn send(&self, task: BackgroundTask) {
        let _ = self.tasks.send(task);
    }
}

fn work(last_good: Option<&LastGood>, files: &Files, metrics: &Metrics, inbox: &Receiver<BackgroundTask>) {
    while let Ok(task) = inbox.recv() {
        let outcome = catch_unwind(AssertUnwindSafe(|| match (task, last_good) {
            (BackgroundTask::Save(content), Some(last_good)) => {
                last_good.save(&content.plan, &files.attempt())
            }
            (BackgroundTask::RollBack, Some(last_good)) => last_good.roll_back(),
            (BackgroundTask::Flush(done), _) => {
                let _ = done.send(());
                Ok(())
            }
            (BackgroundTask::Free(value), _) => {
                drop(value);
                // Requests may have freed other policies meanwhile.
                metrics.remove_unused();
                Ok(())
            }
            (BackgroundTask::Save(_) | BackgroundTask::RollBack, None) => Ok(()),
        }));
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!("{error}"),
            Err(_) => tracing::error!("background thread panicked; it continues"),
        }
    }
}
