//! Checks the types of the conditions.

use super::compiler::Compiler;
use crate::error::did_you_mean;
use crate::graph::condition::{self, Condition, TensorRef};
use crate::graph::definition::Member;
use crate::predict::{Datatype, ShapeSpec};
use std::sync::Arc;

impl Compiler<'_> {
    pub(super) fn conditions(&mut self) {
        for at in 0..self.graph.steps.len() {
            let step = &self.graph.steps[at];
            let when = step.when.clone().map(|condition| self.typed(at, "when", condition));
            let looped = step.looped.as_ref().map(|looped| looped.again_while.clone());
            let again = looped.map(|condition| self.typed(at, "loop.while", condition));
            self.when.push(when);
            self.again_while.push(again);
        }
    }

    fn typed(&mut self, at: usize, key: &str, mut condition: Condition) -> Condition {
        let names = Names { compiler: self, at };
        if let Err(fault) = condition::check(&mut condition, &names) {
            let place = format!("steps.{}.{key}", self.graph.steps[at].name);
            let shown = self.fault(place, fault.message);
            shown.hint = fault.hint;
            shown.within = Some(fault.at);
        }
        condition
    }
}

/// What the conditions of a step may name.
struct Names<'a, 'b> {
    compiler: &'a Compiler<'b>,
    at: usize,
}

impl condition::Scope for Names<'_, '_> {
    fn tensor(&self, of: &TensorRef) -> Result<(Datatype, ShapeSpec), String> {
        let compiler = self.compiler;
        let (step, output) = match of {
            TensorRef::Input(name) => {
                let spec = compiler.inputs.iter().find(|spec| spec.name == *name);
                let spec = spec.ok_or_else(|| format!("the pipeline has no input \"{name}\""))?;
                return Ok((spec.datatype, spec.shape.clone()));
            }
            TensorRef::Output { step, output } => {
                (compiler.graph.index(step).ok_or_else(|| format!("no step \"{step}\""))?, output)
            }
            TensorRef::Own(output) => (self.at, output),
        };
        let outputs = &compiler.metadata[step].outputs;
        let name = &compiler.graph.steps[step].name;
        let member = Member::Output { step: Arc::clone(name), output: Arc::clone(output) };
        let spec = compiler.given(&member, None).ok_or_else(|| {
            let hint = did_you_mean(output, outputs.iter().map(|spec| &*spec.name));
            format!("step \"{name}\" has no output \"{output}\"{hint}")
        })?;
        Ok((spec.datatype, spec.shape.clone()))
    }

    fn step(&self, name: &str) -> Result<(), String> {
        let known = self.compiler.graph.index(name).map(|_| ());
        known.ok_or_else(|| {
            let steps = self.compiler.graph.steps.iter().map(|step| &*step.name);
            format!("no step \"{name}\"{}", did_you_mean(name, steps))
        })
    }

    fn is_one_row(&self) -> bool {
        self.compiler.graph.each_row
    }
}
