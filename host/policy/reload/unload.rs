//! Model control, for the reload thread's side: ends a load, and removes a model from the policies.

use super::request::Goal;
use super::thread::ReloadThread;
use crate::error::{Error, Kind, Result, did_you_mean};
use crate::policy::content::{Policy, PolicyContent};
use crate::policy::description::diff;
use crate::policy::files::Signature;
use crate::policy::live::Serving;
use crate::policy::model_name::bounded;
use crate::policy::overlay::Overrides;
use crate::policy::record::{Record, ReloadOutcome, Trigger};
use crate::policy::route::Route;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

impl ReloadThread {
    /// Finishes a client's load of a model, and returns what the client is told.
    pub(super) fn model_loaded(
        &mut self,
        record: Record,
        seen: Signature,
        overrides: &Overrides,
    ) -> Result<()> {
        if matches!(record.outcome, ReloadOutcome::Applied | ReloadOutcome::Unchanged) {
            self.watching.seen(seen);
            self.files_were_read(&record);
            self.finish(record, false);
            return Ok(());
        }
        // The files that were read have not become live, so the watch still finds them changed.
        let record = self.finish(record, false);
        // The client is at fault only if it set overrides, since the files are not its own.
        let overridden = *overrides != Overrides::default();
        let by_override = overridden && record.outcome == ReloadOutcome::Rejected && record.failures == 0;
        let kind = if by_override { Kind::InvalidInput } else { Kind::Unavailable };
        Err(Error::new(kind, record.errors.join("; ")))
    }

    /// Abandons loads of this model that have not ended.
    fn abandon_load(&mut self, model: &str) {
        let loads = |goal: &Goal| matches!(goal, Goal::Model { name, .. } if name == model);
        let error = Error::unavailable("it was unloaded while it was being loaded");
        if let Some(build) = self.build.take_if(|build| loads(&build.request.goal)) {
            self.shared.history().loading = None;
            self.abandon(build).refuse(&error);
        }
        let waiting = std::mem::take(&mut self.waiting);
        for request in waiting {
            if loads(&request.goal) {
                request.refuse(&error);
            } else {
                self.waiting.push_back(request);
            }
        }
    }

    /// Unloads a model, and returns the routes that requests may still run on.
    pub(super) fn unload_model(&mut self, model: &str) -> Result<Vec<Arc<Route>>> {
        let started = Instant::now();
        self.no_candidate()?;
        self.abandon_load(model);
        let live = self.shared.live.snapshot();
        let content = &live.content;
        if content.plan.overlay.holds_back(model) {
            return Ok(self.routes(model));
        }
        if !content.models.contains_key(model) {
            let model = bounded(model);
            let hint = did_you_mean(&model, content.models.keys().map(|name| &**name));
            return Err(Error::not_found(format!("there is no model \"{model}\"{hint}")));
        }
        let mut record = Record::new(Trigger::ModelControl(format!("unload {model}")));
        let without = Arc::new(content.without(model));
        record.digest = Some(without.plan.digest.clone());
        record.changes = diff(&content.plan.description, &without.plan.description);
        self.newest = self.newest.max(live.generation) + 1;
        self.replace(&live, without, model);
        if let Some(build) = &mut self.build {
            build.unloaded.push(model.to_owned());
        }
        record.phases_ms.insert("total", (started.elapsed().as_secs_f64() * 1e4).round() / 10.0);
        self.finish(record, false);
        Ok(self.routes(model))
    }

    /// Replaces the live policy by `content`, and keeps no policy that has the model.
    fn replace(&mut self, live: &Arc<Policy>, content: Arc<PolicyContent>, model: &str) {
        let policy = Policy { generation: self.newest, since: SystemTime::now(), content };
        self.shared.live.0.store(Arc::new(Serving { stable: Arc::new(policy), candidate: None }));
        let mut history = self.shared.history();
        history.retire(live);
        if let Some(rollout) = &mut history.rollout {
            rollout.forget(model);
        }
        let has_it = |policy: &mut Arc<Policy>| policy.content.models.contains_key(model);
        if let Some(previous) = history.previous.take_if(has_it) {
            history.retire(&previous);
            let (generation, since) = (previous.generation, previous.since);
            let content = Arc::new(previous.content.without(model));
            history.previous = Some(Arc::new(Policy { generation, since, content }));
        }
    }

    /// Returns the routes of a model in every generation that requests still use.
    fn routes(&self, model: &str) -> Vec<Arc<Route>> {
        let history = self.shared.history();
        let policies = history.retired.iter().filter_map(std::sync::Weak::upgrade);
        let routes = policies.flat_map(|policy| {
            let model = policy.content.models.get(model);
            model.into_iter().flat_map(|model| model.versions.values()).cloned().collect::<Vec<_>>()
        });
        routes.collect()
    }

    /// Fails during a rollout: a policy that is proving itself must not be overtaken by another
    /// one.
    pub(super) fn no_candidate(&self) -> Result<()> {
        let serving = self.shared.live.0.load();
        let Some(candidate) = &serving.candidate else { return Ok(()) };
        Err(Error::unavailable(format!(
            "generation {} is being rolled out; try again once it is live or rolled back",
            candidate.policy.generation
        )))
    }
}
