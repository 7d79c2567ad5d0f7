//! Loads a plan into the content of a policy, part by part, and checks the models.
//!
//! Runs on loader threads, and blocks.

use super::faults::{Failed, LoadFaults};
use super::loaded_parts::LoadedParts;
use super::order::in_order;
use super::phases::Phases;
use super::tenants;
use crate::access::Access;
use crate::error::{Error, Result};
use crate::executor::pipeline::PipelineLimits;
use crate::metrics::Metrics;
use crate::plugin::Engine;
use crate::policy::checks;
use crate::policy::content::PolicyContent;
use crate::policy::files::Files;
use crate::policy::model::Model;
use crate::policy::model_name::ModelName;
use crate::policy::plan::{CheckPlan, ExecutorKind, ExecutorPlan, Plan, SourcePlan};
use crate::traces::Tracer;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// What loading needs besides the plan.
pub struct Loader {
    pub engine: Arc<Engine>,
    pub metrics: Arc<Metrics>,
    pub runtime: tokio::runtime::Handle,
    /// The ONNX Runtime library that the manifest names.
    pub library: Option<PathBuf>,
    /// The runs in flight of pipeline steps that have a limit.
    pub pipeline_limits: PipelineLimits,
    /// What plugins may call. `None` without access rules.
    pub access: Option<Arc<Access>>,
    /// Records the spans of reloads. Without it, they have none.
    pub tracer: Option<Arc<Tracer>>,
}

/// What routes are made from.
#[derive(Clone, Copy)]
pub(super) struct LoadContext<'a> {
    pub plan: &'a Plan,
    pub files: &'a Files,
    /// Earlier policies, whose parts are reused.
    pub reuse: &'a [Arc<PolicyContent>],
}

impl Loader {
    /// Loads everything that `reuse` does not have. Nothing is visible to requests before all of it
    /// is ready. Returns the faults of all parts.
    pub fn load(
        &self,
        plan: Plan,
        files: &Files,
        reuse: &[Arc<PolicyContent>],
        phases: &mut Phases,
    ) -> Result<Arc<PolicyContent>, LoadFaults> {
        let mut parts = LoadedParts::default();
        let mut failed = Failed::new(plan.plugins.len() + plan.models.len());
        // Executors are started from this thread, because their workers inherit its priority.
        self.executors(false, &plan, files, &mut parts, reuse, &mut failed)?;
        let started = Instant::now();
        at_low_priority(|| self.plugins(&plan, files, &mut parts, reuse, &mut failed))?;
        phases.plugins = started.elapsed();
        self.executors(true, &plan, files, &mut parts, reuse, &mut failed)?;
        at_low_priority(|| self.load_into(parts, plan, files, reuse, phases, failed))
    }

    /// Starts the custom executors, or all others.
    fn executors(
        &self,
        custom: bool,
        plan: &Plan,
        files: &Files,
        parts: &mut LoadedParts,
        reuse: &[Arc<PolicyContent>],
        failed: &mut Failed,
    ) -> Result<(), LoadFaults> {
        let is_custom = |name: &Arc<str>| plan.executors[name].kind() == ExecutorKind::Custom;
        for name in plan.executors.keys().filter(|name| is_custom(name) == custom) {
            if stands_on(failed, plan, name) {
                failed.executors.insert(Arc::clone(name));
            } else if let Err(error) = self.executor(name, plan, files, parts, reuse) {
                failed.executors.insert(Arc::clone(name));
                failed.add(error)?;
            }
        }
        Ok(())
    }

