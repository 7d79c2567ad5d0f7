//! What becomes of an attempt: whether what was read is new, and whether what was built goes live.

use super::build::{Build, Goal};
use super::restart_needed;
use super::thread::ReloadThread;
use crate::error::{Error, Result, did_you_mean};
use crate::policy::describe::diff;
use crate::policy::files::Signature;
use crate::policy::load::Phases;
use crate::policy::plan::{Plan, Unplanned};
use crate::policy::record::ReloadOutcome;
use crate::policy::{PolicyContent, bounded};
use std::sync::Arc;

impl ReloadThread {
    /// The files are read: loads what they say where that is new.
    pub(super) fn planned(&mut self, mut build: Build, planned: Result<Plan, Unplanned>, seen: Signature) {
        build.phases.plan = build.started.elapsed();
        if matches!(build.request.goal, Goal::Files { dry_run: false, .. }) {
            self.watching.seen(seen.clone());
        }
        build.seen = seen;
        let plan = match planned {
            Ok(plan) => plan,
            Err(unplanned) => {
                build.record.outcome = match &unplanned {
                    Unplanned::Faulty(_) => ReloadOutcome::Rejected,
                    Unplanned::Pending(_) => ReloadOutcome::Pending,
                };
                build.record.errors = unplanned.lines();
                let passes = unplanned.is_transient() && build.overruled.is_none();
                return self.end(build, passes);
            }
        };
        if let Goal::Model { name, reply, .. } = &mut build.request.goal
            && !plan.models.keys().any(|known| *known.name == **name)
        {
            let model = bounded(name);
            let hint = did_you_mean(&model, plan.models.keys().map(|name| &*name.name));
            let unknown = Error::not_found(format!("the manifest has no model \"{model}\"{hint}"));
            self.shared.history().loading = None;
            if let Some(reply) = reply.take() {
                let _ = reply.send(Err(unknown));
            }
            return;
        }
        build.record.digest = Some(plan.digest.clone());
        build.written = Some(plan.written.clone());
        if let Some(why) = build.overruled.take() {
            return self.refuse(build, why);
        }
        let serving = self.shared.live.0.load_full();
        let policy = &serving.stable;
        build.record.changes = diff(&policy.content.plan.description, &plan.description);
        build.record.warnings = restart_needed(&self.server, &plan.server);
        let same = |known: &Plan| {
            (&known.digest, &known.reload, &known.overlay) == (&plan.digest, &plan.reload, &plan.overlay)
        };
        if same(&policy.content.plan) {
            build.record.outcome = ReloadOutcome::Unchanged;
            if !build.request.is_dry_run() && serving.candidate.is_some() {
                self.end_rollout();
            }
            return self.end(build, false);
        }
        let candidate = serving.candidate.as_ref().map(|candidate| &candidate.policy);
        if candidate.map(|candidate| &candidate.content.plan).is_some_and(same) {
            build.record.outcome = ReloadOutcome::RollingOut;
            return self.end(build, false);
        }
        if let Some(why) = self.refusal(&build) {
            return self.refuse(build, why);
        }
        let previous = self.shared.history().previous.clone();
        let reuse = [Some(policy), candidate, previous.as_ref()].into_iter().flatten();
        let reuse = reuse.map(|policy| Arc::clone(&policy.content)).chain(build.built.clone()).collect();
        match self.builders.load(&build, Arc::clone(&self.loader), plan, reuse) {
            Ok(()) => self.build = Some(build),
            Err(error) => self.reject(build, &error),
        }
    }

    /// It is loaded: brings it to its callers, unless what happened meanwhile speaks against that.
    pub(super) fn loaded(&mut self, mut build: Build, loaded: Result<Arc<PolicyContent>>, phases: Phases) {
        build.phases = phases;
        let mut content = match loaded {
            Ok(content) => content,
            Err(error) => return self.reject(build, &error),
        };
        if build.request.is_dry_run() {
            build.record.outcome = ReloadOutcome::WouldApply;
            self.background.free(content);
            return self.end(build, false);
        }
        if let Some(why) = self.refusal(&build) {
            self.background.free(content);
            return self.refuse(build, why);
        }
        let overlay = self.shared.live.snapshot().content.plan.overlay.clone();
        if build.request.is_by_operator() {
            for model in &build.unloaded {
                content = Arc::new(content.without(model));
            }
        } else if overlay != build.base {
            // It was made under an overlay that is no longer the one: again, with what is built.
            let request = self.abandon(build);
            return self.start(request, Some(content));
        }
        self.introduce(content, &mut build.record);
        self.refused.clear();
        self.end(build, false);
    }

    /// Why these files are not to go live, if they are not: an earlier verdict that no operator has overruled.
    fn refusal(&self, build: &Build) -> Option<String> {
        let by_operator = build.request.is_by_operator();
        let written = build.written.as_ref().filter(|_| !by_operator)?;
        self.refused.why(written).map(str::to_owned)
    }

    /// Ends an attempt that must not go live, and remembers its files.
    pub(super) fn refuse(&mut self, mut build: Build, why: String) {
        if let Some(written) = build.written.take()
            && matches!(build.request.goal, Goal::Files { .. })
        {
            self.refused.insert(written, why.clone());
        }
        build.record.outcome = ReloadOutcome::Refused;
        build.record.errors = vec![why];
        self.end(build, false);
    }
}
