//! Parts of models and pipelines that steps do not use.

use crate::policy::plan::model_plan::{ModelPlan, SourcePlan};
use crate::policy::plan::plan::Plan;

impl Plan {
    /// Returns one line for each part of a model that the steps of pipelines do not use.
    pub fn unused_by_steps(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for (name, pipeline) in &self.pipelines {
            let is_served =
                |model: &ModelPlan| matches!(&model.source, SourcePlan::Pipeline(served) if served == name);
            if !self.models.values().any(is_served) {
                notes.push(format!(
                    "note: no model serves the pipeline \"{name}\", so its steps were not checked against their models"
                ));
            }
            for step in &pipeline.graph.steps {
                let models = self.models.iter().filter(|(name, _)| {
                    name.name == step.model
                        && step.version.as_ref().is_none_or(|version| *version == name.version)
                });
                for (name, model) in models {
                    let unused =
                        [("transformer", model.transformer.is_some()), ("labels", !model.labels.is_empty())];
                    for (what, _) in unused.into_iter().filter(|(_, is_there)| *is_there) {
                        let pipeline = &pipeline.graph.name;
                        notes.push(format!(
                            "note: pipeline \"{pipeline}\": step \"{}\" sees tensors; the {what} of model \"{name}\" is not used",
                            step.name
                        ));
                    }
                }
            }
        }
        notes
    }
}
