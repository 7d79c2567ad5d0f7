//! The thread that notices changed files, and reports them once they have stopped changing.
//!
//! It checks every file, which takes as long as the file systems take. The reload thread never does
//! that.

use crate::error::{Error, Result};
use crate::policy::changes::{Changes, ChangesVerdict, QuietLimits};
use crate::policy::files::{Signature, Stat};
use crate::policy::settings::ReloadSettings;
use crate::policy::watch::Watcher;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

enum WatchCommand {
    /// A file may have changed.
    Look,
    /// Files were read in this state. Only a difference from it is a change.
    Seen(Signature),
    Settings(Box<ReloadSettings>),
    Stop,
}

/// The handle of the watch thread. Dropping it ends the thread as soon as its file system lets it.
pub(super) struct Watching {
    commands: Sender<WatchCommand>,
    settings: ReloadSettings,
}

impl Watching {
    /// Starts the thread, which calls `changed` with the files that still keep changing.
    pub fn start(
        seen: Signature,
        settings: ReloadSettings,
        changed: impl Fn(Vec<PathBuf>) + Send + 'static,
    ) -> Result<Self> {
        let (commands, inbox) = channel();
        let look = commands.clone();
        let thread = WatchThread {
            seen,
            settings: settings.clone(),
            watcher: Watcher::new(move || drop(look.send(WatchCommand::Look))),
            changes: Changes::default(),
            // A file may have changed between the first reading and the watch.
            due: Instant::now(),
            looked: None,
            changed,
        };
        let spawned = std::thread::Builder::new().name("watch".into()).spawn(move || thread.run(&inbox));
        spawned.map_err(|error| Error::io(&error).context("cannot start the watch thread"))?;
        Ok(Watching { commands, settings })
    }

    /// Notes that files were read in this state. Only a difference from it is a change.
    pub fn seen(&self, seen: Signature) {
        let _ = self.commands.send(WatchCommand::Seen(seen));
    }

    pub fn settings(&mut self, settings: &ReloadSettings) {
        if self.settings != *settings {
            self.settings.clone_from(settings);
            let _ = self.commands.send(WatchCommand::Settings(Box::new(settings.clone())));
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.commands.send(WatchCommand::Stop);
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
                    tracing::error!("watch thread panicked; it continues");
                    self.due = Instant::now() + self.settings.poll;
                }
            }
        }
    }

    /// Follows one command, or checks the files if that is due. Returns false at the end.
    fn step(&mut self, inbox: &Receiver<WatchCommand>) -> bool {
        let now = Instant::now();
        match inbox.recv_timeout(self.due.saturating_duration_since(now)) {
            Ok(WatchCommand::Look) => {
                // One check answers many events in a row.
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
        let limits = QuietLimits { quiet: self.settings.quiet, longest: self.settings.quiet_max };
        self.changes.observe(&self.seen, &now, at);
        match self.changes.verdict(at, limits) {
            ChangesVerdict::Unchanged => {}
            ChangesVerdict::Wait(wait) => {
                self.due = at + wait.clamp(Duration::from_millis(1), self.settings.poll);
            }
            ChangesVerdict::Read(unquiet) => {
                self.changes.read(&unquiet, at, limits);
                self.seen = now;
                (self.changed)(unquiet);
            }
        }
    }
}
