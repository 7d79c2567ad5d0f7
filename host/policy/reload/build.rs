//! One attempt to build a policy: what it is for, how far it is, and the threads that it runs on.
//!
//! An attempt reads the files (`Step::Planned`), and if there is something new loads it (`Step::Loaded`). Both
//! run on threads of their own, which report to the reload thread and decide nothing. An attempt that nobody
//! wants any more is stopped; what does not stop, such as a read on a file system that stalls, is left behind.

use super::Command;
use crate::error::{Error, Result};
use crate::policy::PolicyContent;
use crate::policy::files::{Files, Signature};
use crate::policy::load::{Loader, Phases};
use crate::policy::overlay::{Overlay, Overrides};
use crate::policy::plan::{Plan, Unplanned};
use crate::policy::record::{Record, Trigger};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Instant;
use tokio::sync::oneshot;

/// What an attempt is for, and who waits for it.
pub(super) struct Request {
    pub trigger: Trigger,
    pub goal: Goal,
    /// Files that were not quiet when they were read.
    pub unquiet: Vec<PathBuf>,
}

pub(super) enum Goal {
    /// What the files say. A dry run does not go live.
    Files { dry_run: bool, replies: Vec<oneshot::Sender<Result<Record>>> },
    /// The same under another overlay: a model that a client loads.
    Model { name: String, overrides: Overrides, reply: Option<oneshot::Sender<Result<()>>> },
}

impl Request {
    pub fn watch(unquiet: Vec<PathBuf>) -> Self {
        let goal = Goal::Files { dry_run: false, replies: Vec::new() };
        Request { trigger: Trigger::Watch, goal, unquiet }
    }

    pub fn admin(who: String, dry_run: bool, reply: oneshot::Sender<Result<Record>>) -> Self {
        let goal = Goal::Files { dry_run, replies: vec![reply] };
        Request { trigger: Trigger::Admin(who), goal, unquiet: Vec::new() }
    }

    pub fn model(name: String, overrides: Overrides, reply: oneshot::Sender<Result<()>>) -> Self {
        let trigger = Trigger::ModelControl(format!("load {name}"));
        Request { trigger, goal: Goal::Model { name, overrides, reply: Some(reply) }, unquiet: Vec::new() }
    }

    pub fn is_dry_run(&self) -> bool {
        matches!(self.goal, Goal::Files { dry_run: true, .. })
    }

    /// An operator's word counts more than an earlier refusal, and than what model control has changed.
    pub fn is_by_operator(&self) -> bool {
        matches!(self.trigger, Trigger::Admin(_))
    }

    /// Answers those who wait with an error, without an attempt.
    pub fn refuse(self, error: &Error) {
        match self.goal {
            Goal::Files { replies, .. } => {
                replies.into_iter().for_each(|reply| drop(reply.send(Err(error.clone()))));
            }
            Goal::Model { reply, .. } => {
                reply.into_iter().for_each(|reply| drop(reply.send(Err(error.clone()))));
            }
        }
    }

    /// Takes up those who wait for the other one where both ask for the same; else gives it back.
    pub fn merges(&mut self, other: Request) -> Option<Request> {
        match (&mut self.goal, other) {
            (
                Goal::Files { dry_run: false, replies },
                Request { goal: Goal::Files { dry_run: false, replies: more }, trigger, unquiet },
            ) if matches!(self.trigger, Trigger::Admin(_)) == matches!(trigger, Trigger::Admin(_)) => {
                replies.extend(more);
                self.unquiet.extend(unquiet);
                None
            }
            (_, other) => Some(other),
        }
    }

    /// What the policy is to be made under, beside one that has this overlay.
    pub fn overlay(&self, live: &Overlay) -> Overlay {
        match &self.goal {
            Goal::Files { .. } if self.is_by_operator() => Overlay::default(),
            Goal::Files { .. } => live.clone(),
            Goal::Model { name, overrides, .. } => {
                let mut overlay = live.clone();
                overlay.load(name, overrides.clone());
                overlay
            }
        }
    }
}

