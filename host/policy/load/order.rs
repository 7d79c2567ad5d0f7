//! The order in which the models of a plan are loaded.

use crate::policy::model_name::ModelName;
use crate::policy::plan::pipelines::inner_pipelines;
use crate::policy::plan::{Plan, SourcePlan};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Returns the models of a plan; those of a pipeline's steps come before the pipeline.
pub(super) fn in_order(plan: &Plan) -> Vec<&ModelName> {
    let pipeline_of = |name: &ModelName| match &plan.models[name].source {
        SourcePlan::Pipeline(pipeline) => Some(pipeline),
        _ => None,
    };
    let (mut open, mut order): (Vec<&ModelName>, Vec<&ModelName>) =
        plan.models.keys().partition(|name| pipeline_of(name).is_some());
    let mut ready: BTreeSet<&Arc<str>> = BTreeSet::new();
    // No pipeline contains itself, so each round finds at least one whose inner pipelines are
    // ready.
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
                    let is_ready = pipeline_of(model) == Some(*name);
                    if is_ready {
                        order.push(model);
                    }
                    !is_ready
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
