//! The only writer of the live policy: watches, plans, loads, swaps, rolls back, and keeps the record.
//!
//! One thread does all of it, one thing at a time, at low priority. The new policy is built beside the old;
//! any failure leaves the old in place. What was refused stays refused until the files change. While a new
//! policy is on its way, the thread also judges it and takes it further or back (`stages`).

mod control;
mod first;
mod history;
mod stages;

pub use control::{Indexed, State};
pub use first::FirstPlan;

use super::describe::diff;
use super::files::{Files, Signature, Stat};
use super::last_good::LastGood;
use super::load::{Loader, Phases};
use super::overlay::{Overlay, Overrides};
use super::plan::{Plan, Unplanned};
use super::record::{Outcome, Record, Report, Trigger};
use super::rollout::Recent;
use super::watch::Watcher;
use super::{Content, Live, Policy, Route, manifest};
use crate::error::{Error, Kind, Result};
use history::{History, Shared};
use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::oneshot;

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
        let content = first::load(&path, &files, first, &loader, last_good.as_ref(), &mut record)?;
        let policy = Arc::new(Policy { generation: 1, since: SystemTime::now(), content });
        let stale = record.outcome == Outcome::Fallback;
        let history = History {
            last: record.clone(),
            previous: None,
            retired: Vec::new(),
            stale,
            rollout: None,
            loading: None,
        };
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
        Ok(Reloader { commands, shared, thread: Some(thread), permission })
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

    /// Lets the plugins of all policies finish what they do and end. For a host that stops.
    pub async fn finish(&self) {
        let mut contents = self.shared.live.contents();
        contents.extend(self.shared.history().previous.iter().map(|policy| Arc::clone(&policy.content)));
        for plugin in contents.iter().flat_map(|content| content.shared_plugins()) {
            plugin.finish().await;
        }
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
    /// What the files said when it was rolled back or failed to load, by its digest, and why.
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
            self.shared.drain_replaced();
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
                Some(Command::Load { model, overrides, reply }) => {
                    drop(reply.send(self.load_model(&model, overrides)));
                }
                Some(Command::Unload { model, reply }) => drop(reply.send(self.unload_model(&model))),
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

    /// Reads, builds and, unless this is a dry run, swaps. By an operator's word the manifest counts as it
    /// is, without what model control has changed.
    fn reload(&mut self, trigger: Trigger, dry_run: bool) -> Record {
        let overlay = match &trigger {
            Trigger::Admin(_) => Overlay::default(),
            _ => self.shared.live.snapshot().content.plan.overlay.clone(),
        };
        if matches!(trigger, Trigger::Admin(_)) && !dry_run {
            // An operator's word is worth another attempt, whatever the files say.
            let contents = self.shared.live.contents();
            contents.iter().flat_map(|content| content.shared_plugins()).for_each(|plugin| plugin.lift());
        }
        let started = Instant::now();
        let (planned, seen) = self.plan(&overlay);
        if !dry_run {
            self.remember(seen);
        }
        let record = self.attempt(planned, Record::new(trigger), started, dry_run);
        self.finish(record, dry_run)
    }

    /// What the files say now under an overlay, and the files that were asked for.
    fn plan(&self, overlay: &Overlay) -> (Result<Plan, Unplanned>, Signature) {
        let (path, files) = (&self.shared.path, &self.files);
        let planned = crate::config::at_low_priority(|| Plan::read_under(overlay, path, files));
        (planned, self.files.take_asked())
    }

    /// These files count as seen: only what differs from them is a change.
    fn remember(&mut self, seen: Signature) {
        self.seen = seen;
        self.watcher.watch(&self.seen);
    }

    /// Builds what was planned and, unless this is a dry run, brings it to its callers.
    fn attempt(
        &mut self,
        planned: Result<Plan, Unplanned>,
        mut record: Record,
        started: Instant,
        dry_run: bool,
    ) -> Record {
        let mut phases = Phases { plan: started.elapsed(), ..Phases::default() };
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
        record
    }

    fn build(&mut self, plan: Plan, dry_run: bool, phases: &mut Phases, record: &mut Record) {
        let serving = self.shared.live.0.load_full();
        let policy = &serving.stable;
        record.digest = Some(plan.digest.clone());
        record.changes = diff(&policy.content.plan.description, &plan.description);
        record.warnings = restart_needed(&self.server, &plan.server);
        let same = |known: &Plan| {
            (&known.digest, &known.reload, &known.overlay) == (&plan.digest, &plan.reload, &plan.overlay)
        };
        if same(&policy.content.plan) {
            record.outcome = Outcome::Unchanged;
            if !dry_run && serving.candidate.is_some() {
                self.end_rollout();
            }
            return;
        }
        let candidate = serving.candidate.as_ref().map(|candidate| &candidate.policy);
        let on_its_way = candidate.map(|candidate| &candidate.content.plan);
        if on_its_way.is_some_and(same) {
            record.outcome = Outcome::RollingOut;
            return;
        }
        // An operator's word counts more than an earlier refusal.
        let asked = matches!(record.trigger, Trigger::Admin(_));
        if let Some((_, why)) = self.refused.as_ref().filter(|(digest, _)| !asked && *digest == plan.written)
        {
            record.outcome = Outcome::Refused;
            record.errors = vec![why.clone()];
            return;
        }
        let (written, controlled) = (plan.written.clone(), record.trigger.is_control());
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
                // Files that changed under the reader are not bad, only early: they are tried again. What
                // was overridden is in no file.
                if error.kind() != Kind::Unavailable && !dry_run && !controlled {
                    self.refused = Some((written, error.to_string()));
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

    fn set_stale(&self, stale: bool) {
        self.shared.history().stale = stale;
        self.loader.metrics.policy_stale.set(i64::from(stale));
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
            // It lacks the files of what was unloaded, which a restart serves.
            .filter(|_| !self.shared.history().stale && policy.content.plan.overlay.unloaded.is_empty())
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