/// An attempt under way.
pub(super) struct Build {
    /// Tells its steps from those of attempts that were given up.
    pub id: u64,
    pub request: Request,
    /// Its reads stop when their `progress` is stopped; so does all that it does.
    pub files: Arc<Files>,
    pub record: Record,
    pub started: Instant,
    pub phases: Phases,
    /// The overlay of the live policy when this began.
    pub base: Overlay,
    pub seen: Signature,
    /// The digest of what the files say, once they are read and while that is loaded.
    pub written: Option<String>,
    /// Models that were unloaded since.
    pub unloaded: Vec<String>,
    /// Why this must not go live: a rollback came after it.
    pub overruled: Option<String>,
    /// What an earlier try of the same attempt has built.
    pub built: Option<Arc<PolicyContent>>,
}

impl Build {
    /// Nothing that it still does is wanted.
    pub fn stop(&self) {
        self.files.progress.stop.cancel();
    }
}

/// What a thread of an attempt reports.
#[allow(clippy::large_enum_variant, reason = "it is sent in a box")]
pub(super) enum Step {
    Planned { planned: Result<Plan, Unplanned>, seen: Signature },
    Loaded { loaded: Result<Arc<PolicyContent>>, phases: Phases },
    Panicked(String),
}

/// Threads of attempts, those that were given up included.
pub(super) struct Builders {
    commands: Sender<Command>,
    alive: Arc<()>,
}

/// Attempts that were given up and have not ended: more of them are not left behind.
const LEFT_BEHIND_MAX: usize = 4;

impl Builders {
    pub fn new(commands: Sender<Command>) -> Self {
        Builders { commands, alive: Arc::new(()) }
    }

    pub fn alive(&self) -> usize {
        Arc::strong_count(&self.alive) - 1
    }

    /// Reads the files.
    pub fn plan(&self, id: u64, path: PathBuf, files: Arc<Files>, overlay: Overlay) -> Result<()> {
        if self.alive() >= LEFT_BEHIND_MAX {
            let why = format!(
                "{LEFT_BEHIND_MAX} earlier attempts were given up and have not ended: a file system may stall"
            );
            return Err(Error::unavailable(why).transient());
        }
        self.spawn("load", id, move || {
            crate::config::lower_priority(crate::config::LOADER_NICE);
            let planned = Plan::read_under(&overlay, &path, &files);
            Step::Planned { planned, seen: files.take_asked() }
        })
    }

    /// Loads what was read, but for what `reuse` has.
    pub fn load(
        &self,
        build: &Build,
        loader: Arc<Loader>,
        plan: Plan,
        reuse: Vec<Arc<PolicyContent>>,
    ) -> Result<()> {
        let (files, mut phases) = (Arc::clone(&build.files), build.phases);
        self.spawn("build", build.id, move || {
            let loaded = loader.load(plan, &files, &reuse, &mut phases);
            Step::Loaded { loaded, phases }
        })
    }

    fn spawn(&self, name: &str, id: u64, work: impl FnOnce() -> Step + Send + 'static) -> Result<()> {
        let (commands, alive) = (self.commands.clone(), Arc::clone(&self.alive));
        let run = move || {
            let step = catch_unwind(AssertUnwindSafe(work));
            let step = step.unwrap_or_else(|panic| Step::Panicked(panic_message(&*panic)));
            drop(alive);
            let _ = commands.send(Command::Built { id, step: Box::new(step) });
        };
        let spawned = std::thread::Builder::new().name(name.into()).spawn(run);
        spawned
            .map(drop)
            .map_err(|error| Error::io(&error).context("cannot start a thread to build a policy"))
    }
}

/// What a panic says of itself.
pub(super) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("without a message").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_an_attempt_is_reported_and_its_thread_is_gone() {
        let (commands, inbox) = std::sync::mpsc::channel();
        let builders = Builders::new(commands);
        builders.spawn("build", 7, || panic!("no {}", "good")).unwrap();
        let Ok(Command::Built { id: 7, step }) = inbox.recv() else { panic!("another report") };
        assert!(matches!(*step, Step::Panicked(message) if message == "no good"));
        assert_eq!(builders.alive(), 0);
    }
}
