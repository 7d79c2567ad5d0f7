//! Decides whether a step of a frame waits, runs or is skipped, and why.

use super::run_state::RunState;
use super::values::ValueState;
use super::view::View;
use crate::error::{Error, Kind, Result};
use crate::graph::{Need, ValueRef, condition};
use crate::predict::{Datatype, Tensor};
use smallvec::SmallVec;
use std::sync::Arc;

pub(super) enum Verdict {
    Wait,
    /// With the reason.
    Skip(String),
    /// With the inputs, and whether all of them are the caller's own, from the request.
    Run(Vec<Tensor>, bool),
}

/// The state of one need of a step.
enum NeedState {
    Pending,
    Absent,
    /// All values of this alternative are present.
    Met(usize),
}

impl<'a> RunState<'a> {
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
            match self.need_state(frame, need)? {
                NeedState::Pending => {
                    waits = true;
                    members.push(None);
                }
                NeedState::Met(member) => members.push(Some(member)),
                NeedState::Absent if need.optional => members.push(None),
                NeedState::Absent => {
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
                // A condition that refers to no step can fail only because of the request.
                let is_callers = error.kind() == Kind::Failed && when.steps().is_empty();
                let error = if is_callers { Error::invalid(error.message()) } else { error };
                self.named(step, error.context(format!("when = {}", when.quoted())))
            };
            if !holds.map_err(error)? {
                return Ok(Verdict::Skip(format!("when = {} is false", when.quoted())));
            }
        }
        let (mut inputs, mut inputs_are_callers) = (Vec::with_capacity(program.inputs.len()), true);
        for (need, member) in program.needs.iter().zip(members) {
            let Some(member) = member else { continue };
            for (&input, value) in need.inputs.iter().zip(&need.members[member]) {
                inputs_are_callers &= matches!(value, ValueRef::Input(_));
                if let ValueState::Present(tensor) = self.value(frame, value)? {
                    inputs.push(tensor.renamed(Arc::clone(&program.inputs[input])));
                }
            }
        }
        let inputs_are_callers = inputs_are_callers && !inputs.is_empty();
        Ok(Verdict::Run(inputs, inputs_are_callers))
    }

    /// Returns the state of a need: of its first alternative without an absent value.
    fn need_state(&self, frame: usize, need: &'a Need) -> Result<NeedState> {
        for (at, values) in need.members.iter().enumerate() {
            let mut is_absent = false;
            let mut is_pending = false;
            for value in values {
                match self.value(frame, value)? {
                    ValueState::Pending => is_pending = true,
                    ValueState::Absent => is_absent = true,
                    ValueState::Present(_) => {}
                }
            }
            if is_absent {
                continue;
            }
            return Ok(if is_pending { NeedState::Pending } else { NeedState::Met(at) });
        }
        Ok(NeedState::Absent)
    }

    fn is_chosen(&self, frame: usize, router: usize, step: usize) -> bool {
        let Some(at) = self.enclosing_frame(frame, self.program.steps[router].scope) else { return false };
        let Some(choice) = &self.program.steps[router].choice else { return false };
        let place = choice.among.iter().position(|&among| among == step);
        place.is_some_and(|place| self.frames[at].cells[router].chosen.get(place).copied().unwrap_or(false))
    }

    /// Returns which of its candidates a router has chosen.
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
}

/// Returns the elements of a tensor of integers.
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
