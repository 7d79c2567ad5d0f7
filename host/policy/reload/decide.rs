//! Decides about an attempt: whether its files are new, and whether its policy goes live.

use super::build::Build;
use super::refused::{Verdict, Written};
use super::request::Goal;
use super::thread::ReloadThread;
use crate::error::{Error, did_you_mean};
use crate::policy::content::PolicyContent;
use crate::policy::description::diff;
use crate::policy::files::Signature;
use crate::policy::load::{LoadFaults, Phases};
use crate::policy::model_name::bounded;
use crate::policy::plan::{Plan, Unplanned};
use crate::policy::record::ReloadOutcome;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

impl ReloadThread {
    /// Continues an attempt whose files were read. Loads what they say if it is new.
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
        build.written = Some(Written::of(&plan));
        if let Some(why) = build.overruled.take() {
            return self.refuse_overruled(build, why);
        }
        let serving = self.shared.live.0.load_full();
        let policy = &serving.stable;
        build.record.changes = diff(&policy.content.plan.description, &plan.description);
        build.record.warnings = self.restart_needed(&plan);
        if policy.content.plan.is_unchanged(&plan) {
            build.record.outcome = ReloadOutcome::Unchanged;
            if !build.request.is_dry_run() && serving.candidate.is_some() {
                self.end_rollout();
            }
            return self.end(build, false);
        }
        let candidate = serving.candidate.as_ref().map(|candidate| &candidate.policy);
        if candidate.is_some_and(|candidate| candidate.content.plan.is_unchanged(&plan)) {
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

    /// Continues an attempt whose policy was loaded. Introduces it, unless something happened
    /// meanwhile that forbids it.
    pub(super) fn loaded(
        &mut self,
        mut build: Build,
        loaded: Result<Arc<PolicyContent>, LoadFaults>,
        phases: Phases,
    ) {
        build.phases = phases;
        let mut content = match loaded {
            Ok(content) => content,
            Err(faults) => return self.reject_all(build, &faults),
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
            // The overlay has changed since the attempt began: start again, and reuse what was
            // built.
            let request = self.abandon(build);
            return self.start(request, Some(content));
        }
        self.introduce(content, &mut build.record);
        self.refused.clear();
        self.end(build, false);
    }

    /// Returns why these files must not go live, if they were refused earlier and no operator has
    /// overruled that.
    fn refusal(&mut self, build: &Build) -> Option<Vec<String>> {
        let by_operator = build.request.is_by_operator();
        let written = build.written.as_ref().filter(|_| !by_operator)?;
        self.refused.why(written)
    }

    /// Ends an attempt that an operator has overruled, and refuses its files from now on.
    pub(super) fn refuse_overruled(&mut self, mut build: Build, why: String) {
        if let Some(written) = build.written.take()
            && matches!(build.request.goal, Goal::Files { .. })
        {
            self.refused.insert(written, Verdict::Operator, vec![why.clone()]);
        }
        self.refuse(build, vec![why]);
    }

    /// Ends an attempt that must not go live.
    fn refuse(&mut self, mut build: Build, why: Vec<String>) {
        build.record.outcome = ReloadOutcome::Refused;
        build.record.errors = why;
        self.end(build, false);
    }

    fn restart_needed(&self, plan: &Plan) -> Vec<String> {
        let mut lines = restart_needed("server", &self.server.entries(), &plan.server.entries());
        lines.extend(restart_needed("jobs", &self.job_store.entries(), &plan.job_store.entries()));
        lines
    }
}

/// Returns one line for each key of a table that has changed. A running process cannot change them.
fn restart_needed(
    table: &str,
    running: &BTreeMap<&'static str, String>,
    written: &BTreeMap<&'static str, String>,
) -> Vec<String> {
    let keys: BTreeSet<&'static str> = running.keys().chain(written.keys()).copied().collect();
    let line = |key: &'static str| {
        let show = |value: Option<&String>| value.cloned().unwrap_or_else(|| "its default".into());
        let (old, new) = (show(running.get(key)), show(written.get(key)));
        format!(
            "[{table}] {key} is read at start only: {new} takes effect after a restart, {old} holds until then"
        )
    };
    keys.into_iter().filter(|key| running.get(key) != written.get(key)).map(line).collect()
}
