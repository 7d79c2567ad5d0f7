//! Pipelines: their graphs, bound to the models that are loaded.

use super::Loader;
use crate::error::{Error, Result};
use crate::executor::Callable;
use crate::executor::pipeline::{Binding, Bucket, Pick, PipelineModel, StepMetrics, StepRoute, StepTarget};
use crate::graph::{Step, StepModel, compile};
use crate::policy::guard_counters::CallOutcome;
use crate::policy::plan::pipelines::inner_pipelines;
use crate::policy::plan::{ModelName, Plan, SourcePlan};
use crate::policy::{Model, Route, RouteQuery, sticky_hash};
use crate::predict::{CallContext, Service};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The models of a plan, those of a pipeline's steps before the pipeline.
pub(super) fn in_order(plan: &Plan) -> Vec<&ModelName> {
    let pipeline_of = |name: &ModelName| match &plan.models[name].source {
        SourcePlan::Pipeline(pipeline) => Some(pipeline),
        _ => None,
    };
    let (mut open, mut order): (Vec<&ModelName>, Vec<&ModelName>) =
        plan.models.keys().partition(|name| pipeline_of(name).is_some());
    let mut ready: BTreeSet<&Arc<str>> = BTreeSet::new();
    // None leads back to itself, so each turn has one at least whose inner ones are ready.
    let inner: BTreeMap<&Arc<str>, Vec<Arc<str>>> = plan
        .pipelines
        .iter()
        .map(|(name, pipeline)| (name, inner_pipelines(pipeline, &plan.models)))
        .collect();
    let mut names: Vec<&Arc<str>> = plan.pipelines.keys().collect();
    while !names.is_empty() {
        let before = names.len();
        names.retain(|name| {
            let is_ready = inner[*name].iter().all(|inner| ready.contains(inner));
            if is_ready {
                ready.insert(name);
                open.retain(|model| {
                    let is_it = pipeline_of(model) == Some(*name);
                    if is_it {
                        order.push(model);
                    }
                    !is_it
                });
            }
            !is_ready
        });
        if names.len() == before {
            break;
        }
    }
    order
}

impl Loader {
    /// The pipeline of a model, with the models of its steps.
    pub(super) fn pipeline(
        &self,
        model: &ModelName,
        pipeline: &Arc<str>,
        plan: &Plan,
        models: &BTreeMap<Arc<str>, Model>,
    ) -> Result<PipelineModel> {
        let written = &plan.pipelines[pipeline];
        let graph = &written.graph;
        let gone = graph.steps.iter().find(|step| !models.contains_key(&step.model));
        if let Some(step) = gone {
            let metadata = crate::predict::Metadata::default();
            return Ok(PipelineModel::unavailable(metadata, Arc::clone(graph), unloaded(pipeline, step)));
        }
        let used: Vec<Vec<&Arc<Route>>> =
            graph.steps.iter().map(|step| versions(step, &models[&step.model])).collect();
        let refusing = graph.steps.iter().zip(&used).find_map(|(step, routes)| {
            let inner = routes.iter().find_map(|route| route.callable.pipeline()?.why_unavailable())?;
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
                versions: routes.iter().map(|route| target(route)).collect(),
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

/// Makes the pipelines that use a model, which is gone, unavailable.
pub(super) fn without(models: &mut BTreeMap<Arc<str>, Model>, model: &str) {
    // A pipeline within another one takes that along: by version, since a step may use one alone.
    let mut gone: BTreeMap<ModelName, Error> = BTreeMap::new();
    loop {
        let uses = |route: &Arc<Route>| {
            let pipeline =
                route.callable.pipeline().filter(|pipeline| pipeline.why_unavailable().is_none())?;
            let graph = &pipeline.program().graph;
            graph.steps.iter().find_map(|step| {
                if *step.model == *model {
                    return Some(unloaded(&graph.name, step));
                }
                let is_used = |name: &&ModelName| {
                    name.name == step.model
                        && step.version.as_ref().is_none_or(|version| *version == name.version)
                };
                let name = gone.keys().find(is_used)?;
                Some(at_step(gone[name].clone(), &graph.name, step))
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
            let Some(pipeline) = route.callable.pipeline() else { continue };
            let program = pipeline.program();
            let graph = Arc::clone(&program.graph);
            let refuses = PipelineModel::unavailable(program.metadata.clone(), graph, why.clone());
            *route = Arc::new(route.with_callable(Arc::new(refuses)));
            gone.insert(name, why);
        }
    }
}

fn unloaded(pipeline: &str, step: &Step) -> Error {
    let model = &step.model;
    let message =
        format!("model \"{model}\" was unloaded by request; the pipeline runs again once it is loaded");
    at_step(Error::unavailable(message), pipeline, step)
}

fn at_step(error: Error, pipeline: &str, step: &Step) -> Error {
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

fn target(route: &Arc<Route>) -> StepTarget {
    StepTarget { target: route.target(), route: Arc::clone(route) as _ }
}

/// The version that the routing rule gives a caller, where several may be used.
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

fn bucket(by: Option<crate::policy::plan::StickyBy>) -> Bucket {
    Arc::new(move |context: &CallContext| {
        let key = match &by {
            Some(crate::policy::plan::StickyBy::Header(name)) => context.header(name),
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

impl Route {
    /// The same route with another model in it.
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
