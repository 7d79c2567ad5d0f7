//! Loads a plan into the content of a policy, part by part, and checks the models.
//!
//! Runs on loader threads, and blocks.

use super::loaded_parts::LoadedParts;
use super::order::in_order;
use super::phases::Phases;
use crate::error::{Error, Result};
use crate::executor::pipeline::PipelineLimits;
use crate::metrics::Metrics;
use crate::plugin::Engine;
use crate::policy::checks;
use crate::policy::content::PolicyContent;
use crate::policy::files::Files;
use crate::policy::model::Model;
use crate::policy::plan::{ExecutorKind, Plan};
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
    /// is ready.
    pub fn load(
        &self,
        plan: Plan,
        files: &Files,
        reuse: &[Arc<PolicyContent>],
        phases: &mut Phases,
    ) -> Result<Arc<PolicyContent>> {
        let mut parts = LoadedParts::default();
        let is_custom = |name: &&Arc<str>| plan.executors[*name].kind() == ExecutorKind::Custom;
        // Executors are started from this thread, because their workers inherit its priority.
        for name in plan.executors.keys().filter(|name| !is_custom(name)) {
            self.executor(name, &plan, files, &mut parts, reuse)?;
        }
        let started = Instant::now();
        at_low_priority(|| self.plugins(&plan, files, &mut parts, reuse))?;
        phases.plugins = started.elapsed();
        for name in plan.executors.keys().filter(is_custom) {
            self.executor(name, &plan, files, &mut parts, reuse)?;
        }
        at_low_priority(|| self.load_into(parts, plan, files, reuse, phases))
    }

    fn load_into(
        &self,
        mut parts: LoadedParts,
        plan: Plan,
        files: &Files,
        reuse: &[Arc<PolicyContent>],
        phases: &mut Phases,
    ) -> Result<Arc<PolicyContent>> {
        let started = Instant::now();
        let mut models: BTreeMap<Arc<str>, Model> = BTreeMap::new();
        for name in in_order(&plan) {
            files.progress.check()?;
            let from = LoadContext { plan: &plan, files, reuse };
            let route = self
                .route(name, from, &models, &mut parts)
                .map_err(|error| error.context(format!("model \"{name}\"")).model(name.to_string()))?;
            let model = models.entry(Arc::clone(&name.name)).or_insert_with(|| Model {
                versions: BTreeMap::new(),
                routing: plan.routing.get(&name.name).cloned(),
            });
            model.versions.insert(Arc::clone(&name.version), Arc::new(route));
        }
        phases.models = started.elapsed();

        let started = Instant::now();
        let executors = parts
            .executors
            .iter()
            .map(|(key, executor)| (Arc::clone(&key.name), Arc::clone(executor)))
            .collect();
        let content = Arc::new(PolicyContent { plan, executors, models, parts });
        self.run_checks(&content, files, reuse)?;
        phases.checks = started.elapsed();
        Ok(content)
    }

    /// Runs the checks of every route that differs from what `reuse` has.
    fn run_checks(
        &self,
        content: &Arc<PolicyContent>,
        files: &Files,
        reuse: &[Arc<PolicyContent>],
    ) -> Result<()> {
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
            for check in &plan.checks {
                let samples = files.read(&check.file)?;
                let cancel = &files.progress.stop;
                let run = checks::run(content, route, check, &samples, timeout, cancel);
                self.runtime
                    .block_on(files.progress.unless_stopped(run))
                    .map_err(|error| error.context(format!("model \"{name}\"")))?;
            }
        }
        Ok(())
    }
}

/// Runs the expensive part of loading on a thread that yields to everything else.
fn at_low_priority<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let done = crate::config::at_low_priority(work);
    done.map_err(|error| Error::io(&error).context("cannot start a thread to load a policy"))?
}
