//! The threads that build policies.
//!
//! An attempt reads the files (`Step::Planned`), and if there is something new loads it
//! (`Step::Loaded`). Both run on threads of their own, which report to the reload thread and decide
//! nothing. An attempt that is no longer wanted is stopped. Work that does not stop, such as a read
//! on a file system that stalls, is abandoned.

use super::build::Build;
use super::command::Command;
use super::step::Step;
use crate::error::{Error, Result};
use crate::policy::content::PolicyContent;
use crate::policy::files::Files;
use crate::policy::load::Loader;
use crate::policy::overlay::Overlay;
use crate::policy::plan::Plan;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;

/// Starts the threads of attempts, and counts those that are alive, including those of abandoned
/// attempts.
pub(super) struct Builders {
    commands: Sender<Command>,
    alive: Arc<()>,
}

/// The most abandoned attempts that have not ended. With more of them, no attempt begins.
const ABANDONED_MAX: usize = 4;

impl Builders {
    pub fn new(commands: Sender<Command>) -> Self {
        Builders { commands, alive: Arc::new(()) }
    }

    pub fn alive(&self) -> usize {
        Arc::strong_count(&self.alive) - 1
    }

    /// Starts to read the files.
    pub fn plan(&self, id: u64, path: PathBuf, files: Arc<Files>, overlay: Overlay) -> Result<()> {
        if self.alive() >= ABANDONED_MAX {
            let why =
                format!("{ABANDONED_MAX} abandoned attempts are still running: a file system may be stalled");
            return Err(Error::unavailable(why).transient());
        }
        self.spawn("load", id, move || {
            crate::config::lower_priority(crate::config::LOADER_NICE);
            let planned = Plan::read_under(&overlay, &path, &files);
            Step::Planned { planned, seen: files.take_asked() }
        })
    }

    /// Starts to load a plan. Parts that `reuse` has are not loaded again.
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

/// Returns the message of a panic.
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
