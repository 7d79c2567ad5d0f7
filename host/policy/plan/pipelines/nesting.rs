//! Pipelines within pipelines: cycles, and depth.

use crate::policy::model_name::ModelName;
use crate::policy::plan::model_plan::{ModelPlan, SourcePlan};
use crate::policy::plan::pipeline_plan::PipelinePlan;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How deep pipelines may be nested.
pub(super) const DEPTH_MAX: usize = 256;

/// Returns the pipelines that each pipeline's steps call.
fn calls<'a>(
    pipelines: &'a BTreeMap<Arc<str>, PipelinePlan>,
    models: &BTreeMap<ModelName, ModelPlan>,
) -> BTreeMap<&'a Arc<str>, Vec<Arc<str>>> {
    pipelines.iter().map(|(name, pipeline)| (name, inner_pipelines(pipeline, models))).collect()
}

/// Returns a path from a pipeline back to itself, if there is one.
pub(super) fn cycle(
    pipelines: &BTreeMap<Arc<str>, PipelinePlan>,
    models: &BTreeMap<ModelName, ModelPlan>,
) -> Option<Vec<String>> {
    let calls = calls(pipelines, models);
    // Pipelines that are in no cycle.
    let mut done: BTreeSet<&Arc<str>> = BTreeSet::new();
    for root in calls.keys() {
        // Without recursion, since the nesting may be as deep as there are pipelines.
        let mut path: Vec<(&Arc<str>, usize)> = vec![(root, 0)];
        while let Some((name, next)) = path.last_mut() {
            let name = *name;
            let Some(inner) = calls.get(name).and_then(|calls| calls.get(*next)) else {
                done.insert(name);
                path.pop();
                continue;
            };
            *next += 1;
            if let Some(start) = path.iter().position(|(known, _)| *known == inner) {
                let names = path[start..].iter().map(|(name, _)| name.to_string());
                return Some(names.chain([inner.to_string()]).collect());
            }
            if let Some((inner, _)) = calls.get_key_value(inner).filter(|(inner, _)| !done.contains(*inner)) {
                path.push((inner, 0));
            }
        }
    }
    None
}

/// Returns a pipeline that is nested too deep inside others. There must be no cycle.
pub(super) fn too_deep(
    pipelines: &BTreeMap<Arc<str>, PipelinePlan>,
    models: &BTreeMap<ModelName, ModelPlan>,
) -> Option<Arc<str>> {
    let calls = calls(pipelines, models);
    let mut level: BTreeSet<Arc<str>> = calls.keys().map(|name| Arc::clone(name)).collect();
    for _ in 0..DEPTH_MAX {
        level = level.iter().flat_map(|name| calls.get(name).into_iter().flatten()).cloned().collect();
    }
    level.into_iter().next()
}

/// Returns the pipelines that are models of a pipeline's steps.
pub(in crate::policy) fn inner_pipelines(
    pipeline: &PipelinePlan,
    models: &BTreeMap<ModelName, ModelPlan>,
) -> Vec<Arc<str>> {
    let mut inner = Vec::new();
    for step in &pipeline.graph.steps {
        for (name, plan) in models.iter().filter(|(name, _)| name.name == step.model) {
            let is_used = step.version.as_ref().is_none_or(|version| *version == name.version);
            if let (true, SourcePlan::Pipeline(pipeline)) = (is_used, &plan.source) {
                inner.push(Arc::clone(pipeline));
            }
        }
    }
    inner
}
