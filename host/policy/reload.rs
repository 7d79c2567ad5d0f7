//! The only writer of the live policy: watches, plans, loads, swaps, rolls back, and keeps the record.
//!
//! One thread does all of it, one thing at a time, at low priority. The new policy is built beside the old;
//! any failure leaves the old in place. What was refused stays refused until the files change. While a new
//! policy is on its way, the thread also judges it and takes it further or back (`stages`).

mod history;
mod stages;

use super::describe::diff;
use super::files::{Files, Signature, Stat};
use super::last_good::LastGood;
use super::load::{Loader, Phases};
use super::plan::{Plan, Unplanned};
use super::record::{Outcome, Record, Report, Trigger};
use super::rollout::Recent;
use super::watch::Watcher;
use super::{Content, Live, Policy, manifest};
use crate::error::{Error, Kind, Result};
use history::{History, Shared};
use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::oneshot;

/// The plan that a process starts with.
pub struct FirstPlan {
    pub plan: Plan,
    /// Set where it comes from the last good copy; then why.
    copy: Option<(Files, Vec<String>)>,
}

impl FirstPlan {
    /// Reads the manifest; where it is bad and there is a last good copy, that copy's.
    pub fn read(path: &Path, files: &Files, last_good: Option<&LastGood>) -> Result<Self, Unplanned> {
        Plan::read(path, files).map(|plan| FirstPlan { plan, copy: None }).or_else(|unplanned| {
            let copy = last_good.and_then(LastGood::files).and_then(|copy| {
                let plan = Plan::read(path, &copy).ok()?;
                Some(FirstPlan { plan, copy: Some((copy, unplanned.lines())) })
            });
            copy.ok_or(unplanned)
        })
    }
}

enum Command {
    /// Something may have changed.
    Look,
    Reload {
        dry_run: bool,
        who: String,
        reply: oneshot::Sender<Record>,
    },
    Rollback {
        who: String,
        reply: oneshot::Sender<Result<Record>>,
    },
    Promote {
        who: String,
        reply: oneshot::Sender<Result<Record>>,
    },
    Stop,
}

/// The handle that the rest of the host has. Dropping it ends the thread.
pub struct Reloader {
    commands: Sender<Command>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
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
        let seen = files.take_asked();
        let content = load_first(&path, &files, first, &loader, last_good.as_ref(), &mut record)?;
        let policy = Arc::new(Policy { generation: 1, since: SystemTime::now(), content });
        let stale = record.outcome == Outcome::Fallback;
        let history =
            History { last: record.clone(), previous: None, retired: Vec::new(), stale, rollout: None };
        let recent = Recent::new(&policy);
        let live = Arc::new(Live::new(policy));
        let shared = Arc::new(Shared { live, history: Mutex::new(history), path });
        let (commands, inbox) = std::sync::mpsc::channel();
        let look = commands.clone();
        let keeper = Keeper {
            shared: Arc::clone(&shared),
            files,
            loader,
            last_good,
            server,
            seen,
            refused: None,
            newest: 1,
            recent,
            watcher: Watcher::new(move || drop(look.send(Command::Look))),
        };
        keeper.publish(record);
        let thread = std::thread::Builder::new()
            .name("reload".into())
            .spawn(move || keeper.run(&inbox))
            .map_err(|error| Error::failed(format!("cannot start the reload thread: {error}")))?;
        Ok(Reloader { commands, shared, thread: Some(thread) })
    }

    pub fn live(&self) -> Arc<Live> {
        Arc::clone(&self.shared.live)
    }

    /// Builds what the files say now, and swaps to it unless this is a dry run. Tries also what was
    /// refused before.
    pub async fn reload(&self, dry_run: bool, who: String) -> Result<Record> {
        let (reply, record) = oneshot::channel();
        self.send(Command::Reload { dry_run, who, reply })?;
        record.await.map_err(|_| stopping())
    }

    /// Makes the previous policy live again, at once; ends a rollout in favour of what it would replace. What is live now is refused until its files change.
    pub async fn rollback(&self, who: String) -> Result<Record> {
        let (reply, record) = oneshot::channel();
        self.send(Command::Rollback { who, reply })?;
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
}

fn stopping() -> Error {
    Error::unavailable("the host is stopping")
}

