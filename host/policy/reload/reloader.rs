//! The handle by which the rest of the host reloads, rolls back and promotes policies.

use super::background::Background;
use super::builders::Builders;
use super::command::{Command, stopping};
use super::first::{self, FirstPlan};
use super::history::{History, Shared};
use super::permission::Permission;
use super::refused::Refused;
use super::retry::Retry;
use super::thread::ReloadThread;
use super::watching::Watching;
use crate::error::{Error, Result};
use crate::policy::content::Policy;
use crate::policy::files::Files;
use crate::policy::last_good::LastGood;
use crate::policy::live::LivePolicy;
use crate::policy::load::Loader;
use crate::policy::recent::Recent;
use crate::policy::record::{Record, Report, Summary, Trigger};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::SystemTime;
use tokio::sync::oneshot;

/// The handle of the reload thread. Dropping it ends the thread.
pub struct Reloader {
    commands: Sender<Command>,
    pub(super) shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    pub(super) permission: Permission,
}

impl Reloader {
    /// Loads the first policy, and follows its files from then on.
    pub fn start(
        path: PathBuf,
        files: Files,
        first: FirstPlan,
        loader: Loader,
        last_good: Option<LastGood>,
    ) -> Result<Self> {
        let mut record = Record::new(Trigger::Start);
        let (server, job_store) = (first.plan.server.clone(), first.plan.job_store.clone());
        let settings = &first.plan.settings;
        let permission = Permission { allowed: settings.model_control, drain: settings.drain_timeout };
        let seen = files.take_asked();
        let started = first::load(&path, &files, first, &loader, last_good.as_ref(), &mut record)?;
        let policy = Arc::new(Policy { generation: 1, since: SystemTime::now(), content: started.content });
        let recent = Recent::new(&policy);
        let settings = policy.content.plan.reload.clone();
        let history = History::new(&record, &policy);
        let live = Arc::new(LivePolicy::new(policy));
        let shared = Arc::new(Shared { live, history: Mutex::new(history), path });
        let (commands, inbox) = std::sync::mpsc::channel();
        // Frees the contents of the first files that were kept in memory.
        let files = files.attempt();
        let mut retry = Retry::default();
        retry.ended(started.transient && settings.watch);
        let changed = commands.clone();
        let watching = Watching::start(seen, settings, move |unquiet| {
            let _ = changed.send(Command::Changed { unquiet });
        })?;
        let thread = ReloadThread {
            shared: Arc::clone(&shared),
            background: Background::start(last_good, files.attempt(), Arc::clone(&loader.metrics))?,
            builders: Builders::new(commands.clone()),
            files,
            loader: Arc::new(loader),
            watching,
            server,
            job_store,
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

    /// Builds what the files say now, and swaps to it unless this is a dry run. Also tries files
    /// that were refused before.
    pub async fn reload(&self, dry_run: bool, operator: String) -> Result<Record> {
        let (reply, record) = oneshot::channel();
        self.send(Command::Reload { dry_run, operator, reply })?;
        record.await.map_err(|_| stopping())?
    }

    /// Makes the previous policy live again, immediately. During a rollout it drops the new policy
    /// in favour of the one that it would replace. The policy that is rolled back, and the one that
    /// is being built, are refused until their files change. Fails with a conflict if `generation`
    /// is set and is not the policy to go back to.
    pub async fn rollback(&self, operator: String, generation: Option<u64>) -> Result<Record> {
        let (reply, record) = oneshot::channel();
        self.send(Command::Rollback { generation, operator, reply })?;
        record.await.map_err(|_| stopping())?
    }

    /// Lets the new policy of a rollout serve all requests, immediately.
    /// Fails with a conflict if `generation` is set and is not that policy.
    pub async fn promote(&self, operator: String, generation: Option<u64>) -> Result<Record> {
        let (reply, record) = oneshot::channel();
        self.send(Command::Promote { generation, operator, reply })?;
        record.await.map_err(|_| stopping())?
    }

    pub(super) fn send(&self, command: Command) -> Result<()> {
        self.commands.send(command).map_err(|_| stopping())
    }

    pub fn report(&self) -> Report {
        self.shared.report()
    }

    /// Returns what an operator must know first.
    pub fn summary(&self) -> Summary {
        self.shared.summary()
    }

    /// Returns the records of the latest reloads, the newest first.
    pub fn records(&self, limit: usize) -> Vec<Arc<Record>> {
        self.shared.history().records.latest(limit)
    }

    /// Lets the streaming models of all policies finish their calls and end, when the host stops.
    pub async fn finish(&self) {
        let mut contents = self.shared.live.contents();
        contents.extend(self.shared.history().previous.iter().map(|policy| Arc::clone(&policy.content)));
        for plugin in contents.iter().flat_map(|content| content.shared_plugins()) {
            plugin.finish().await;
        }
    }
}

impl Drop for Reloader {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
