//! Whether a step of a frame waits, runs or is skipped, and why.

use super::frame::State;
use super::run::Run;
use super::snapshot::Snapshot;
use crate::error::{Error, Kind, Result};
use crate::graph::condition::{self, Environment, TensorRef};
use crate::graph::{Need, ValueRef};
use crate::predict::{Datatype, Parameter, Tensor};
use smallvec::SmallVec;
use std::borrow::Cow;
use std::sync::Arc;

pub(super) enum Verdict {
    Wait,
    Skip(String),
    /// With these inputs; whether all of them are the pipeline's own, as the caller gave them.
    Run(Vec<Tensor>, bool),
}

/// A value of a frame.
pub(super) enum Found<'f> {
    Pending,
    Absent,
    There(Cow<'f, Tensor>),
}

/// The inputs of one need.
enum Fed {
    Pending,
    Absent,
    With(usize),
}

impl<'a> Run<'a> {
    pub(super) fn verdict(&self, frame: usize, step: usize) -> Result<Verdict> {
        let program = &self.program.steps[step];
        let mut waits = false;
        for &router in &program.chosen_by {
            match self.is_over(frame, router) {
                false => waits = true,
                true if !self.is_chosen(frame, router, step) => {
                    let router = &self.program.steps[router].name;
                    return Ok(Verdict::Skip(format!("\"{router}\" did not choose it")));
                }
                true => {}
            }
        }
        let mut members: SmallVec<[Option<usize>; 4]> = SmallVec::new();
        for need in &program.needs {
            match self.fed(frame, need)? {
                Fed::Pending => {
                    waits = true;
                    members.push(None);
                }
                Fed::With(member) => members.push(Some(member)),
                Fed::Absent if need.optional => members.push(None),
                Fed::Absent => {
                    let input = &program.inputs[need.inputs[0]];
                    return Ok(Verdict::Skip(format!("its input \"{input}\" is absent")));
                }
            }
        }
        waits |= program.after.iter().chain(&program.asks).any(|&other| !self.is_over(frame, other));
        if waits {
            return Ok(Verdict::Wait);
        }
        if let Some(when) = &program.when {
            let view = View { run: self, frame };
            let holds = condition::evaluate(when, &view);
            let error = |error: Error| {
                // Where it looks at nothing else, what is wrong is in the request.
                let is_callers = error.kind() == Kind::Failed && when.steps().is_empty();
                let error = if is_callers { Error::invalid(error.message()) } else { error };
                self.named(step, error.context(format!("when = {}", when.quoted())))
            };
            if !holds.map_err(error)? {
                return Ok(Verdict::Skip(format!("when = {} is false", when.quoted())));
            }
        }
        let (mut inputs, mut are_callers) = (Vec::with_capacity(program.inputs.len()), true);
        for (need, member) in program.needs.iter().zip(members) {
            let Some(member) = member else { continue };
            for (&input, value) in need.inputs.iter().zip(&need.members[member]) {
                are_callers &= matches!(value, ValueRef::Input(_));
                if let Found::There(tensor) = self.value(frame, value)? {
                    inputs.push(tensor.renamed(Arc::clone(&program.inputs[input])));
                }
            }
        }
        let are_callers = are_callers && !inputs.is_empty();
        Ok(Verdict::Run(inputs, are_callers))
    }

    /// The first member of which everything is there.
    fn fed(&self, frame: usize, need: &'a Need) -> Result<Fed> {
        for (at, values) in need.members.iter().enumerate() {
            let mut is_absent = false;
            let mut is_pending = false;
            for value in values {
                match self.value(frame, value)? {
                    Found::Pending => is_pending = true,
                    Found::Absent => is_absent = true,
                    Found::There(_) => {}
                }
            }
            if is_absent {
                continue;
            }
            return Ok(if is_pending { Fed::Pending } else { Fed::With(at) });
        }
        Ok(Fed::Absent)
    }

