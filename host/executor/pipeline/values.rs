//! The values of a request: whether an input, an output or a gathered tensor is known, and what it
//! is.

use super::frame::StepState;
use super::run_state::{ROOT, RunState};
use crate::error::Result;
use crate::graph::{Gather, Gathered, ValueRef};
use crate::predict::Tensor;
use std::borrow::Cow;

/// What is known of a value.
pub(super) enum ValueState<'f> {
    /// Its step is not over.
    Pending,
    Absent,
    Present(Cow<'f, Tensor>),
}

impl<'a> RunState<'a> {
    /// Looks up a value, as seen from a frame.
    pub(super) fn value(&self, frame: usize, value: &'a ValueRef) -> Result<ValueState<'_>> {
        Ok(match value {
            ValueRef::Const(tensor) => ValueState::Present(Cow::Borrowed(tensor)),
            ValueRef::Input(input) => {
                let root = self.enclosing_frame(frame, ROOT);
                let held = root.and_then(|root| self.frames[root].inputs.get(*input));
                held.and_then(|held| held.tensor.as_ref())
                    .map_or(ValueState::Absent, |tensor| ValueState::Present(Cow::Borrowed(tensor)))
            }
            ValueRef::Output(step, output) => {
                let Some(at) = self.enclosing_frame(frame, self.program.scope_of_outputs(*step)) else {
                    return Ok(ValueState::Pending);
                };
                let cell = &self.frames[at].cells[*step];
                match &cell.values[*output].tensor {
                    _ if cell.state != StepState::Over => ValueState::Pending,
                    Some(tensor) => ValueState::Present(Cow::Borrowed(tensor)),
                    None => ValueState::Absent,
                }
            }
            ValueRef::Gathered(of) => {
                let Some(at) = self.enclosing_frame(frame, self.program.steps[of.stream].scope) else {
                    return Ok(ValueState::Pending);
                };
                if self.frames[at].cells[of.stream].state != StepState::Over {
                    return Ok(ValueState::Pending);
                }
                self.gathered(at, of)?
                    .map_or(ValueState::Absent, |tensor| ValueState::Present(Cow::Owned(tensor)))
            }
        })
    }

    /// Returns a tensor that was gathered from the items of a stream. `None` if the stream failed
    /// or did not run.
    fn gathered(&self, frame: usize, of: &Gathered) -> Result<Option<Tensor>> {
        let cell = &self.frames[frame].cells[of.stream];
        if cell.error.is_some() || !cell.ran {
            return Ok(None);
        }
        let lists = &self.frames[frame].gathered;
        let list = lists.iter().find(|list| (list.step, list.output) == (of.step, of.output));
        if of.how == Gather::Last {
            return Ok(list.and_then(|list| Some(list.items.last()?.1.clone())));
        }
        match list.and_then(|list| list.stacked.clone()) {
            Some(stacked) => Ok(Some(stacked)),
            None => self.program.steps[of.step].outputs[of.output].without_rows().map(Some),
        }
    }
}
