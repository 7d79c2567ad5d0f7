//! The thread that notices changed files and says so once they are quiet.
//!
//! It looks at every file, which takes as long as their file systems like: the reload thread never does.

use crate::error::{Error, Result};
use crate::policy::changes::{Changes, Quiet, Verdict};
use crate::policy::files::{Signature, Stat};
use crate::policy::settings::ReloadSettings;
use crate::policy::watch::Watcher;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

enum WatchCommand {
    /// Something may have changed.
    Look,
    /// Only what differs from this is a change.
    Seen(Signature),
    Settings(Box<ReloadSettings>),
    Stop,
}

/// Tells the watch thread what to compare with. Dropping it ends the thread once its file system lets it.
pub(super) struct Watching {
    orders: Sender<WatchCommand>,
    settings: ReloadSettings,
}

impl Watching {
    /// Calls `changed` from the thread, with the files that were not quiet.
    pub fn start(
        seen: Signature,
        settings: ReloadSettings,
        changed: impl Fn(Vec<PathBuf>) + Send + 'static,
    ) -> Result<Self> {
        let (orders, inbox) = channel();
        let look = orders.clone();
        let thread = WatchThread {
            seen,
            settings: settings.clone(),
            watcher: Watcher::new(move || drop(look.send(WatchCommand::Look))),
            changes: Changes::default(),
            // Something may have changed between the first look and the watch.
            due: Instant::now(),
            looked: None,
            changed,
        };
        let spawned = std::thread::Builder::new().name("watch".into()).spawn(move || thread.run(&inbox));
        spawned.map_err(|error| Error::io(&error).context("cannot start the watch thread"))?;
        Ok(Watching { orders, settings })
    }

    /// These files were read: only what differs from them is a change.
    pub fn seen(&self, seen: Signature) {
        let _ = self.orders.send(WatchCommand::Seen(seen));
    }

    pub fn settings(&mut self, settings: &ReloadSettings) {
        if self.settings != *settings {
            self.settings.clone_from(settings);
            let _ = self.orders.send(WatchCommand::Settings(Box::new(settings.clone())));
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.orders.send(WatchCommand::Stop);
    }
}

struct WatchThread<F> {
    seen: Signature,
    settings: ReloadSettings,
    watcher: Watcher,
    changes: Changes,
    due: Instant,
    looked: Option<Instant>,
    changed: F,
}

impl<F: Fn(Vec<PathBuf>)> WatchThread<F> {
    fn run(mut self, inbox: &Receiver<WatchCommand>) {
        self.watcher.watch(&self.seen);
        loop {
            match catch_unwind(AssertUnwindSafe(|| self.step(inbox))) {
                Ok(true) => {}
                Ok(false) => return,
                Err(_) => {
                    tracing::error!("the watch thread panicked; it goes on");
                    self.due = Instant::now() + self.settings.poll;
                }
            }
        }
    }

    /// Follows one order, or looks where it is time to. False at the end.
    fn step(&mut self, inbox: &Receiver<WatchCommand>) -> bool {
        let now = Instant::now();
        match inbox.recv_timeout(self.due.saturating_duration_since(now)) {
            Ok(WatchCommand::Look) => {
                // Many events in a row are answered by one look.
                let gap = self.settings.quiet / 2;
                let soon = self.looked.map_or(now, |looked| (looked + gap).max(now));
                self.due = self.due.min(soon);
            }
            Ok(WatchCommand::Seen(seen)) => {
                self.seen = seen;
                self.watcher.watch(&self.seen);
                self.due = now;
            }
            Ok(WatchCommand::Settings(settings)) => {
                self.settings = *settings;
                self.due = now;
            }
            Err(RecvTimeoutError::Timeout) => self.look(),
            Ok(WatchCommand::Stop) | Err(RecvTimeoutError::Disconnected) => return false,
        }
        true
    }

    fn look(&mut self) {
        self.due = Instant::now() + self.settings.poll;
        if !self.settings.watch {
            return;
        }
        let now: Signature = self.seen.keys().map(|path| (path.clone(), Stat::of(path))).collect();
        let at = Instant::now();
        self.looked = Some(at);
        let limits = Quiet { quiet: self.settings.quiet, longest: self.settings.quiet_max };
        self.changes.observe(&self.seen, &now, at);
        match self.changes.verdict(at, limits) {
            Verdict::Unchanged => {}
            Verdict::Wait(wait) => self.due = at + wait.clamp(Duration::from_millis(1), self.settings.poll),
            Verdict::Read(unquiet) => {
                self.changes.read(&unquiet, at, limits);
                self.seen = now;
                (self.changed)(unquiet);
            }
        }
    }
}
