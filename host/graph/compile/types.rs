//! Datatypes and shapes: of every edge, and of the inputs and outputs that callers see.

use super::compiler::{Compiler, ROOT};
use crate::error::did_you_mean;
use crate::graph::condition::TensorRef;
use crate::graph::definition::{Gather, Member, Source};
use crate::graph::types::{mismatch, narrowed, shown, widened, with_rows};
use crate::predict::{self, MemoryBudget, TensorSpec};
use std::sync::Arc;

impl Compiler<'_> {
    /// Returns the spec of a member's tensor. A constant has none: it takes the spec that is
    /// wanted.
    pub(super) fn given(&self, member: &Member, gather: Option<Gather>) -> Option<TensorSpec> {
        match member {
            Member::Const(_) => None,
            Member::Input(name) => self.inputs.iter().find(|spec| spec.name == *name).cloned(),
            Member::Output { step, output } => {
                let at = self.graph.index(step)?;
                let spec = self.metadata[at].outputs.iter().find(|spec| spec.name == *output)?;
                let is_cut = self.graph.steps[at].each.is_some();
                let spec = if is_cut { with_rows(spec, -1) } else { spec.clone() };
                Some(if gather == Some(Gather::Stack) { with_rows(&spec, -1) } else { spec })
            }
        }
    }

    /// Returns the spec that the step's model requires of the source of an input.
    fn wanted(&self, at: usize, name: &str) -> Option<TensorSpec> {
        let step = &self.graph.steps[at];
        let spec = self.metadata[at].inputs.iter().find(|spec| *spec.name == *name)?;
        let is_cut = step.each.as_ref().is_some_and(|each| each.split.iter().any(|split| **split == *name));
        Some(if is_cut { with_rows(spec, -1) } else { spec.clone() })
    }

    /// Determines the inputs of the pipeline: as declared, or inferred from what the steps read.
    pub(super) fn inputs(&mut self) {
        if let Some(declared) = &self.graph.inputs {
            for input in declared {
                let spec = TensorSpec {
                    name: Arc::clone(&input.name),
                    datatype: input.datatype,
                    shape: input.shape.clone(),
                    optional: input.optional,
                };
                if self.graph.each_row && !spec.shape.has_free_rows() {
                    let message = format!(
                        "rows = \"each\" needs a free first dimension, and the input is {}",
                        shown(&spec)
                    );
                    self.hinted(format!("inputs.{}", input.name), message, "write -1 for it");
                }
                let spec = if self.graph.each_row { with_rows(&spec, 1) } else { spec };
                self.inputs.push(spec);
            }
            return;
        }
        for at in 0..self.graph.steps.len() {
            let step = &self.graph.steps[at];
            for (name, source) in &step.inputs {
                for member in &source.members {
                    let (Member::Input(input), Some(wanted)) = (member, self.wanted(at, name)) else {
                        continue;
                    };
                    let optional = source.optional || source.members.len() > 1;
                    let spec = TensorSpec { name: Arc::clone(input), optional, ..wanted };
                    self.infer(&format!("steps.{}.in.{name}", step.name), spec);
                }
            }
        }
        let graph = Arc::clone(self.graph);
        let referenced = graph.steps.iter().flat_map(|step| {
            let conditions = step.when.iter().chain(step.looped.iter().map(|looped| &looped.again_while));
            let names = conditions.flat_map(|condition| condition.tensors());
            names.map(move |tensor| (format!("steps.{}.when", step.name), tensor.clone()))
        });
        let passed = graph.outputs.iter().flat_map(|(name, source)| {
            source.members.iter().filter_map(move |member| match member {
                Member::Input(input) => {
                    Some((format!("outputs.{name}"), TensorRef::Input(Arc::clone(input))))
                }
                _ => None,
            })
        });
        for (place, tensor) in referenced.chain(passed) {
            if let TensorRef::Input(name) = tensor
                && !self.inputs.iter().any(|spec| spec.name == name)
            {
                let message = format!("no step determines the datatype and shape of the input \"{name}\"");
                self.hinted(place, message, format!("declare it: inputs = {{ {name} = \"FP32[-1]\" }}"));
            }
        }
    }

    fn infer(&mut self, place: &str, mut spec: TensorSpec) {
        if self.graph.each_row {
            let rows = spec.shape.dimensions().map(|dimensions| dimensions.first().copied());
            if rows.is_some_and(|rows| rows.is_none_or(|rows| rows > 1)) {
                let message =
                    format!("rows = \"each\" passes one row at a time, but this input is {}", shown(&spec));
                self.fault(place, message);
            }
            spec = with_rows(&spec, 1);
        }
        let Some(known) = self.inputs.iter_mut().find(|known| known.name == spec.name) else {
            self.inputs.push(spec);
            return;
        };
        match narrowed(known, &spec) {
            Some(both) => *known = both,
            None => {
                let message = format!(
                    "the input \"{}\" is {} here and {} elsewhere",
                    spec.name,
                    shown(&spec),
                    shown(known)
                );
                self.fault(place, message);
            }
        }
    }

    /// Checks datatypes and shapes along every edge.
    pub(super) fn edges(&mut self) {
        for at in 0..self.graph.steps.len() {
            let step = &self.graph.steps[at];
            for (name, source) in &step.inputs {
                let Some(wanted) = self.wanted(at, name) else { continue };
                self.fits(&format!("steps.{}.in.{name}", step.name), source, &wanted);
            }
            for (input, output) in step.looped.iter().flat_map(|looped| &looped.carry) {
                let wanted = self.wanted(at, input);
                let given = self.metadata[at].outputs.iter().find(|spec| spec.name == *output);
                if let (Some(given), Some(wanted)) = (given, wanted)
                    && let Some(why) = mismatch(given, &wanted)
                {
                    self.fault(
                        format!("steps.{}.loop.carry", step.name),
                        format!("\"{output}\" into \"{input}\": {why}"),
                    );
                }
            }
            self.parts(at);
        }
    }

    /// Checks that the inputs of `each` can be split and the outputs stacked.
    fn parts(&mut self, at: usize) {
        let step = &self.graph.steps[at];
        let Some(each) = &step.each else { return };
        let place = format!("steps.{}.each", step.name);
        for name in &each.split {
            let Some(spec) = self.metadata[at].inputs.iter().find(|spec| spec.name == *name) else {
                continue;
            };
            let is_one_row = || spec.shape.on_wire().first() == Some(&1);
            if !(spec.shape.has_free_rows() || is_one_row() && each.rows == 1) {
                let message = format!(
                    "parts of up to {} rows do not fit the input \"{name}\", {}",
                    each.rows,
                    shown(spec)
                );
                self.hinted(&place, message, "set rows = 1, or use a model whose first dimension is free");
            }
        }
        if let Some(spec) = self.metadata[at].outputs.iter().find(|spec| spec.shape.is_scalar()) {
            let message =
                format!("the output \"{}\" has no dimension along which parts could be stacked", spec.name);
            self.fault(&place, message);
        }
    }

    fn fits(&mut self, place: &str, source: &Source, wanted: &TensorSpec) {
        for (number, member) in source.members.iter().enumerate() {
            match member {
                Member::Const(json) => self.constant(place, number, json, wanted),
                _ => match self.given(member, source.gather) {
                    Some(given) => {
                        if let Some(why) = mismatch(&given, wanted) {
                            self.fault(place, format!("{member} -> {}: {why}", wanted.name));
                        }
                    }
                    None => self.unknown_output(place, member),
                },
            }
        }
    }

    fn unknown_output(&mut self, place: &str, member: &Member) {
        let Member::Output { step, output } = member else { return };
        let Some(at) = self.graph.index(step) else { return };
        let known: Vec<String> = self.metadata[at].outputs.iter().map(|spec| spec.name.to_string()).collect();
        let hint = did_you_mean(output, known.iter().map(String::as_str));
        let message = format!(
            "step \"{step}\" (model \"{}\") has no output \"{output}\"{hint}",
            self.graph.steps[at].model
        );
        self.hinted(place, message, format!("outputs: {}", known.join(", ")));
    }

    fn constant(&mut self, place: &str, number: usize, json: &str, wanted: &TensorSpec) {
        let decoded = predict::decode_tensor(wanted, json, None, &mut MemoryBudget::unlimited());
        match decoded {
            Ok(tensor) if wanted.shape.accepts(tensor.shape()) => {
                self.constants.insert((place.to_owned(), number), tensor);
            }
            Ok(tensor) => {
                let got = predict::format_shape(tensor.shape());
                self.fault(place, format!("the constant has shape {got}, expected {}", shown(wanted)));
            }
            Err(error) => {
                self.fault(place, format!("the constant is not {}: {error}", shown(wanted)));
            }
        }
    }

    /// Determines the outputs that callers get, and their scope.
    pub(super) fn outputs(&mut self) {
        let graph = Arc::clone(self.graph);
        let mut scope = ROOT;
        for (name, source) in &graph.outputs {
            let place = format!("outputs.{name}");
            for read in self.scopes_read(&place, source) {
                scope = self.met(&place, scope, read);
            }
            if scope != ROOT && !graph.streaming {
                let message = format!("the output \"{name}\" is of a stream");
                let hint = "gather it, { from = \"STEP.OUTPUT\", gather = \"stack\" }, or set streaming = true on the pipeline";
                self.hinted(&place, message, hint);
            }
            let mut spec: Option<TensorSpec> = None;
            for member in source.members.iter().filter(|member| !matches!(member, Member::Const(_))) {
                let Some(given) = self.given(member, source.gather) else {
                    self.unknown_output(&place, member);
                    continue;
                };
                spec = match &spec {
                    None => Some(given),
                    Some(known) => match widened(known, &given) {
                        Some(both) => Some(both),
                        None => {
                            let message = format!(
                                "{member} is {}, but the member before it is {}",
                                shown(&given),
                                shown(known)
                            );
                            self.fault(&place, message);
                            Some(known.clone())
                        }
                    },
                };
            }
            let Some(spec) = spec else {
                if self.faults.is_empty() {
                    self.fault(&place, "the output is a constant only");
                }
                continue;
            };
            let spec = TensorSpec { name: Arc::clone(name), optional: source.optional, ..spec };
            for (number, member) in source.members.iter().enumerate() {
                if let Member::Const(json) = member {
                    self.constant(&place, number, json, &spec);
                }
            }
            if graph.each_row && spec.shape.is_scalar() {
                self.fault(&place, "rows = \"each\" stacks the outputs, and this one is a scalar");
            }
            self.outputs.push(if graph.each_row { with_rows(&spec, -1) } else { spec });
        }
        let mut ends = std::collections::BTreeSet::new();
        graph.outputs.iter().for_each(|(_, source)| self.ends_of(source, &mut ends));
        self.may_wait("outputs", scope, &ends);
        let depth = std::iter::successors(Some(scope), |scope| self.scopes[*scope].parent).count();
        if graph.streaming && scope == ROOT {
            self.hinted(
                "streaming",
                "no output is of a stream, so the pipeline cannot stream",
                "remove streaming",
            );
        } else if depth > 2 {
            self.hinted("outputs", "the outputs are of a stream within a stream", "gather the inner one");
        }
        if graph.each_row && self.inputs.is_empty() {
            self.hinted("rows", "rows = \"each\" needs an input with rows", "remove rows");
        }
        if graph.streaming && graph.each_row {
            self.fault("rows", "a streaming pipeline cannot have rows = \"each\"");
        }
    }
}
