//! A policy's content without one model, for an unload.
//!
//! Nothing of the model stays in memory. Pipelines that use it become unavailable.

use super::loaded_parts::LoadedParts;
use super::pipelines::{at_step, unloaded};
use crate::error::Error;
use crate::executor::Callable;
use crate::executor::pipeline::PipelineModel;
use crate::policy::content::PolicyContent;
use crate::policy::describe::describe;
use crate::policy::model::Model;
use crate::policy::model_name::ModelName;
use crate::policy::route::Route;
use std::collections::BTreeMap;
use std::sync::Arc;

impl PolicyContent {
    /// Returns the same content except for one model.
    pub(in crate::policy) fn without(&self, model: &str) -> PolicyContent {
        let mut models = self.models.clone();
        models.remove(model);
        make_dependents_unavailable(&mut models, model);
        let routes = || models.values().flat_map(|model| model.versions.values());
        let used =
            |callable: &Arc<dyn Callable>| routes().any(|route| Arc::ptr_eq(&route.callable, callable));
        let callables = self.parts.callables.iter().filter(|(_, callable)| used(callable));
        let parts = LoadedParts {
            executors: self.parts.executors.clone(),
            plugins: self.parts.plugins.clone(),
            callables: callables.map(|(key, callable)| (key.clone(), Arc::clone(callable))).collect(),
        };
        let mut plan = self.plan.clone();
        plan.unload(model);
        describe(&mut plan);
        let (executors, webhooks) = (self.executors.clone(), self.webhooks.clone());
        let (tenants, access) = (Arc::clone(&self.tenants), self.access.clone());
        PolicyContent { plan, executors, models, webhooks, tenants, parts, access }
    }
}

/// Makes the pipelines that use a removed model unavailable.
fn make_dependents_unavailable(models: &mut BTreeMap<Arc<str>, Model>, model: &str) {
    // A pipeline that becomes unavailable affects those that call it. This is kept by version,
    // because a step may use a single version.
    let mut unavailable: BTreeMap<ModelName, Error> = BTreeMap::new();
    loop {
        let uses = |route: &Arc<Route>| {
            let pipeline = PipelineModel::of(&*route.callable)
                .filter(|pipeline| pipeline.why_unavailable().is_none())?;
            let graph = &pipeline.program().graph;
            graph.steps.iter().find_map(|step| {
                if *step.model == *model {
                    return Some(unloaded(&graph.name, step));
                }
                let is_used = |name: &&ModelName| {
                    name.name == step.model
                        && step.version.as_ref().is_none_or(|version| *version == name.version)
                };
                let name = unavailable.keys().find(is_used)?;
                Some(at_step(unavailable[name].clone(), &graph.name, step))
            })
        };
        let routes = models.values().flat_map(|known| known.versions.values());
        let dependents: Vec<(ModelName, Error)> =
            routes.filter_map(|route| Some((route.name.clone(), uses(route)?))).collect();
        if dependents.is_empty() {
            return;
        }
        for (name, why) in dependents {
            let known = models.get_mut(&name.name).and_then(|known| known.versions.get_mut(&name.version));
            let Some(route) = known else { continue };
            let Some(pipeline) = PipelineModel::of(&*route.callable) else { continue };
            let program = pipeline.program();
            let graph = Arc::clone(&program.graph);
            let refuses = PipelineModel::unavailable(program.metadata.clone(), graph, why.clone());
            *route = Arc::new(route.with_callable(Arc::new(refuses)));
            unavailable.insert(name, why);
        }
    }
}

impl Route {
    /// Returns the same route with another model in it, and new counters for the guard.
    fn with_callable(&self, callable: Arc<dyn Callable>) -> Route {
        Route {
            name: self.name.clone(),
            executor: Arc::clone(&self.executor),
            callable,
            transformer: self.transformer.clone(),
            timeout: self.timeout,
            batching: self.batching,
            labels: self.labels.clone(),
            metrics: self.metrics.clone(),
            counters: Default::default(),
            evidence: Default::default(),
            statistics: Arc::clone(&self.statistics),
            usage: Default::default(),
        }
    }
}
