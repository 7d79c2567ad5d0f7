//! The reload thread: the only writer of the live policy.
//!
//! It decides and never waits: files are looked at, read and loaded, and copies are kept, by other threads, which
//! report here. So a rollback is answered at once and the guard goes on judging, whatever is being built.

use super::background::Background;
use super::build::{Build, Builders, Goal, Request, Step, panic_message};
use super::history::Shared;
use super::retry::Retry;
use super::watching::Watching;
use super::{Command, stages};
use crate::error::{Error, Kind};
use crate::policy::PolicyContent;
use crate::policy::files::Files;
use crate::policy::load::Loader;
use crate::policy::manifest;
use crate::policy::record::{Record, ReloadOutcome};
use crate::policy::rollout::Recent;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Attempts that wait for the one under way.
const WAITING_MAX: usize = 64;

/// So many attempts in a row are given up because their files changed; the next one runs to its end.
const SUPERSEDED_MAX: u32 = 3;

/// A read that gives nothing for this long is given up.
const STALL: Duration = Duration::from_secs(30);

/// How long the end of the process waits for what it has stopped.
const STOP: Duration = Duration::from_secs(1);

/// How often the thread looks around without a reason.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) struct ReloadThread {
    pub shared: Arc<Shared>,
    /// The digests that are known; each attempt reads files for itself.
    pub files: Files,
    pub loader: Arc<Loader>,
    pub background: Background,
    pub watching: Watching,
    pub builders: Builders,
    /// `[server]` as the process started with it.
    pub server: manifest::Server,
    pub refused: Refused,
    /// The highest generation given out.
    pub newest: u64,
    pub recent: Recent,
    pub build: Option<Build>,
    pub waiting: VecDeque<Request>,
    pub last_build: u64,
    pub superseded: u32,
    pub retry: Retry,
}

/// What the files said when it was rolled back or failed to load, by its digest, and why: the latest few.
#[derive(Default)]
pub(super) struct Refused(VecDeque<(String, String)>);

impl Refused {
    const KEPT_MAX: usize = 8;

    pub fn insert(&mut self, written: String, why: String) {
        self.0.retain(|(known, _)| *known != written);
        self.0.truncate(Self::KEPT_MAX - 1);
        self.0.push_front((written, why));
    }

    pub fn why(&self, written: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == written).map(|(_, why)| why.as_str())
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }
}