impl Drop for Reloader {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn load_first(
    path: &Path,
    files: &Files,
    first: FirstPlan,
    loader: &Loader,
    last_good: Option<&LastGood>,
    record: &mut Record,
) -> Result<Arc<Content>> {
    let mut phases = Phases::default();
    record.digest = Some(first.plan.digest.clone());
    if let Some((copy, errors)) = first.copy {
        record.errors = errors;
        record.outcome = Outcome::Fallback;
        return loader.load(first.plan, &copy, &[], &mut phases);
    }
    let loaded = loader.load(first.plan, files, &[], &mut phases).or_else(|error| {
        let Some(copy) = last_good.and_then(LastGood::files) else { return Err(error) };
        let plan = Plan::read(path, &copy).map_err(|_| error.clone())?;
        record.errors = vec![error.to_string()];
        record.outcome = Outcome::Fallback;
        loader.load(plan, &copy, &[], &mut phases)
    });
    record.phases_ms = phases.in_ms().into();
    loaded
}

/// The reload thread.
struct Keeper {
    shared: Arc<Shared>,
    files: Files,
    loader: Loader,
    last_good: Option<LastGood>,
    /// `[server]` as the process started with it.
    server: manifest::Server,
    /// The files that the last plan asked for, as they were then.
    seen: Signature,
    /// The digest of what was rolled back or failed to load, and why.
    refused: Option<(String, String)>,
    /// The highest generation given out.
    newest: u64,
    recent: Recent,
    watcher: Watcher,
}

impl Keeper {
    fn run(mut self, inbox: &Receiver<Command>) {
        self.keep_copy();
        self.watcher.watch(&self.seen);
        // Something may have changed between the first look and the watch.
        let mut next = VecDeque::from([Command::Look]);
        let mut looked = Instant::now();
        loop {
            self.tick();
            match next.pop_front() {
                Some(Command::Look) if self.settings().watch => self.look(inbox, &mut next),
                Some(Command::Look) => {}
                Some(Command::Reload { dry_run, who, reply }) => {
                    let _ = reply.send(self.reload(Trigger::Admin(who), dry_run));
                }
                Some(Command::Rollback { who, reply }) => {
                    drop(reply.send(self.rollback(Trigger::Admin(who), None)));
                }
                Some(Command::Promote { who, reply }) => drop(reply.send(self.promote(Some(who)))),
                Some(Command::Stop) => return,
                None => match inbox.recv_timeout(self.pause(looked)) {
                    Ok(command) => next.push_back(command),
                    Err(RecvTimeoutError::Timeout) if looked.elapsed() >= self.settings().poll => {
                        looked = Instant::now();
                        next.push_back(Command::Look);
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                },
            }
        }
    }

    /// The same files as they are now.
    fn now(&self) -> Signature {
        self.seen.keys().map(|path| (path.clone(), Stat::of(path))).collect()
    }

    /// How long to wait for a command: until it is time to look again, or to judge a rollout.
    fn pause(&self, looked: Instant) -> Duration {
        let pause = self.settings().poll.saturating_sub(looked.elapsed());
        let rollout = self.shared.history().rollout.is_some();
        if rollout { pause.min(stages::TICK) } else { pause }
    }

    fn settings(&self) -> super::settings::ReloadSettings {
        self.shared.live.snapshot().content.plan.reload.clone()
    }

    /// Reloads if files differ from what was last read, once they are quiet. A command that comes meanwhile
    /// goes first.
    fn look(&mut self, inbox: &Receiver<Command>, next: &mut VecDeque<Command>) {
        let mut now = self.now();
        if now == self.seen {
            return;
        }
        let quiet = self.settings().quiet;
        loop {
            match inbox.recv_timeout(quiet) {
                Ok(Command::Look) => {}
                Ok(command) => return next.extend([command, Command::Look]),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    let later = self.now();
                    if std::mem::replace(&mut now, later) == now {
                        break;
                    }
                }
            }
        }
        if now != self.seen {
            self.reload(Trigger::Watch, false);
        }
    }

    /// Reads, builds and, unless this is a dry run, swaps.
    fn reload(&mut self, trigger: Trigger, dry_run: bool) -> Record {
        let mut record = Record::new(trigger);
        let started = Instant::now();
        let (path, files) = (&self.shared.path, &self.files);
        let planned = crate::config::at_low_priority(|| Plan::read(path, files));
        let mut phases = Phases { plan: started.elapsed(), ..Phases::default() };
        let seen = self.files.take_asked();
        if !dry_run {
            self.seen = seen;
            self.watcher.watch(&self.seen);
        }
        match planned {
            Err(unplanned) => {
                record.outcome = match &unplanned {
                    Unplanned::Faulty(_) => Outcome::Rejected,
                    Unplanned::Pending(_) => Outcome::Pending,
                };
                record.errors = unplanned.lines();
            }
            Ok(plan) => self.build(plan, dry_run, &mut phases, &mut record),
        }
        record.phases_ms.extend(phases.in_ms());
        record.phases_ms.insert("total", (started.elapsed().as_secs_f64() * 1e4).round() / 10.0);
        self.finish(record, dry_run)
    }

