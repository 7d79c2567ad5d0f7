//! What a policy serves: its plan, executors and models.
//!
//! Finds the route for a request or a plugin's call. Loading the content is the work of `load`.

use super::load::LoadedParts;
use super::model::Model;
use super::model_name::{ModelName, bounded};
use super::plan::Plan;
use super::route::Route;
use super::route_query::RouteQuery;
use super::sticky_by::StickyBy;
use super::webhooks::Webhooks;
use crate::access::{Access, Verb};
use crate::error::{Error, Result, did_you_mean};
use crate::executor::{Executor, PipelineModel};
use crate::metrics::Families;
use crate::plugin::StreamingModel;
use crate::predict::{CallContext, Models, Target};
use crate::tenants::TenantTable;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

/// The running snapshot. A request takes it once and uses only that one.
pub struct Policy {
    /// Counts swaps, starting at 1.
    pub generation: u64,
    pub since: SystemTime,
    pub content: Arc<PolicyContent>,
}

/// What a policy serves. Two generations can share the same content.
pub struct PolicyContent {
    pub plan: Plan,
    pub executors: BTreeMap<Arc<str>, Arc<dyn Executor>>,
    pub(super) models: BTreeMap<Arc<str>, Model>,
    /// `None` if jobs can have no webhooks.
    pub webhooks: Option<Arc<Webhooks>>,
    pub tenants: Arc<TenantTable>,
    pub(super) parts: LoadedParts,
    /// What plugins may call. `None` without access rules.
    pub(super) access: Option<Arc<Access>>,
}

impl PolicyContent {
    /// Returns the headers that routing rules read.
    pub fn sticky_headers(&self) -> impl Iterator<Item = &str> {
        self.plan.routing.values().filter_map(|routing| match &routing.by {
            StickyBy::Header(name) => Some(name.as_str()),
            StickyBy::RequestId => None,
        })
    }

    /// Returns why a model cannot run now, if there is such a model: its remote is unreachable, or
    /// its plugin reports that it is not ready or has no instance.
    pub fn unready(&self) -> Option<Error> {
        let routes = self.models.values().flat_map(|model| model.versions.values());
        // A pipeline whose model a client has unloaded reports that itself. The host is still
        // ready.
        let routes = routes.filter(|route| route.check_available().is_ok());
        routes.into_iter().find_map(|route| {
            let error = route.callable.ready().err()?;
            Some(error.context(format!("model \"{}\"", route.name)))
        })
    }

    /// Returns the metrics that plugins define themselves.
    pub fn families(&self) -> impl Iterator<Item = &Families> {
        self.parts.families()
    }

    /// Returns the streaming models.
    pub fn shared_plugins(&self) -> impl Iterator<Item = &Arc<StreamingModel>> {
        self.parts.shared()
    }

    /// Returns the models that are pipelines and use this model, at any depth, the outermost first.
    pub(super) fn dependents(&self, model: &str) -> Vec<Arc<str>> {
        let mut found: Vec<Arc<str>> = vec![model.into()];
        let uses = |known: &Model, found: &[Arc<str>]| {
            let pipelines = known.versions.values().filter_map(|route| PipelineModel::of(&*route.callable));
            let mut steps = pipelines.flat_map(|pipeline| &pipeline.program().graph.steps);
            steps.any(|step| found.contains(&step.model))
        };
        while let Some((name, _)) =
            self.models.iter().find(|(name, known)| !found.contains(name) && uses(known, &found))
        {
            found.push(Arc::clone(name));
        }
        found.into_iter().skip(1).rev().collect()
    }

    pub fn models(&self) -> impl Iterator<Item = (&Arc<str>, &Model)> {
        self.models.iter()
    }

    pub(super) fn route(&self, name: &ModelName) -> Option<&Arc<Route>> {
        self.models.get(&name.name)?.versions.get(&name.version)
    }

    /// Returns the route of a model. Without a version that is the only one, or the one that the
    /// routing rule selects for this caller.
    pub fn resolve(&self, name: &str, version: Option<&str>, caller: &RouteQuery<'_>) -> Result<&Arc<Route>> {
        let model = self.models.get(name).ok_or_else(|| self.no_such_model(name))?;
        let Some(version) = version else { return Ok(model.route_for(caller)) };
        model.versions.get(version).ok_or_else(|| {
            let known: Vec<&str> = model.versions.keys().map(|version| &**version).collect();
            let hint = did_you_mean(&bounded(version), known.iter().copied());
            Error::not_found(format!(
                "model \"{name}\" has no version \"{}\"{hint}; versions: {}",
                bounded(version),
                known.join(", ")
            ))
            .model(name)
        })
    }

    fn no_such_model(&self, name: &str) -> Error {
        let name = bounded(name);
        if self.plan.overlay.on_request.contains_key(&name) {
            return Error::not_found(format!(
                "model \"{name}\" is served on request; it is served once a client loads it"
            ));
        }
        if self.plan.overlay.unloaded.contains_key(&name) {
            return Error::not_found(format!(
                "model \"{name}\" was unloaded by request; it is served again once it is loaded"
            ));
        }
        let hint = did_you_mean(&name, self.models.keys().map(|name| &**name));
        let hint = match name.split_once(':') {
            Some((model, version)) if self.models.contains_key(model) => {
                format!(" (send \"model\": \"{model}\", \"version\": \"{version}\")")
            }
            _ => hint,
        };
        Error::not_found(format!("no model \"{name}\"{hint}"))
    }
}

/// What plugins call by name: the model on its executor, without its transformer.
impl Models for PolicyContent {
    /// A plugin calls on its own behalf, not on that of the request that it works for.
    fn target(
        &self,
        model: &str,
        version: Option<&str>,
        caller: &CallContext,
        plugin: &str,
    ) -> Result<Arc<dyn Target>> {
        let by = RouteQuery { request_id: &caller.id, header: &|name| caller.header(name) };
        let Some(access) = &self.access else {
            return Ok(Arc::new(self.resolve(model, version, &by)?.target()));
        };
        let plugin = access.plugin(plugin);
        access.require(&plugin, Verb::Predict, Some((model, version)))?;
        let route = self.resolve(model, version, &by)?;
        access.require(&plugin, Verb::Predict, Some((model, Some(&route.name.version))))?;
        Ok(Arc::new(route.target()))
    }
}
