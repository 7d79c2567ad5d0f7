//! The only writer of the live policy: watches, plans, loads, swaps, rolls back, and keeps the record.
//!
//! The reload thread (`thread`) owns the live policy and decides; it never waits for a file, a compiler or a
//! model. Others do the work and report to it: `watching` looks at files, `build` reads and loads, `background`
//! keeps copies. The new policy is built beside the old; any failure leaves the old in place. What was refused
//! stays refused until the files change. While a new policy is on its way, the thread also judges it and takes
//! it further or back (`stages`).

mod background;
mod build;
mod control;
mod decide;
mod first;
mod history;
mod publish;
mod retry;
mod stages;
mod thread;
mod watching;

pub use control::{Indexed, State};
pub use first::FirstPlan;

use super::files::Files;
use super::last_good::LastGood;
use super::load::Loader;
use super::overlay::Overrides;
use super::record::{Record, Report, Trigger};
use super::rollout::Recent;
use super::{LivePolicy, Policy, Route, manifest};
use crate::error::{Error, Result};
use background::Background;
use build::{Builders, Step};
use history::{History, Shared};
use retry::Retry;
use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::SystemTime;
use thread::{Refused, ReloadThread};
use tokio::sync::oneshot;
use watching::Watching;

enum Command {
    /// Files have changed; these ones were not quiet.
    Changed {
        unquiet: Vec<PathBuf>,
    },
    /// A thread of this attempt has done its step.
    Built {
        id: u64,
        step: Box<Step>,
    },
    Reload {
        dry_run: bool,
        who: String,
        reply: oneshot::Sender<Result<Record>>,
    },
    Rollback {
        /// What the previous policy must be, by its generation.
        generation: Option<u64>,
        who: String,
        reply: oneshot::Sender<Result<Record>>,
    },
    Promote {
        who: String,
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

/// The handle that the rest of the host has. Dropping it ends the thread.
pub struct Reloader {
    commands: Sender<Command>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    permission: control::Permission,
}

impl Reloader {
    /// Loads the first policy, and from then on follows its files.
    pub fn start(
        path: PathBuf,
        files: Files,
        first: FirstPlan,
        loader: Loader,
        last_good: Option<LastGood>,
    ) -> Result<Self> {
        let mut record = Record::new(Trigger::Start);
        let server = first.plan.server.clone();
        let settings = &first.plan.settings;
        let permission =
            control::Permission { allowed: settings.model_control, drain: settings.drain_timeout };
        let seen = files.take_asked();
        let started = first::load(&path, &files, first, &loader, last_good.as_ref(), &mut record)?;
        let policy = Arc::new(Policy { generation: 1, since: SystemTime::now(), content: started.content });
        let recent = Recent::new(&policy);
        let settings = policy.content.plan.reload.clone();
        let history = History::new(&record);
        let live = Arc::new(LivePolicy::new(policy));
        let shared = Arc::new(Shared { live, history: Mutex::new(history), path });
        let (commands, inbox) = std::sync::mpsc::channel();
        // What was kept in memory of the first files is not needed any more.
        let files = files.attempt();
        let mut retry = Retry::default();
        retry.ended(started.transient && settings.watch);
        let changed = commands.clone();
        let watching = Watching::start(seen, settings, move |unquiet| {
            let _ = changed.send(Command::Changed { unquiet });
        })?;
        let thread = ReloadThread {
            shared: Arc::clone(&shared),
            background: Background::start(last_good, files.attempt())?,
            builders: Builders::new(commands.clone()),
            files,
            loader: Arc::new(loader),
            watching,
            server,
            refused: Refused::default(),
            newest: 1,
            recent,
            build: None,
            waiting: VecDeque::new(),
            last_build: 0,
            superseded: 0,
            retry,
        };
        thread.publish(record);
        let thread = std::thread::Builder::new()
            .name("reload".into())
            .spawn(move || thread.run(&inbox))
            .map_err(|error| Error::io(&error).context("cannot start the reload thread"))?;
        Ok(Reloader { commands, shared, thread: Some(thread), permission })
    }

    pub fn live(&self) -> Arc<LivePolicy> {
        Arc::clone(&self.shared.live)
    }

    /// Builds what the files say now, and swaps to it unless this is a dry run. Tries also what was
    /// refused before.
    pub async fn reload(&self, dry_run: bool, who: String) -> Result<Record> {
        let (reply, record) = oneshot::channel();
        self.send(Command::Reload { dry_run, who, reply })?;
        record.await.map_err(|_| stopping())?
    }

    /// Makes the previous policy live again, at once; ends a rollout in favour of what it would replace. What is
    /// live now, and what is being built, is refused until its files change. With a generation it is a conflict
    /// if the policy to go back to is another one.
    pub async fn rollback(&self, who: String, generation: Option<u64>) -> Result<Record> {
        let (reply, record) = oneshot::channel();
        self.send(Command::Rollback { generation, who, reply })?;
        record.await.map_err(|_| stopping())?
    }

    /// Gives a new policy that is on its way to all requests, at once.
    pub async fn promote(&self, who: String) -> Result<Record> {
        let (reply, record) = oneshot::channel();
        self.send(Command::Promote { who, reply })?;
        record.await.map_err(|_| stopping())?
    }

    fn send(&self, command: Command) -> Result<()> {
        self.commands.send(command).map_err(|_| stopping())
    }

    pub fn report(&self) -> Report {
        self.shared.report()
    }

    /// Lets the plugins of all policies finish what they do and end. For a host that stops.
    pub async fn finish(&self) {
        let mut contents = self.shared.live.contents();
        contents.extend(self.shared.history().previous.iter().map(|policy| Arc::clone(&policy.content)));
        for plugin in contents.iter().flat_map(|content| content.shared_plugins()) {
            plugin.finish().await;
        }
    }
}

/// There is nobody left to answer, or who was to answer panicked.
fn stopping() -> Error {
    Error::unavailable("the host is stopping, or the reload thread failed: its log says so")
}

impl Drop for Reloader {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Keys of `[server]` that a running process cannot change.
fn restart_needed(running: &manifest::Server, written: &manifest::Server) -> Vec<String> {
    let (running, written) = (running.entries(), written.entries());
    let keys: BTreeSet<&'static str> = running.keys().chain(written.keys()).copied().collect();
    let line = |key: &'static str| {
        let show = |value: Option<&String>| value.cloned().unwrap_or_else(|| "its default".into());
        let (old, new) = (show(running.get(key)), show(written.get(key)));
        format!(
            "[server] {key} is read at start only: {new} takes effect after a restart, {old} holds until then"
        )
    };
    keys.into_iter().filter(|key| running.get(key) != written.get(key)).map(line).collect()
}