    fn load_into(
        &self,
        mut parts: LoadedParts,
        plan: Plan,
        files: &Files,
        reuse: &[Arc<PolicyContent>],
        phases: &mut Phases,
        mut failed: Failed,
    ) -> Result<Arc<PolicyContent>, LoadFaults> {
        let started = Instant::now();
        let mut models: BTreeMap<Arc<str>, Model> = BTreeMap::new();
        for name in in_order(&plan) {
            files.progress.check()?;
            failed.open -= 1;
            if depends_on(&failed, &plan, name) {
                failed.models.insert(name.clone());
                continue;
            }
            let from = LoadContext { plan: &plan, files, reuse };
            let route = match self.route(name, from, &models, &mut parts) {
                Ok(route) => route,
                Err(error) => {
                    failed.models.insert(name.clone());
                    failed.add(error.context(format!("model \"{name}\"")).model(name.to_string()))?;
                    continue;
                }
            };
            let model = models.entry(Arc::clone(&name.name)).or_insert_with(|| Model {
                versions: BTreeMap::new(),
                routing: plan.routing.get(&name.name).cloned(),
            });
            model.versions.insert(Arc::clone(&name.version), Arc::new(route));
        }
        let webhooks = match self.webhooks(&plan, files, reuse) {
            Ok(webhooks) => webhooks,
            Err(error) => {
                failed.add(error.context("[jobs.webhooks]"))?;
                None
            }
        };
        phases.models = started.elapsed();
        failed.check()?;

        let started = Instant::now();
        let executors = parts
            .executors
            .iter()
            .map(|(key, executor)| (Arc::clone(&key.name), Arc::clone(executor)))
            .collect();
        let tenants = Arc::new(tenants::table(&plan.tenants, &self.metrics));
        let access = self.access.clone();
        let content = Arc::new(PolicyContent { plan, executors, models, webhooks, tenants, parts, access });
        self.run_checks(&content, files, reuse, &mut failed)?;
        phases.checks = started.elapsed();
        Ok(content)
    }

    /// Runs the checks of every route that differs from what `reuse` has.
    fn run_checks(
        &self,
        content: &Arc<PolicyContent>,
        files: &Files,
        reuse: &[Arc<PolicyContent>],
        failed: &mut Failed,
    ) -> Result<(), LoadFaults> {
        for (name, plan) in content.plan.models.iter().filter(|(_, plan)| !plan.checks.is_empty()) {
            let route = &content.models[&name.name].versions[&name.version];
            let unchanged = reuse.iter().any(|old| {
                let same_plan = old.plan.models.get(name).is_some_and(|old| old.checks == plan.checks);
                same_plan && old.route(name).is_some_and(|old| route.computes_the_same(old))
            });
            if unchanged {
                continue;
            }
            let timeout = plan.timeout.unwrap_or(content.plan.settings.limits.default_timeout);
            let run = |check: &CheckPlan| {
                let samples = files.read(&check.file)?;
                let cancel = &files.progress.stop;
                let run = checks::run(content, route, check, &samples, timeout, cancel);
                self.runtime.block_on(files.progress.unless_stopped(run))
            };
            if let Err(error) = plan.checks.iter().try_for_each(run) {
                failed.add(error.context(format!("model \"{name}\"")))?;
            }
        }
        failed.check()
    }
}

/// Whether a custom executor needs a part that has failed.
fn stands_on(failed: &Failed, plan: &Plan, executor: &Arc<str>) -> bool {
    match &plan.executors[executor] {
        ExecutorPlan::Custom { plugin, inner, .. } => {
            failed.plugins.contains(plugin)
                || failed.executors.contains(inner)
                || stands_on(failed, plan, inner)
        }
        ExecutorPlan::Pool { .. } | ExecutorPlan::Triton { .. } | ExecutorPlan::Pipeline { .. } => false,
    }
}

/// Whether a model needs a part that has failed.
fn depends_on(failed: &Failed, plan: &Plan, model: &ModelName) -> bool {
    let model = &plan.models[model];
    let has_failed = |plugin: &Arc<str>| failed.plugins.contains(plugin);
    let of_source = match &model.source {
        SourcePlan::Plugin(plugin) => has_failed(plugin),
        SourcePlan::Pipeline(pipeline) => {
            let mut steps = plan.pipelines[pipeline].graph.steps.iter();
            steps.any(|step| {
                let is_used = |name: &&ModelName| {
                    name.name == step.model
                        && step.version.as_ref().is_none_or(|version| *version == name.version)
                };
                failed.models.iter().any(|name| is_used(&name))
            })
        }
        SourcePlan::Onnx { .. } | SourcePlan::Remote { .. } => false,
    };
    of_source
        || failed.executors.contains(&model.executor)
        || model.transformer.as_ref().is_some_and(has_failed)
}

/// Runs the expensive part of loading on a thread that yields to everything else.
fn at_low_priority<T: Send>(work: impl FnOnce() -> Result<T, LoadFaults> + Send) -> Result<T, LoadFaults> {
    let done = crate::config::at_low_priority(work);
    done.map_err(|error| Error::io(&error).context("cannot start a thread to load a policy"))?
}