impl ReloadThread {
    pub fn run(mut self, inbox: &Receiver<Command>) {
        self.keep_copy();
        loop {
            let received = inbox.recv_timeout(self.pause());
            if matches!(received, Ok(Command::Stop) | Err(RecvTimeoutError::Disconnected)) {
                return self.stop(inbox);
            }
            // A panic must not end reloading: it is said, counted, and the policy stays as it is.
            let step = AssertUnwindSafe(|| self.step(received.ok()));
            if let Err(panic) = catch_unwind(step) {
                self.loader.metrics.reload.panics.inc();
                tracing::error!(panic = panic_message(&*panic), "the reload thread panicked; it goes on");
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
            Command::Reload { dry_run, who, reply } => self.request(Request::admin(who, dry_run, reply)),
            Command::Rollback { generation, who, reply } => {
                drop(reply.send(self.roll_back_to(generation, who)));
            }
            Command::Promote { who, reply } => drop(reply.send(self.promote(Some(who)))),
            Command::Load { model, overrides, reply } => match self.no_candidate() {
                Ok(()) => self.request(Request::model(model, overrides, reply)),
                Err(error) => drop(reply.send(Err(error))),
            },
            Command::Unload { model, reply } => drop(reply.send(self.unload_model(&model))),
            Command::Stop => {}
        }
    }

    /// Until something is to be done without a command.
    fn pause(&self) -> Duration {
        let mut pause = PAUSE;
        if self.shared.history().rollout.is_some() {
            pause = pause.min(stages::TICK);
        }
        self.retry.due_in().map_or(pause, |due| pause.min(due.max(Duration::from_millis(1))))
    }

    pub fn settings(&self) -> crate::policy::settings::ReloadSettings {
        self.shared.live.snapshot().content.plan.reload.clone()
    }

    fn stop(mut self, inbox: &Receiver<Command>) {
        if let Some(build) = self.build.take() {
            build.stop();
            let until = Instant::now() + STOP;
            while self.builders.alive() > 0 && Instant::now() < until {
                let left = until.saturating_duration_since(Instant::now());
                // Callers that still wait get an error: their channels are dropped.
                drop(inbox.recv_timeout(left.min(Duration::from_millis(50))));
            }
        }
        self.background.flush(STOP);
    }

    /// Files have changed. An attempt that has read them is not what they say any more: it begins anew.
    fn changed(&mut self, unquiet: Vec<std::path::PathBuf>) {
        if !self.settings().watch {
            return;
        }
        let obsolete = self.build.take_if(|build| build.overruled.is_none());
        match obsolete {
            Some(build) if self.superseded < SUPERSEDED_MAX => {
                self.superseded += 1;
                let mut request = self.abandon(build);
                request.unquiet.extend(unquiet);
                self.start(request, None);
            }
            obsolete => {
                self.build = self.build.take().or(obsolete);
                self.request(Request::watch(unquiet));
            }
        }
    }

    /// Has a request wait for its turn, together with one that asks for the same.
    pub fn request(&mut self, request: Request) {
        let mut request = Some(request);
        for waiting in &mut self.waiting {
            request = request.and_then(|request| waiting.merges(request));
        }
        let Some(request) = request else { return };
        if self.waiting.len() < WAITING_MAX {
            return self.waiting.push_back(request);
        }
        let why = format!("{WAITING_MAX} reloads wait already");
        request.refuse(&Error::overloaded(why));
    }

    /// Begins an attempt. `built` is what an earlier try of it has built.
    pub fn start(&mut self, request: Request, built: Option<Arc<PolicyContent>>) {
        self.last_build += 1;
        let base = self.shared.live.snapshot().content.plan.overlay.clone();
        let build = Build {
            id: self.last_build,
            files: Arc::new(self.files.attempt()),
            record: Record::new(request.trigger.clone()),
            started: Instant::now(),
            phases: Default::default(),
            seen: Default::default(),
            written: None,
            unloaded: Vec::new(),
            overruled: None,
            built,
            base,
            request,
        };
        if build.request.is_by_operator() && !build.request.is_dry_run() {
            // An operator's word is worth another attempt, whatever the files say.
            let contents = self.shared.live.contents();
            contents
                .iter()
                .flat_map(|content| content.shared_plugins())
                .for_each(|plugin| plugin.lift_quarantine());
        }
        let may_begin = match &build.request.goal {
            Goal::Files { .. } => Ok(()),
            Goal::Model { name, .. } => {
                self.shared.history().loading = Some(name.clone());
                self.no_candidate()
            }
        };
        let overlay = build.request.overlay(&build.base);
        let (path, files) = (self.shared.path.clone(), Arc::clone(&build.files));
        match may_begin.and_then(|()| self.builders.plan(build.id, path, files, overlay)) {
            Ok(()) => self.build = Some(build),
            Err(error) => self.reject(build, &error),
        }
    }

    fn built(&mut self, id: u64, step: Step) {
        let Some(build) = self.build.take_if(|build| build.id == id) else {
            // Of an attempt that was given up.
            return self.background.free(step);
        };
        match step {
            Step::Planned { planned, seen } => self.planned(build, planned, seen),
            Step::Loaded { loaded, phases } => self.loaded(build, loaded, phases),
            Step::Panicked(message) => {
                self.loader.metrics.reload.panics.inc();
                let why = format!("the host panicked while it built this policy: {message}");
                self.reject(build, &Error::failed(why).transient());
            }
        }
    }

    /// Stops an attempt, and gives what it was for.
    pub fn abandon(&mut self, build: Build) -> Request {
        build.stop();
        let Build { request, built, .. } = build;
        self.background.free(built);
        request
    }

    fn give_up_stalled(&mut self) {
        let stalled = self.build.as_ref().and_then(|build| build.files.progress.stalled(STALL));
        let Some(path) = stalled else { return };
        if let Some(build) = self.build.take() {
            build.stop();
            let why = format!("reading {} has given nothing for {} s", path.display(), STALL.as_secs());
            self.reject(build, &Error::unavailable(why).transient());
        }
    }

    /// Ends an attempt that failed.
    pub fn reject(&mut self, mut build: Build, error: &Error) {
        build.record.outcome = ReloadOutcome::Rejected;
        build.record.errors = vec![error.to_string()];
        if let Some(detail) = error.detail() {
            tracing::debug!(detail, "why the new files were rejected");
        }
        // What may pass is tried again, and is no verdict on the files. What was overridden is in no file.
        let passes = error.is_transient() || matches!(error.kind(), Kind::Unavailable | Kind::Overloaded);
        if let Some(written) = build.written.take()
            && !passes
            && matches!(build.request.goal, Goal::Files { dry_run: false, .. })
        {
            self.refused.insert(written, error.to_string());
        }
        self.end(build, passes);
    }

    /// Ends an attempt whose record has its outcome: keeps the record, answers, and plans another try where
    /// what went wrong may pass.
    pub fn end(&mut self, mut build: Build, passes: bool) {
        self.superseded = 0;
        let ms = |duration: Duration| (duration.as_secs_f64() * 1e4).round() / 10.0;
        build.record.phases_ms.extend(build.phases.in_ms());
        build.record.phases_ms.insert("total", ms(build.started.elapsed()));
        let Build { request, mut record, seen, built, .. } = build;
        self.background.free(built);
        if !request.unquiet.is_empty() {
            let files: Vec<_> = request.unquiet.iter().map(|path| path.display().to_string()).collect();
            record.warnings.push(format!(
                "read while it kept changing: {}; write such a file beside its place and rename it",
                files.join(", ")
            ));
        }
        match request.goal {
            Goal::Files { dry_run, replies } => {
                if !dry_run {
                    let watch = self.settings().watch;
                    self.retry.ended(passes && watch);
                    record.failures = self.retry.failures();
                    record.retry_in_ms = self.retry.due_in().map(|due| due.as_millis() as u64);
                }
                let record = self.finish(record, dry_run);
                for reply in replies {
                    let _ = reply.send(Ok(record.clone()));
                }
            }
            Goal::Model { overrides, reply, .. } => {
                self.shared.history().loading = None;
                let outcome = self.model_loaded(record, seen, &overrides);
                if let Some(reply) = reply {
                    let _ = reply.send(outcome);
                }
            }
        }
        self.watching.settings(&self.settings());
    }

    /// A rollback came: what is being built, and what waits to be, must not go live behind it.
    pub fn overrule(&mut self, why: &str) {
        let goes_live = |request: &Request| !request.is_dry_run();
        let overruled: VecDeque<Request>;
        (overruled, self.waiting) = self.waiting.drain(..).partition(goes_live);
        let refused = Error::unavailable(why);
        overruled.into_iter().for_each(|request| request.refuse(&refused));
        self.retry.forget();
        match self.build.take() {
            None => {}
            Some(build) if build.request.is_dry_run() => self.build = Some(build),
            // It is known by its digest, once it is read.
            Some(mut build) if build.written.is_none() => {
                build.overruled = Some(why.to_owned());
                self.build = Some(build);
            }
            Some(build) => {
                build.stop();
                self.refuse(build, why.to_owned());
            }
        }
    }
}
