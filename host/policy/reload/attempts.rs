//! The attempts of the reload thread to build policies: how they wait, begin, fail and end.

use super::build::Build;
use super::refused::Verdict;
use super::request::{Goal, Request};
use super::step::Step;
use super::thread::ReloadThread;
use crate::error::Error;
use crate::policy::content::PolicyContent;
use crate::policy::load::LoadFaults;
use crate::policy::record::{Record, ReloadOutcome};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The most requests that wait for the attempt in progress.
const WAITING_MAX: usize = 64;

/// The most attempts in a row that are abandoned because their files changed. The next one runs to
/// its end.
const SUPERSEDED_MAX: u32 = 3;

/// A read that returns nothing for this long is abandoned.
const STALL: Duration = Duration::from_secs(30);
impl ReloadThread {
    /// Reacts to changed files. An attempt that has read them is outdated, and starts again.
    pub(super) fn changed(&mut self, unquiet: Vec<PathBuf>) {
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

    /// Queues a request, merged with one that asks for the same.
    pub fn request(&mut self, request: Request) {
        let mut request = Some(request);
        for waiting in &mut self.waiting {
            request = request.and_then(|request| waiting.merge(request));
        }
        let Some(request) = request else { return };
        if self.waiting.len() < WAITING_MAX {
            return self.waiting.push_back(request);
        }
        let why = format!("at capacity: {WAITING_MAX} reloads are waiting; try again later");
        request.refuse(&Error::overloaded(why));
    }

    /// Begins an attempt. `built` is what an earlier try of the request built.
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
            // An operator's reload gives quarantined replicas another attempt, whatever the files
            // say.
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

    pub(super) fn built(&mut self, id: u64, step: Step) {
        let Some(build) = self.build.take_if(|build| build.id == id) else {
            // It belongs to an abandoned attempt.
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

    /// Stops an attempt, and returns its request.
    pub fn abandon(&mut self, build: Build) -> Request {
        build.stop();
        let Build { request, built, .. } = build;
        self.background.free(built);
        request
    }

    /// Abandons an attempt whose read stalls.
    pub(super) fn give_up_stalled(&mut self) {
        let stalled = self.build.as_ref().and_then(|build| build.files.progress.stalled(STALL));
        let Some(path) = stalled else { return };
        if let Some(build) = self.build.take() {
            build.stop();
            let why = format!("reading {} returned no data for {} s", path.display(), STALL.as_secs());
            self.reject(build, &Error::unavailable(why).transient());
        }
    }

    /// Ends an attempt that failed.
    pub fn reject(&mut self, build: Build, error: &Error) {
        self.reject_all(build, &error.clone().into());
    }

    /// Ends an attempt whose policy did not load.
    pub fn reject_all(&mut self, mut build: Build, faults: &LoadFaults) {
        build.record.outcome = ReloadOutcome::Rejected;
        build.record.errors = faults.lines();
        for detail in faults.details() {
            tracing::debug!(detail, "new files rejected");
        }
        // A failure that may pass is tried again and is no verdict on the files. Neither is one
        // under overrides, which are in no file.
        let passes = faults.may_pass();
        if let Some(written) = build.written.take()
            && !passes
            && matches!(build.request.goal, Goal::Files { dry_run: false, .. })
        {
            self.refused.insert(written, Verdict::NotLoaded, faults.lines());
        }
        self.end(build, passes);
    }

    /// Ends an attempt whose record has its outcome: keeps the record, answers the callers, and
    /// schedules another try if the failure may pass.
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
                "files were read while still changing: {}; write a new file in the same folder and rename it",
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
                    self.files_were_read(&record);
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

    /// Keeps everything that is being built, or waits to be, from going live after a rollback.
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
            // Its files are refused by their digest, which is known once they are read.
            Some(mut build) if build.written.is_none() => {
                build.overruled = Some(why.to_owned());
                self.build = Some(build);
            }
            Some(build) => {
                build.stop();
                self.refuse_overruled(build, why.to_owned());
            }
        }
    }
}
