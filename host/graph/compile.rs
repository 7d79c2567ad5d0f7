//! From a graph and the models of its steps to a program, or to everything that is wrong with it.

mod conditions;
mod link;
mod types;

use super::absence;
use super::condition::{Condition, TensorRef};
use super::program::{Program, Scope};
use super::structure::{Wiring, wire};
use super::types::{joined, shown};
use super::{Fault, Graph, Member, Source, Step, StepModel};
use crate::error::did_you_mean;
use crate::predict::{Datatype, Metadata, Tensor, TensorSpec};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The scope of the request itself.
const ROOT: usize = 0;

/// Checks everything that needs the models: `models` are those of the steps, in their order.
pub fn compile(graph: &Arc<Graph>, models: &[StepModel]) -> Result<Program, Vec<Fault>> {
    let wiring = wire(graph)?;
    let mut compiler = Compiler::new(graph, &wiring, models);
    compiler.models();
    compiler.done()?;
    compiler.scopes();
    compiler.done()?;
    compiler.inputs();
    compiler.done()?;
    compiler.edges();
    compiler.outputs();
    compiler.done()?;
    compiler.conditions();
    compiler.done()?;
    let program = compiler.program();
    let faults = absence::check(&program, &wiring.order);
    if faults.is_empty() { Ok(program) } else { Err(faults) }
}

struct Compiler<'a> {
    graph: &'a Arc<Graph>,
    wiring: &'a Wiring,
    models: &'a [StepModel],
    /// By step, what its model takes and gives in every version.
    metadata: Vec<Metadata>,
    scopes: Vec<Scope>,
    scope_of: Vec<usize>,
    items_of: Vec<Option<usize>>,
    /// By step, the streams that must have ended before it.
    ends: Vec<BTreeSet<usize>>,
    /// As steps see them.
    inputs: Vec<TensorSpec>,
    /// As callers see them.
    outputs: Vec<TensorSpec>,
    constants: BTreeMap<(String, usize), Tensor>,
    when: Vec<Option<Condition>>,
    again_while: Vec<Option<Condition>>,
    faults: Vec<Fault>,
}

impl<'a> Compiler<'a> {
    fn new(graph: &'a Arc<Graph>, wiring: &'a Wiring, models: &'a [StepModel]) -> Self {
        let count = graph.steps.len();
        Compiler {
            graph,
            wiring,
            models,
            metadata: Vec::with_capacity(count),
            scopes: vec![Scope { parent: None, stream: None, steps: Vec::new(), gathers: Vec::new() }],
            scope_of: vec![ROOT; count],
            items_of: vec![None; count],
            ends: vec![BTreeSet::new(); count],
            inputs: Vec::new(),
            outputs: Vec::new(),
            constants: BTreeMap::new(),
            when: Vec::new(),
            again_while: Vec::new(),
            faults: Vec::new(),
        }
    }

    fn done(&mut self) -> Result<(), Vec<Fault>> {
        if self.faults.is_empty() { Ok(()) } else { Err(std::mem::take(&mut self.faults)) }
    }

    fn fault(&mut self, place: impl Into<String>, message: impl Into<String>) -> &mut Fault {
        self.faults.push(Fault::new(place, message));
        self.faults.last_mut().expect("invariant: just pushed")
    }

    fn hinted(&mut self, place: impl Into<String>, message: impl Into<String>, hint: impl Into<String>) {
        self.fault(place, message).hint = Some(hint.into());
    }

