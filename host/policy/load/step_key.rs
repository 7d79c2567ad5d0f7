//! Identifies what a step of a pipeline computes, across processes: the model with its files, and
//! everything that runs it.

use crate::executor::CallProfile;
use crate::policy::model::Model;
use crate::policy::plan::{ExecutorPlan, ModelName, Plan, SourcePlan};
use crate::policy::route::Route;
use crate::predict::StepKey;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Returns a key that changes with the weights, plugins, configs and assets of a model and of its
/// executor. `None` if a remote is involved, whose models are not known here.
pub(super) fn step_key(plan: &Plan, models: &BTreeMap<Arc<str>, Model>, route: &Route) -> Option<StepKey> {
    let mut parts = Parts { plan, models, described: BTreeSet::new(), depends_on_all: false };
    parts.add_model(&route.name, route)?;
    let mut hash = Sha256::new();
    for thing in &parts.described {
        hash.update(serde_json::to_vec(&(thing, plan.description.get(thing))).ok()?);
    }
    if parts.depends_on_all {
        hash.update(&plan.digest);
    }
    Some(hash.finalize().into())
}

/// The parts of a plan that decide what a step computes.
struct Parts<'a> {
    plan: &'a Plan,
    models: &'a BTreeMap<Arc<str>, Model>,
    /// Keys of the plan's description.
    described: BTreeSet<String>,
    /// A plugin may call any model of the policy.
    depends_on_all: bool,
}

impl Parts<'_> {
    fn add_model(&mut self, name: &ModelName, route: &Route) -> Option<()> {
        if !self.described.insert(format!("model \"{name}\"")) {
            return Some(());
        }
        let model = self.plan.models.get(name)?;
        match &model.source {
            SourcePlan::Remote { .. } => return None,
            SourcePlan::Onnx { .. } => {}
            SourcePlan::Plugin(plugin) => {
                self.described.insert(format!("plugin \"{plugin}\""));
                self.depends_on_all |=
                    matches!(route.callable.profile(), CallProfile::Suspending | CallProfile::Shared);
            }
            SourcePlan::Pipeline(pipeline) => {
                self.described.insert(format!("pipeline \"{pipeline}\""));
                for step in &self.plan.pipelines.get(pipeline)?.graph.steps {
                    if step.version.is_none() {
                        self.described.insert(format!("routing \"{}\"", step.model));
                    }
                    let versions = self.models.get(&step.model)?.versions.iter();
                    for (_, route) in versions
                        .filter(|(version, _)| step.version.as_ref().is_none_or(|own| own == *version))
                    {
                        self.add_model(&route.name, route)?;
                    }
                }
            }
        }
        self.add_executor(&model.executor)
    }

    fn add_executor(&mut self, name: &Arc<str>) -> Option<()> {
        self.described.insert(format!("executor \"{name}\""));
        match self.plan.executors.get(name)? {
            ExecutorPlan::Triton { .. } => None,
            ExecutorPlan::Pool { .. } | ExecutorPlan::Pipeline { .. } => Some(()),
            ExecutorPlan::Custom { plugin, inner, .. } => {
                self.described.insert(format!("plugin \"{plugin}\""));
                // It may call other models than the one behind it.
                self.depends_on_all = true;
                self.add_executor(&inner.clone())
            }
        }
    }
}
