//! Model control: one model loaded or unloaded by a client's word, where the manifest allows it.
//!
//! A load is a reload of the files under another overlay; it goes live at once, since who asked waits for it,
//! and is watched by the guard. An unload reads nothing: it takes one model out of what is live and of what is
//! kept for a rollback, so that its memory is free and other changes of the files stay where they are.

use super::build::Goal;
use super::thread::ReloadThread;
use super::{Command, Reloader, stopping};
use crate::error::{Error, Kind, Result, did_you_mean};
use crate::policy::files::Signature;
use crate::policy::overlay::Overrides;
use crate::policy::record::{Record, ReloadOutcome, Trigger};
use crate::policy::rollout::Serving;
use crate::policy::{Policy, PolicyContent, Route, bounded, describe::diff};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::oneshot;

/// What the manifest said at start.
#[derive(Clone, Copy)]
pub(super) struct Permission {
    pub allowed: bool,
    /// How long an unload waits for what runs.
    pub drain: Duration,
}

/// A model and version that is served, or that model control has taken away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Indexed {
    pub name: String,
    pub version: String,
    pub state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Ready,
    Unloaded,
    /// A load of it is on its way.
    Loading,
}

impl Reloader {
    /// Serves a model as the files say now, but for `overrides`, which take the place of earlier ones. Returns
    /// once it is live.
    pub async fn load_model(&self, model: String, overrides: Overrides) -> Result<()> {
        self.may_control()?;
        let (reply, loaded) = oneshot::channel();
        let failed = format!("failed to load '{}'", bounded(&model));
        self.send(Command::Load { model, overrides, reply })?;
        loaded.await.map_err(|_| stopping())?.map_err(|error| error.context(failed))
    }

    /// Takes a model away, and before it the pipelines that use it if these are to go as well; without, they refuse their
    /// requests. Returns once no request runs on what is gone, or when they may take no longer.
    pub async fn unload_model(&self, model: String, dependents: bool) -> Result<()> {
        self.may_control()?;
        if dependents {
            for dependent in self.shared.live.snapshot().content.dependents(&model) {
                self.unload_one(dependent.to_string()).await?;
            }
        }
        self.unload_one(model).await
    }

    async fn unload_one(&self, model: String) -> Result<()> {
        let (reply, routes) = oneshot::channel();
        let failed = format!("failed to unload '{}'", bounded(&model));
        self.send(Command::Unload { model: model.clone(), reply })?;
        let routes = routes.await.map_err(|_| stopping())?.map_err(|error| error.context(failed))?;
        let drained = async {
            for route in &routes {
                route.usage.idle().await;
            }
        };
        if tokio::time::timeout(self.permission.drain, drained).await.is_err() {
            tracing::warn!(model, "unloaded, with requests still running on it");
        }
        Ok(())
    }

    pub fn may_control(&self) -> Result<()> {
        if self.permission.allowed {
            return Ok(());
        }
        Err(Error::unavailable(
            "explicit model load / unload is not allowed if polling is enabled; model_control = \"explicit\" under [server] \
             allows it",
        ))
    }

    /// Every model that is served or was unloaded, by name and version.
    pub fn index(&self) -> Vec<Indexed> {
        let loading = self.shared.history().loading.clone();
        let policy = self.shared.live.snapshot();
        let content = &policy.content;
        let routes = content.models().flat_map(|(_, model)| model.versions.values());
        let ready = routes.map(|route| Indexed {
            name: route.name.name.to_string(),
            version: route.name.version.to_string(),
            state: State::Ready,
        });
        let mut index: Vec<Indexed> = ready.collect();
        for (name, versions) in &content.plan.overlay.unloaded {
            let state = if loading.as_ref() == Some(name) { State::Loading } else { State::Unloaded };
            let entry = |version: &String| Indexed { name: name.clone(), version: version.clone(), state };
            index.extend(versions.iter().map(entry));
        }
        index.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
        index
    }
}

impl ReloadThread {
    /// What a client is told of the model that it wanted to be loaded.
    pub(super) fn model_loaded(
        &mut self,
        record: Record,
        seen: Signature,
        overrides: &Overrides,
    ) -> Result<()> {
        if matches!(record.outcome, ReloadOutcome::Applied | ReloadOutcome::Unchanged) {
            self.watching.seen(seen);
            self.finish(record, false);
            return Ok(());
        }
        // What was looked at has not become what is live: a watch finds it changed as before.
        let stale = self.stale();
        let record = self.finish(record, false);
        self.set_stale(stale);
        // What is overridden may be at fault; the files are not the caller's.
        let overridden = *overrides != Overrides::default();
        let by_override = overridden && record.outcome == ReloadOutcome::Rejected && record.failures == 0;
        let kind = if by_override { Kind::InvalidInput } else { Kind::Unavailable };
        Err(Error::new(kind, record.errors.join("; ")))
    }

    /// A load of this model that has not ended is not wanted any more.
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

    /// Gives the routes that requests may still run on.
    pub(super) fn unload_model(&mut self, model: &str) -> Result<Vec<Arc<Route>>> {
        let started = Instant::now();
        self.no_candidate()?;
        self.abandon_load(model);
        let live = self.shared.live.snapshot();
        let content = &live.content;
        if content.plan.overlay.unloaded.contains_key(model) {
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
        self.take_away(&live, without, model);
        if let Some(build) = &mut self.build {
            build.unloaded.push(model.to_owned());
        }
        record.phases_ms.insert("total", (started.elapsed().as_secs_f64() * 1e4).round() / 10.0);
        let stale = self.stale();
        self.finish(record, false);
        self.set_stale(stale);
        Ok(self.routes(model))
    }

    /// Puts `content` in the place of `live`, and keeps nothing that has the model.
    fn take_away(&mut self, live: &Arc<Policy>, content: Arc<PolicyContent>, model: &str) {
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

    /// Of every generation that requests still use.
    fn routes(&self, model: &str) -> Vec<Arc<Route>> {
        let history = self.shared.history();
        let policies = history.retired.iter().filter_map(std::sync::Weak::upgrade);
        let routes = policies.flat_map(|policy| {
            let model = policy.content.models.get(model);
            model.into_iter().flat_map(|model| model.versions.values()).cloned().collect::<Vec<_>>()
        });
        routes.collect()
    }

    /// A policy that proves itself must not be overtaken by one that has not.
    pub(super) fn no_candidate(&self) -> Result<()> {
        let serving = self.shared.live.0.load();
        let Some(candidate) = &serving.candidate else { return Ok(()) };
        Err(Error::unavailable(format!(
            "generation {} is on its way to all requests; ask again once it is live or rolled back",
            candidate.policy.generation
        )))
    }
}