    /// What each model takes and gives, and the keys of its step that name that.
    fn models(&mut self) {
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
                    "model \"{}\" gives any number of responses, so its step cannot have {key}",
                    step.model
                );
                self.hinted(format!("{place}.{key}"), message, "gather its items in a step behind it");
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
                        "take the ? away; the step is then skipped where the tensor is absent",
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
                "a router gives names (BYTES) or places in among (integers)",
            );
        }
    }

    /// In which scope every step is: that of the request, or that of the items of a stream.
    fn scopes(&mut self) {
        for &at in &self.wiring.order {
            let step = &self.graph.steps[at];
            let place = format!("steps.{}", step.name);
            let mut scope = ROOT;
            for (name, source) in &step.inputs {
                for read in self.scopes_read(&format!("{place}.in.{name}"), source) {
                    scope = self.met(&format!("{place}.in.{name}"), scope, read);
                }
            }
            let conditions = step.when.iter().chain(step.looped.iter().map(|looped| &looped.again_while));
            for condition in conditions {
                for tensor in condition.tensors() {
                    if let TensorRef::Output { step: of, .. } = tensor {
                        let read = self.scope_of_outputs(self.graph.index(of).unwrap_or(at));
                        scope = self.met(&format!("{place}.when"), scope, read);
                    }
                }
            }
            let referenced = self.referenced(at);
            for &other in &referenced {
                scope = self.met(&format!("{place}.after"), scope, self.scope_of[other]);
            }
            if step.detach && (scope != ROOT || self.graph.streaming) {
                let message = format!("step \"{}\" belongs to a stream and cannot be detached", step.name);
                self.hinted(format!("{place}.detach"), message, "gather the items in a detached step");
            }
            self.scope_of[at] = scope;
            self.scopes[scope].steps.push(at);
            let mut ends = BTreeSet::new();
            step.inputs.iter().for_each(|(_, source)| self.ends_of(source, &mut ends));
            for &other in &referenced {
                ends.extend(self.items_of[other].map(|_| other));
                ends.extend(self.ends[other].iter().copied());
            }
            self.may_wait(&place, scope, &ends);
            self.ends[at] = ends;
            if self.metadata[at].streaming {
                self.items_of[at] = Some(self.scopes.len());
                let parent = Some(scope);
                self.scopes.push(Scope { parent, stream: Some(at), steps: Vec::new(), gathers: Vec::new() });
            }
        }
    }

    /// The steps that must be over before this one, but for those whose items it reads.
    fn referenced(&self, at: usize) -> Vec<usize> {
        let step = &self.graph.steps[at];
        let conditions = step.when.iter().chain(step.looped.iter().map(|looped| &looped.again_while));
        let status = conditions.flat_map(|condition| {
            let is_tensor = |name: &Arc<str>| {
                condition
                    .tensors()
                    .into_iter()
                    .any(|tensor| matches!(tensor, TensorRef::Output { step, .. } if step == name))
            };
            condition.steps().into_iter().filter(move |name| !is_tensor(name))
        });
        let names = step.after.iter().chain(status).filter(|name| **name != step.name);
        let steps = names.filter_map(|name| self.graph.index(name));
        steps.chain(self.wiring.chosen_by[at].iter().copied()).collect()
    }

    /// The streams that must have ended before what a source reads is there.
    fn ends_of(&self, source: &Source, ends: &mut BTreeSet<usize>) {
        for step in source.steps().filter_map(|name| self.graph.index(name)) {
            ends.extend(self.ends[step].iter().copied());
            if source.gather.is_some() {
                ends.extend(self.scopes[self.scope_of_outputs(step)].stream);
            }
        }
    }

    /// What belongs to an item cannot wait for the end of its own stream.
    fn may_wait(&mut self, place: &str, scope: usize, ends: &BTreeSet<usize>) {
        let own = ends
            .iter()
            .find(|stream| self.items_of[**stream].is_some_and(|items| self.is_within(scope, items)));
        if let Some(&stream) = own {
            let name = &self.graph.steps[stream].name;
            let message =
                format!("it is made for each item of \"{name}\", and waits for the end of \"{name}\"");
            self.hinted(place, message, "do what needs all items in a step that reads no single one of them");
        }
    }

    fn scope_of_outputs(&self, step: usize) -> usize {
        self.items_of[step].unwrap_or(self.scope_of[step])
    }

    fn is_within(&self, inner: usize, outer: usize) -> bool {
        std::iter::successors(Some(inner), |scope| self.scopes[*scope].parent).any(|scope| scope == outer)
    }

    /// The inner of two scopes of which one lies in the other.
    fn met(&mut self, place: &str, a: usize, b: usize) -> usize {
        if self.is_within(a, b) {
            return a;
        }
        if !self.is_within(b, a) {
            let name =
                |scope: usize| self.scopes[scope].stream.map_or("", |step| &*self.graph.steps[step].name);
            let message =
                format!("items of the streams \"{}\" and \"{}\" cannot be joined", name(a), name(b));
            self.hinted(place, message, "gather one of them: { from = \"STEP.OUTPUT\", gather = \"stack\" }");
        }
        b
    }

    /// The scopes of what a source reads.
    fn scopes_read(&mut self, place: &str, source: &Source) -> Vec<usize> {
        let mut read = Vec::new();
        for member in &source.members {
            let scope = match member {
                Member::Output { step, .. } => {
                    self.graph.index(step).map_or(ROOT, |step| self.scope_of_outputs(step))
                }
                Member::Input(_) | Member::Const(_) => ROOT,
            };
            match (source.gather, self.scopes[scope].parent) {
                (None, _) => read.push(scope),
                (Some(_), Some(parent)) => read.push(parent),
                (Some(_), None) => {
                    self.fault(place, format!("{member} is not of a stream, so there is nothing to gather"));
                }
            }
        }
        read
    }
}
