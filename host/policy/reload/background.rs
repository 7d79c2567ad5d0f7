//! What the reload thread leaves to another: the last-good copy on disk, and freeing what is not used any more.
//!
//! Both take as long as the disk and the size of a policy make them.

use crate::error::{Error, Result};
use crate::policy::PolicyContent;
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
    /// Says that all before it is done.
    Flush(Sender<()>),
}

pub(super) struct Background {
    tasks: Sender<BackgroundTask>,
    keeps_copies: bool,
}

impl Background {
    pub fn start(last_good: Option<LastGood>, files: Files) -> Result<Self> {
        let (tasks, inbox) = channel();
        let keeps_copies = last_good.is_some();
        let run = move || work(last_good.as_ref(), &files, &inbox);
        let spawned = std::thread::Builder::new().name("background".into()).spawn(run);
        spawned.map_err(|error| Error::io(&error).context("cannot start the background thread"))?;
        Ok(Background { tasks, keeps_copies })
    }

    /// Copies the files of a policy, as the last good ones.
    pub fn save(&self, content: Arc<PolicyContent>) {
        if self.keeps_copies {
            self.send(BackgroundTask::Save(content));
        }
    }

    /// Makes the copy before the last one the last again.
    pub fn roll_back(&self) {
        if self.keeps_copies {
            self.send(BackgroundTask::RollBack);
        }
    }

    /// Drops a value there. Freeing a large policy takes a while.
    pub fn free(&self, value: impl Send + 'static) {
        self.send(BackgroundTask::Free(Box::new(value)));
    }

    /// Waits until everything is done, for at most this long.
    pub fn flush(&self, limit: Duration) {
        let (done, finished) = channel();
        self.send(BackgroundTask::Flush(done));
        let _ = finished.recv_timeout(limit);
    }

    fn send(&self, task: BackgroundTask) {
        let _ = self.tasks.send(task);
    }
}

fn work(last_good: Option<&LastGood>, files: &Files, inbox: &Receiver<BackgroundTask>) {
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
                Ok(())
            }
            (BackgroundTask::Save(_) | BackgroundTask::RollBack, None) => Ok(()),
        }));
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!("{error}"),
            Err(_) => tracing::error!("the background thread panicked; it goes on"),
        }
    }
}
