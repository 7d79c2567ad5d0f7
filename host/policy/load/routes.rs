//! Loads the models of a plan, and makes routes of them.

use super::loaded_parts::{CallableKey, ExecutorKey, LoadedParts, ModelPlugin};
use super::loader::{LoadContext, Loader};
use super::onnx_source;
use crate::error::{Error, Result, did_you_mean};
use crate::executor::{Callable, Executor, LoadLimit, ReferenceFile, Source, check_batching};
use crate::policy::files::{File, Files};
use crate::policy::guard_counters::GuardCounters;
use crate::policy::model::Model;
use crate::policy::model_name::ModelName;
use crate::policy::plan::{ModelPlan, Plan, PluginPlan, SourcePlan};
use crate::policy::route::{Route, RouteMetrics};
use crate::policy::statistics::Statistics;
use crate::policy::usage::Usage;
use crate::predict::Metadata;
use arc_swap::ArcSwapOption;
use std::collections::BTreeMap;
use std::sync::Arc;

impl Loader {
    pub(super) fn route(
        &self,
        name: &ModelName,
        from: LoadContext<'_>,
        models: &BTreeMap<Arc<str>, Model>,
        parts: &mut LoadedParts,
    ) -> Result<Route> {
        let LoadContext { plan, files, reuse } = from;
        let wanted = &plan.models[name];
        let executor = Arc::clone(&parts.executors[&ExecutorKey::of(plan, &wanted.executor)]);
        let plugin = |name: &Arc<str>| (Arc::clone(name), plan.plugins[name].clone());
        let callable = match &wanted.source {
            SourcePlan::Pipeline(pipeline) => {
                let model = self.pipeline(name, pipeline, plan, models)?;
                executor.load(&Source::Pipeline(Arc::new(model)))?
            }
            _ => self.callable(wanted, from, parts, &*executor)?,
        };
        if let Some(batching) = wanted.batching {
            check_batching(batching, &*callable)?;
        }
        let transformer = wanted.transformer.as_ref().map(|name| {
            let loaded = parts.plugins[&plugin(name)].transformer.as_ref();
            Arc::clone(loaded.expect("invariant: the plan wants this role"))
        });
        let metrics = RouteMetrics::new(&self.metrics, name);
        let mut route = Route {
            name: name.clone(),
            executor,
            callable,
            transformer,
            timeout: wanted.timeout,
            batching: wanted.batching,
            labels: BTreeMap::new(),
            metrics,
            counters: GuardCounters::default(),
            evidence: ArcSwapOption::empty(),
            usage: Usage::default(),
            statistics: Arc::new(Statistics::new(wanted.batching)),
        };
        // The first one is the live policy.
        let live = reuse.first().and_then(|live| live.route(name));
        if let Some(old) = live.filter(|old| route.continues_statistics_of(old)) {
            route.statistics = Arc::clone(&old.statistics);
        }
        route.labels = labels(wanted, route.metadata(), files)?;
        Ok(route)
    }

    /// Returns a model that is no pipeline. Takes it from an earlier policy if that has the same
    /// one.
    fn callable(
        &self,
        wanted: &ModelPlan,
        from: LoadContext<'_>,
        parts: &mut LoadedParts,
        executor: &dyn Executor,
    ) -> Result<Arc<dyn Callable>> {
        let LoadContext { plan, files, reuse } = from;
        let plugin = |name: &Arc<str>| (Arc::clone(name), plan.plugins[name].clone());
        let key = match &wanted.source {
            SourcePlan::Pipeline(_) => unreachable!("a pipeline is made of what is loaded"),
            SourcePlan::Onnx { file, external } => CallableKey::Onnx {
                file: file.sha256.clone(),
                external: external.clone(),
                sessions: plan.base(&wanted.executor).1.sessions().expect("invariant: a pool runs files"),
            },
            SourcePlan::Plugin(name) => {
                let (name, plan) = plugin(name);
                CallableKey::Plugin { name, plan: plan.into(), idempotent: wanted.idempotent }
            }
            SourcePlan::Remote { name, version, reference } => CallableKey::Remote {
                executor: Box::new(ExecutorKey::of(plan, plan.base(&wanted.executor).0)),
                name: name.clone(),
                version: version.clone(),
                reference: reference.as_ref().map(|(file, _)| file.sha256.clone()),
            },
        };
        let known =
            parts.callables.get(&key).or_else(|| reuse.iter().find_map(|old| old.parts.callables.get(&key)));
        let callable = match known {
            // An executor may refuse a kind of model that another one has loaded.
            Some(callable) if !matches!(key, CallableKey::Plugin { .. }) => Arc::clone(callable),
            _ => executor.load(&self.source(wanted, plan, files, parts, plugin)?)?,
        };
        parts.callables.insert(key, Arc::clone(&callable));
        Ok(callable)
    }

    fn source(
        &self,
        wanted: &ModelPlan,
        plan: &Plan,
        files: &Files,
        parts: &LoadedParts,
        plugin: impl Fn(&Arc<str>) -> (Arc<str>, PluginPlan),
    ) -> Result<Source> {
        Ok(match &wanted.source {
            SourcePlan::Pipeline(_) => unreachable!("a pipeline is made of what is loaded"),
            SourcePlan::Onnx { file, external } => {
                let limit =
                    LoadLimit { time: plan.reload.model_load_timeout, cancel: files.progress.stop.clone() };
                Source::Onnx(onnx_source::read(file, external, files, limit)?)
            }
            SourcePlan::Plugin(name) => {
                let model = parts.plugins[&plugin(name)].model.as_ref();
                match model.expect("invariant: the plan wants this role") {
                    ModelPlugin::Model(plugin) => Source::Plugin(Arc::clone(plugin)),
                    ModelPlugin::Streaming(plugin) => {
                        Source::Streaming { plugin: Arc::clone(plugin), idempotent: wanted.idempotent }
                    }
                }
            }
            SourcePlan::Remote { name, version, reference } => Source::Remote {
                name: name.clone(),
                version: version.clone(),
                reference: match reference {
                    Some((file, _)) => {
                        Some(ReferenceFile { path: files.location(&file.path), bytes: files.read(file)? })
                    }
                    None => None,
                },
            },
        })
    }
}

fn labels(
    wanted: &ModelPlan,
    metadata: &Metadata,
    files: &Files,
) -> Result<BTreeMap<Arc<str>, Arc<[String]>>> {
    let read = |(output, file): (&Arc<str>, &File)| {
        let known = metadata.outputs.iter().map(|spec| &*spec.name);
        if !known.clone().any(|name| *name == **output) {
            let hint = did_you_mean(output, known);
            return Err(Error::invalid(format!("labels: the model has no output \"{output}\"{hint}")));
        }
        let text = String::from_utf8(files.read(file)?.into())
            .map_err(|_| Error::invalid(format!("labels: {} is not UTF-8", file.path.display())))?;
        Ok((Arc::clone(output), text.lines().map(str::to_owned).collect()))
    };
    wanted.labels.iter().map(read).collect()
}