    fn build(&mut self, plan: Plan, dry_run: bool, phases: &mut Phases, record: &mut Record) {
        let serving = self.shared.live.0.load_full();
        let policy = &serving.stable;
        record.digest = Some(plan.digest.clone());
        record.changes = diff(&policy.content.plan.description, &plan.description);
        record.warnings = restart_needed(&self.server, &plan.server);
        if plan.digest == policy.content.plan.digest && plan.reload == policy.content.plan.reload {
            record.outcome = Outcome::Unchanged;
            if !dry_run && serving.candidate.is_some() {
                self.end_rollout();
            }
            return;
        }
        let candidate = serving.candidate.as_ref().map(|candidate| &candidate.policy);
        let on_its_way = candidate.map(|candidate| &candidate.content.plan);
        if on_its_way.is_some_and(|known| known.digest == plan.digest && known.reload == plan.reload) {
            record.outcome = Outcome::RollingOut;
            return;
        }
        // An operator's word counts more than an earlier refusal.
        let asked = matches!(record.trigger, Trigger::Admin(_));
        if let Some((_, why)) = self.refused.as_ref().filter(|(digest, _)| !asked && *digest == plan.digest) {
            record.outcome = Outcome::Refused;
            record.errors = vec![why.clone()];
            return;
        }
        let digest = plan.digest.clone();
        let previous = self.shared.history().previous.clone();
        let reuse: Vec<Arc<Content>> = [Some(policy), candidate, previous.as_ref()]
            .into_iter()
            .flatten()
            .map(|policy| Arc::clone(&policy.content))
            .collect();
        match self.loader.load(plan, &self.files, &reuse, phases) {
            Err(error) => {
                record.outcome = Outcome::Rejected;
                record.errors = vec![error.to_string()];
                if let Some(detail) = error.detail() {
                    tracing::debug!(detail, "why the new files were rejected");
                }
                // Files that changed under the reader are not bad, only early: they are tried again.
                if error.kind() != Kind::Unavailable && !dry_run {
                    self.refused = Some((digest, error.to_string()));
                }
            }
            Ok(_) if dry_run => record.outcome = Outcome::WouldApply,
            Ok(content) => {
                self.introduce(content, record);
                self.refused = None;
            }
        }
    }

    /// Keeps and publishes a record; a dry run leaves no trace but its answer.
    fn finish(&mut self, mut record: Record, dry_run: bool) -> Record {
        record.generation = self.shared.live.snapshot().generation;
        if dry_run {
            return record;
        }
        {
            let mut history = self.shared.history();
            history.stale = match record.outcome {
                Outcome::Applied => false,
                // What the files say is live already, or on its way: nothing is refused any more.
                Outcome::Unchanged | Outcome::RollingOut => false,
                _ => true,
            };
            // Told again when it is live, with how long it took to build.
            if let Some(rollout) = history.rollout.as_mut().filter(|new| new.record.phases_ms.is_empty()) {
                rollout.record = record.clone();
            }
            history.last = record.clone();
        }
        self.publish(record.clone());
        // What is watched is copied once it is proven.
        if record.outcome == Outcome::Applied && self.shared.history().rollout.is_none() {
            self.keep_copy();
        }
        record
    }

    /// Metrics and the one log line.
    fn publish(&self, record: Record) {
        let metrics = &self.loader.metrics;
        metrics.reloads.with_label_values(&[record.outcome.as_str()]).inc();
        metrics.policy_generation.set(self.shared.live.snapshot().generation as i64);
        metrics.policy_stale.set(i64::from(self.shared.history().stale));
        let Record { outcome, trigger, generation, digest, phases_ms, changes, errors, warnings, .. } =
            record;
        let (outcome, digest) = (outcome.as_str(), digest.unwrap_or_default());
        let phases =
            phases_ms.iter().map(|(phase, ms)| format!("{phase}={ms}")).collect::<Vec<_>>().join(" ");
        let (changes, errors) = (changes.join("; "), errors.join("; "));
        for warning in warnings {
            tracing::warn!(generation, "{warning}");
        }
        if errors.is_empty() {
            tracing::info!(generation, digest, outcome, ?trigger, phases_ms = phases, changes, "policy");
        } else {
            tracing::error!(
                generation,
                digest,
                outcome,
                ?trigger,
                phases_ms = phases,
                changes,
                errors,
                "policy"
            );
        }
    }

    fn keep_copy(&self) {
        let policy = self.shared.live.snapshot();
        let saved = self
            .last_good
            .as_ref()
            .filter(|_| !self.shared.history().stale)
            .map(|last_good| last_good.save(&policy.content.plan, &self.files));
        if let Some(Err(error)) = saved {
            tracing::warn!("{error}");
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
