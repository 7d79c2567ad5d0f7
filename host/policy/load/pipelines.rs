//! Binds the graphs of pipelines to the models that are loaded.

use super::loader::Loader;
use super::step_key::step_key;
use crate::error::{Error, Result};
use crate::executor::pipeline::{Binding, Bucket, Pick, PipelineModel, StepMetrics, StepRoute, StepTarget};
use crate::graph::{Step, StepModel, compile};
use crate::policy::guard_counters::CallOutcome;
use crate::policy::model::Model;
use crate::policy::model_name::ModelName;
use crate::policy::plan::Plan;
use crate::policy::route::Route;
use crate::policy::route_query::RouteQuery;
use crate::policy::sticky_by::{StickyBy, sticky_hash};
use crate::predict::{CallContext, Service};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

impl Loader {
    /// Returns the pipeline of a model, bound to the models of its steps.
    pub(super) fn pipeline(
        &self,
        model: &ModelName,
        pipeline: &Arc<str>,
        plan: &Plan,
        models: &BTreeMap<Arc<str>, Model>,
    ) -> Result<PipelineModel> {
        let written = &plan.pipelines[pipeline];
        let graph = &written.graph;
        let missing = graph.steps.iter().find(|step| !models.contains_key(&step.model));
        if let Some(step) = missing {
            let metadata = crate::predict::Metadata::default();
            return Ok(PipelineModel::unavailable(
                metadata,
                Arc::clone(graph),
                not_served(plan, pipeline, step),
            ));
        }
        let used: Vec<Vec<&Arc<Route>>> =
            graph.steps.iter().map(|step| versions(step, &models[&step.model])).collect();
        let refusing = graph.steps.iter().zip(&used).find_map(|(step, routes)| {
            let inner =
                routes.iter().find_map(|route| PipelineModel::of(&*route.callable)?.why_unavailable())?;
            Some(at_step(inner.clone(), pipeline, step))
        });
        if let Some(why) = refusing {
            return Ok(PipelineModel::unavailable(Default::default(), Arc::clone(graph), why));
        }
        let step_models: Vec<StepModel> = used.iter().map(|routes| step_model(routes)).collect();
        let program = compile(graph, &step_models).map_err(|faults| written.refusal(faults))?;
        let bindings = graph.steps.iter().zip(&used).map(|(step, routes)| {
            let model = &models[&step.model];
            Binding {
                versions: routes.iter().map(|route| target(plan, models, route)).collect(),
                pick: pick(model, routes),
            }
        });
        let limits = graph
            .steps
            .iter()
            .map(|step| self.pipeline_limits.of(pipeline, &step.name, step.max_in_flight, step.max_per_s));
        let metrics = graph.steps.iter().map(|step| StepMetrics::new(&self.metrics, pipeline, &step.name));
        let bucket = bucket(plan.routing.get(&model.name).map(|routing| routing.by.clone()));
        Ok(PipelineModel::new(program, bindings.collect(), limits.collect(), metrics.collect(), bucket))
    }
}

fn not_served(plan: &Plan, pipeline: &str, step: &Step) -> Error {
    let model = &step.model;
    if !plan.overlay.on_request.contains_key(&**model) {
        return unloaded(pipeline, step);
    }
    let message = format!("model \"{model}\" is served on request; the pipeline runs once it is loaded");
    at_step(Error::unavailable(message), pipeline, step)
}

pub(super) fn unloaded(pipeline: &str, step: &Step) -> Error {
    let model = &step.model;
    let message =
        format!("model \"{model}\" was unloaded by request; the pipeline runs again once it is loaded");
    at_step(Error::unavailable(message), pipeline, step)
}

pub(super) fn at_step(error: Error, pipeline: &str, step: &Step) -> Error {
    error.context(format!("pipeline \"{pipeline}\": step \"{}\"", step.name)).step(&step.name)
}

fn versions<'m>(step: &Step, model: &'m Model) -> Vec<&'m Arc<Route>> {
    let is_used = |version: &Arc<str>| step.version.as_ref().is_none_or(|wanted| wanted == version);
    model.versions.iter().filter(|(version, _)| is_used(version)).map(|(_, route)| route).collect()
}

fn step_model(routes: &[&Arc<Route>]) -> StepModel {
    let versions =
        routes.iter().map(|route| (Arc::clone(&route.name.version), route.callable.metadata().clone()));
    let omitted = routes.iter().flat_map(|route| &route.callable.metadata().outputs);
    let may_omit = omitted.filter(|spec| spec.optional).map(|spec| Arc::clone(&spec.name)).collect();
    StepModel { versions: versions.collect(), may_omit }
}

fn target(plan: &Plan, models: &BTreeMap<Arc<str>, Model>, route: &Arc<Route>) -> StepTarget {
    let key = step_key(plan, models, route);
    StepTarget { target: route.target(), route: Arc::clone(route) as _, key }
}

/// Returns how to pick the version that the routing rule selects for a caller; `None` if a step
/// uses one version.
fn pick(model: &Model, routes: &[&Arc<Route>]) -> Option<Pick> {
    if routes.len() < 2 {
        return None;
    }
    let (model, routes) = (model.clone(), routes.iter().map(|route| Arc::clone(route)).collect::<Vec<_>>());
    Some(Arc::new(move |context: &CallContext| {
        let header = |name: &str| context.header(name);
        let chosen = model.route_for(&RouteQuery { request_id: &context.id, header: &header });
        routes.iter().position(|route| Arc::ptr_eq(route, chosen)).unwrap_or(0)
    }))
}

fn bucket(by: Option<StickyBy>) -> Bucket {
    Arc::new(move |context: &CallContext| {
        let key = match &by {
            Some(StickyBy::Header(name)) => context.header(name),
            _ => None,
        };
        (sticky_hash(key.as_deref().unwrap_or(&context.id)) % 100) as u8
    })
}

impl StepRoute for Route {
    fn ended(&self, error: Option<&Error>, queue: Duration, service: Service) {
        let took = queue + service.total();
        self.counters.record(CallOutcome::of(error, took));
        match error {
            None => self.statistics.answered(took, queue, service, SystemTime::now()),
            Some(_) => self.statistics.failed(took, SystemTime::now()),
        }
    }
}
