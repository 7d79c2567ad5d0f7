//! Model control, for the host's side: loads and unloads single models on request of a client.
//!
//! A load is a reload of the files under another overlay. It goes live immediately, since the
//! client waits for it, and the guard watches it. An unload reads no file: it removes one model
//! from the live policy and from the policy that is kept for a rollback, so that its memory is
//! freed and other changes of the files stay pending.

use super::command::{Command, stopping};
use super::reloader::Reloader;
use crate::error::{Error, Kind, Result};
use crate::policy::model_name::{bounded, taken_by};
use crate::policy::overlay::Overrides;
use std::sync::Arc;
use tokio::sync::oneshot;

/// A model and version that is served, or that was unloaded.
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
    /// It is being loaded.
    Loading,
}

impl Reloader {
    /// Serves a model as the files say now, except for `overrides`, which replace earlier ones.
    /// Returns once the model is live.
    pub async fn load_model(&self, model: String, overrides: Overrides) -> Result<()> {
        self.may_control()?;
        let failed = format!("failed to load '{}'", bounded(&model));
        if let Some(why) = taken_by(&model) {
            return Err(Error::invalid(format!("no model can have this name: {why}")).context(failed));
        }
        let (reply, loaded) = oneshot::channel();
        self.send(Command::Load { model, overrides, reply })?;
        loaded.await.map_err(|_| stopping())?.map_err(|error| match error.kind() {
            // The words by which clients of Triton recognize a model that is not there.
            Kind::NotFound => error.context(failed + ", failed to poll from model repository"),
            _ => error.context(failed),
        })
    }

    /// Returns the pipelines that use a model, at any depth.
    pub fn dependents(&self, model: &str) -> Vec<Arc<str>> {
        self.shared.live.snapshot().content.dependents(model)
    }

    /// Unloads a model. With `dependents`, the pipelines that use it are unloaded first; otherwise
    /// they refuse their requests. Returns once no request runs on an unloaded model, or when the
    /// time to drain is over.
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
            tracing::warn!(model, "model unloaded with requests still running");
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

    /// Returns every model that is served or was unloaded, sorted by name and version.
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
        for (name, versions) in content.plan.overlay.not_served() {
            let state = if loading.as_ref() == Some(name) { State::Loading } else { State::Unloaded };
            let entry = |version: &String| Indexed { name: name.clone(), version: version.clone(), state };
            index.extend(versions.iter().map(entry));
        }
        index.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
        index
    }
}
