//! The models of the steps: their inputs and outputs, and the keys of a step that name those.

use super::compiler::Compiler;
use crate::error::did_you_mean;
use crate::graph::definition::Step;
use crate::graph::types::{joined, shown};
use crate::predict::{Datatype, Metadata};

impl Compiler<'_> {
    /// Collects the metadata of each step's model, and checks the keys that name its inputs and
    /// outputs.
    pub(super) fn models(&mut self) {
        for (step, model) in self.graph.steps.iter().zip(self.models) {
            let place = format!("steps.{}", step.name);
            let metadata = joined(&model.versions).unwrap_or_else(|why| {
                self.fault(format!("{place}.model"), format!("model \"{}\": {why}", step.model));
                model.versions.first().map(|(_, metadata)| metadata.clone()).unwrap_or_default()
            });
            self.step_keys(step, &metadata, &place);
            self.metadata.push(metadata);
        }
    }

    fn step_keys(&mut self, step: &Step, metadata: &Metadata, place: &str) {
        let outputs = || metadata.outputs.iter().map(|spec| &*spec.name);
        let choice = step.choose.iter().map(|choose| ("choose.by", &choose.by));
        let omitted = step.may_omit.iter().map(|name| ("may_omit", name));
        let carried =
            step.looped.iter().flat_map(|looped| &looped.carry).map(|(_, from)| ("loop.carry", from));
        for (key, name) in choice.chain(omitted).chain(carried) {
            if !outputs().any(|known| *known == **name) {
                let known = outputs().collect::<Vec<_>>().join(", ");
                let message = format!(
                    "model \"{}\" has no output \"{name}\"{}",
                    step.model,
                    did_you_mean(name, outputs())
                );
                self.hinted(format!("{place}.{key}"), message, format!("outputs: {known}"));
            }
        }
        if metadata.streaming {
            let keys = [
                ("each", step.each.is_some()),
                ("loop", step.looped.is_some()),
                ("retry", step.retry.is_some()),
                ("choose", step.choose.is_some()),
                ("detach", step.detach),
            ];
            for (key, _) in keys.into_iter().filter(|(_, is_set)| *is_set) {
                let message = format!(
                    "model \"{}\" returns any number of responses, so its step cannot have {key}",
                    step.model
                );
                self.hinted(format!("{place}.{key}"), message, "gather its items in a later step");
            }
        }
        for (name, source) in &step.inputs {
            let place = format!("{place}.in.{name}");
            match metadata.inputs.iter().find(|spec| spec.name == *name) {
                None => {
                    let known = metadata.inputs.iter().map(|spec| &*spec.name);
                    let hint = did_you_mean(name, known.clone());
                    let known = known.collect::<Vec<_>>().join(", ");
                    let message = format!("model \"{}\" has no input \"{name}\"{hint}", step.model);
                    self.hinted(place, message, format!("inputs: {known}"));
                }
                Some(spec) if source.optional && !spec.optional => {
                    let message = format!(
                        "model \"{}\" needs its input \"{name}\", so it cannot be left out",
                        step.model
                    );
                    self.hinted(
                        place,
                        message,
                        "remove the ?; the step is then skipped if the tensor is absent",
                    );
                }
                Some(_) => {}
            }
        }
        for spec in metadata.inputs.iter().filter(|spec| !spec.optional) {
            if !step.inputs.iter().any(|(name, _)| *name == spec.name) {
                let message = format!(
                    "nothing feeds the input \"{}\" ({}) of model \"{}\"",
                    spec.name,
                    shown(spec),
                    step.model
                );
                let hint = format!("add {} = \"STEP.OUTPUT\" or \"input.NAME\" to in", spec.name);
                self.hinted(format!("{place}.in"), message, hint);
            }
        }
        if let Some(choose) = &step.choose
            && let Some(spec) = metadata.outputs.iter().find(|spec| spec.name == choose.by)
            && matches!(
                spec.datatype,
                Datatype::Bool | Datatype::Fp16 | Datatype::Bf16 | Datatype::Fp32 | Datatype::Fp64
            )
        {
            let message = format!("choose.by = \"{}\" is {}", choose.by, shown(spec));
            self.hinted(
                format!("{place}.choose.by"),
                message,
                "a router returns names (BYTES) or positions in among (integers)",
            );
        }
    }
}