    /// The frame of a scope around a frame.
    fn around(&self, frame: usize, scope: usize) -> Option<usize> {
        std::iter::successors(Some(frame), |at| self.frames[*at].parent)
            .find(|at| self.frames[*at].scope == scope)
    }

    pub(super) fn is_over(&self, frame: usize, step: usize) -> bool {
        // One that nobody asked for is never decided, and never waited for.
        if !self.is_active[step] {
            return true;
        }
        let at = self.around(frame, self.program.steps[step].scope);
        at.is_some_and(|at| self.frames[at].cells[step].state == State::Over)
    }

    fn is_chosen(&self, frame: usize, router: usize, step: usize) -> bool {
        let Some(at) = self.around(frame, self.program.steps[router].scope) else { return false };
        let Some(choice) = &self.program.steps[router].choice else { return false };
        let place = choice.among.iter().position(|&among| among == step);
        place.is_some_and(|place| self.frames[at].cells[router].chosen.get(place).copied().unwrap_or(false))
    }

    pub(super) fn value(&self, frame: usize, value: &'a ValueRef) -> Result<Found<'_>> {
        Ok(match value {
            ValueRef::Const(tensor) => Found::There(Cow::Borrowed(tensor)),
            ValueRef::Input(input) => {
                let root = self.around(frame, super::run::ROOT);
                let held = root.and_then(|root| self.frames[root].inputs.get(*input));
                held.and_then(|held| held.tensor.as_ref())
                    .map_or(Found::Absent, |tensor| Found::There(Cow::Borrowed(tensor)))
            }
            ValueRef::Output(step, output) => {
                let Some(at) = self.around(frame, self.program.scope_of_outputs(*step)) else {
                    return Ok(Found::Pending);
                };
                let cell = &self.frames[at].cells[*step];
                match &cell.values[*output].tensor {
                    _ if cell.state != State::Over => Found::Pending,
                    Some(tensor) => Found::There(Cow::Borrowed(tensor)),
                    None => Found::Absent,
                }
            }
            ValueRef::Gathered(of) => {
                let Some(at) = self.around(frame, self.program.steps[of.stream].scope) else {
                    return Ok(Found::Pending);
                };
                if self.frames[at].cells[of.stream].state != State::Over {
                    return Ok(Found::Pending);
                }
                self.gathered(at, of)?.map_or(Found::Absent, |tensor| Found::There(Cow::Owned(tensor)))
            }
        })
    }

    /// An output of the pipeline, once it is known: the first member that is there.
    pub(super) fn output(&self, frame: usize, output: usize) -> Result<Option<Option<Tensor>>> {
        let program = &self.program.outputs[output];
        for value in &program.members {
            match self.value(frame, value)? {
                Found::Pending => return Ok(None),
                Found::Absent => {}
                Found::There(tensor) => return Ok(Some(Some(tensor.renamed(Arc::clone(&program.name))))),
            }
        }
        Ok(Some(None))
    }

    /// Which of its successors a router has named.
    pub(super) fn chosen(&self, step: usize, by: Option<&Tensor>) -> Result<SmallVec<[bool; 4]>> {
        let choice = self.program.steps[step].choice.as_ref().expect("invariant: asked of a router");
        let mut chosen: SmallVec<[bool; 4]> = choice.among.iter().map(|_| false).collect();
        let Some(by) = by else { return Ok(chosen) };
        let names = || {
            let names = choice.among.iter().map(|&step| &*self.program.steps[step].name);
            names.collect::<Vec<_>>().join(", ")
        };
        if by.datatype() == Datatype::Bytes {
            for name in by.elements() {
                let at =
                    choice.among.iter().position(|&step| self.program.steps[step].name.as_bytes() == name);
                match at {
                    Some(at) => chosen[at] = true,
                    None => {
                        let name: String = String::from_utf8_lossy(name).chars().take(64).collect();
                        let message = format!("it chose \"{name}\", which is not among {}", names());
                        return Err(Error::failed(message));
                    }
                }
            }
            return Ok(chosen);
        }
        for at in integers(by) {
            match usize::try_from(at).ok().and_then(|at| chosen.get_mut(at)) {
                Some(chosen) => *chosen = true,
                None => {
                    let count = choice.among.len();
                    let message =
                        format!("it chose number {at}; among has {count} steps, from 0: {}", names());
                    return Err(Error::failed(message));
                }
            }
        }
        Ok(chosen)
    }

    /// What the condition of a loop may ask about.
    pub(super) fn snapshot(&self, frame: usize, step: usize) -> Snapshot {
        let condition = self.program.steps[step].again_while.as_ref();
        let view = View { run: self, frame };
        let tensors = condition.iter().flat_map(|condition| condition.tensors());
        let steps = condition.iter().flat_map(|condition| condition.steps());
        Snapshot {
            context: Arc::clone(self.context),
            tensors: tensors.filter_map(|of| Some((of.clone(), view.tensor(of)?.clone()))).collect(),
            steps: steps.map(|step| (Arc::clone(step), view.ran(step), view.error(step))).collect(),
            bucket: (self.model.bucket)(self.context),
        }
    }
}

/// The elements of a tensor of whole numbers.
fn integers(tensor: &Tensor) -> Vec<i128> {
    fn all<const N: usize>(data: &[u8], read: impl Fn([u8; N]) -> i128) -> Vec<i128> {
        data.chunks_exact(N).filter_map(|chunk| chunk.first_chunk().copied()).map(read).collect()
    }
    let data = tensor.data();
    match tensor.datatype() {
        Datatype::Uint8 => all(data, |bytes| u8::from_le_bytes(bytes).into()),
        Datatype::Uint16 => all(data, |bytes| u16::from_le_bytes(bytes).into()),
        Datatype::Uint32 => all(data, |bytes| u32::from_le_bytes(bytes).into()),
        Datatype::Uint64 => all(data, |bytes| u64::from_le_bytes(bytes).into()),
        Datatype::Int8 => all(data, |bytes| i8::from_le_bytes(bytes).into()),
        Datatype::Int16 => all(data, |bytes| i16::from_le_bytes(bytes).into()),
        Datatype::Int32 => all(data, |bytes| i32::from_le_bytes(bytes).into()),
        Datatype::Int64 => all(data, |bytes| i64::from_le_bytes(bytes).into()),
        _ => Vec::new(),
    }
}

/// What the condition of a step sees.
struct View<'r, 'a> {
    run: &'r Run<'a>,
    frame: usize,
}

impl View<'_, '_> {
    fn cell(&self, step: &str) -> Option<&super::frame::Cell> {
        let run = self.run;
        let step = run.program.graph.index(step)?;
        let at = run.around(self.frame, run.program.steps[step].scope)?;
        Some(&run.frames[at].cells[step])
    }
}

impl Environment for View<'_, '_> {
    fn tensor(&self, of: &TensorRef) -> Option<&Tensor> {
        let run = self.run;
        match of {
            TensorRef::Input(name) => {
                let input = run.program.inputs.iter().position(|input| input.name == *name)?;
                let root = run.around(self.frame, super::run::ROOT)?;
                run.frames[root].inputs.get(input)?.tensor.as_ref()
            }
            TensorRef::Output { step, output } => {
                let step = run.program.graph.index(step)?;
                let output = run.program.steps[step].outputs.iter().position(|spec| spec.name == *output)?;
                let at = run.around(self.frame, run.program.scope_of_outputs(step))?;
                run.frames[at].cells[step].values[output].tensor.as_ref()
            }
            TensorRef::Own(_) => None,
        }
    }

    fn parameter(&self, name: &str) -> Option<&Parameter> {
        self.run.context.parameter(name)
    }

    fn ran(&self, step: &str) -> bool {
        self.cell(step).is_some_and(|cell| cell.ran)
    }

    fn error(&self, step: &str) -> Option<Kind> {
        self.cell(step)?.error
    }

    fn bucket(&self) -> i64 {
        (self.run.model.bucket)(self.run.context).into()
    }
}
