//! The reload thread: the only writer of the live policy.
//!
//! It makes all decisions and never waits. Other threads check, read and load files and keep
//! copies, and report here. A rollback is therefore answered immediately, and the guard continues
//! to judge, whatever is being built.

use super::background::Background;
use super::build::Build;
use super::builders::{Builders, panic_message};
use super::command::Command;
use super::history::Shared;
use super::refused::Refused;
use super::request::Request;
use super::retry::Retry;
use super::watching::Watching;
use crate::policy::files::Files;
use crate::policy::load::Loader;
use crate::policy::manifest;
use crate::policy::plan::StorePlan;
use crate::policy::recent::Recent;
use crate::policy::settings::ReloadSettings;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How long the end of the process waits for threads that it has stopped.
const STOP: Duration = Duration::from_secs(1);

/// How often the thread wakes up without a command.
const PAUSE: Duration = Duration::from_secs(1);

/// How often a rollout is judged.
const TICK: Duration = Duration::from_millis(50);

pub(super) struct ReloadThread {
    pub shared: Arc<Shared>,
    /// Known digests. Each attempt reads files for itself.
    pub files: Files,
    pub loader: Arc<Loader>,
    pub background: Background,
    pub watching: Watching,
    pub builders: Builders,
    /// `[server]` as it was when the process started.
    pub server: manifest::Server,
    /// Where jobs are kept, decided when the process started.
    pub job_store: StorePlan,
    pub refused: Refused,
    /// The highest generation so far.
    pub newest: u64,
    pub recent: Recent,
    pub build: Option<Build>,
    pub waiting: VecDeque<Request>,
    pub last_build: u64,
    pub superseded: u32,
    pub retry: Retry,
}

impl ReloadThread {
    pub fn run(mut self, inbox: &Receiver<Command>) {
        self.keep_copy();
        loop {
            let received = inbox.recv_timeout(self.pause());
            if matches!(received, Ok(Command::Stop) | Err(RecvTimeoutError::Disconnected)) {
                return self.stop(inbox);
            }
            // A panic must not end reloading. It is logged and counted, and the policy stays as it
            // is.
            let step = AssertUnwindSafe(|| self.step(received.ok()));
            if let Err(panic) = catch_unwind(step) {
                self.loader.metrics.reload.panics.inc();
                tracing::error!(panic = panic_message(&*panic), "reload thread panicked; it continues");
            }
        }
    }

    fn step(&mut self, command: Option<Command>) {
        if let Some(command) = command {
            self.handle(command);
        }
        self.tick();
        self.give_up_stalled();
        if self.retry.is_due() && self.build.is_none() && self.waiting.is_empty() {
            self.loader.metrics.reload.retries.inc();
            self.retry.begin();
            self.request(Request::watch(Vec::new()));
        }
        while self.build.is_none()
            && let Some(request) = self.waiting.pop_front()
        {
            self.start(request, None);
        }
        self.shared.drain_replaced();
        self.show_build();
    }

    fn handle(&mut self, command: Command) {
        match command {
            Command::Changed { unquiet } => self.changed(unquiet),
            Command::Built { id, step } => self.built(id, *step),
            Command::Reload { dry_run, operator, reply } => {
                self.request(Request::admin(operator, dry_run, reply));
            }
            Command::Rollback { generation, operator, reply } => {
                drop(reply.send(self.roll_back_to(generation, operator)));
            }
            Command::Promote { generation, operator, reply } => {
                drop(reply.send(self.promote(generation, Some(operator))));
            }
            Command::Load { model, overrides, reply } => match self.no_candidate() {
                Ok(()) => self.request(Request::model(model, overrides, reply)),
                Err(error) => drop(reply.send(Err(error))),
            },
            Command::Unload { model, reply } => drop(reply.send(self.unload_model(&model))),
            Command::Stop => {}
        }
    }

    /// Returns how long to wait for a command before other work is due.
    fn pause(&self) -> Duration {
        let mut pause = PAUSE;
        if self.shared.history().rollout.is_some() {
            pause = pause.min(TICK);
        }
        self.retry.due_in().map_or(pause, |due| pause.min(due.max(Duration::from_millis(1))))
    }

    pub fn settings(&self) -> ReloadSettings {
        self.shared.live.snapshot().content.plan.reload.clone()
    }

    fn stop(mut self, inbox: &Receiver<Command>) {
        if let Some(build) = self.build.take() {
            build.stop();
            let until = Instant::now() + STOP;
            while self.builders.alive() > 0 && Instant::now() < until {
                let remaining = until.saturating_duration_since(Instant::now());
                // Callers that still wait get an error, because their channels are dropped.
                drop(inbox.recv_timeout(remaining.min(Duration::from_millis(50))));
            }
        }
        self.background.flush(STOP);
    }
}
