//! The outputs of a pipeline: an output is settled once the values that it reads are known.

use super::frame::Frame;
use super::run_state::RunState;
use super::values::ValueState;
use crate::error::Result;
use crate::predict::Tensor;
use std::sync::Arc;

impl RunState<'_> {
    /// Returns the requested outputs of a frame. `None` until all of them are settled.
    pub(super) fn outputs_of(&self, frame: &Frame) -> Option<Vec<Tensor>> {
        let wanted = || self.is_wanted.iter().zip(&frame.outputs).filter(|(wanted, _)| **wanted);
        if wanted().any(|(_, output)| output.is_none()) {
            return None;
        }
        Some(wanted().filter_map(|(_, output)| output.clone().flatten()).collect())
    }

    /// Settles all outputs whose values are known, if they belong to this frame.
    pub(super) fn resolve_all(&mut self, frame: usize) -> Result<()> {
        if self.frames[frame].scope != self.program.answers_in {
            return Ok(());
        }
        (0..self.program.outputs.len()).try_for_each(|output| self.resolve(frame, output))
    }

    /// Settles an output of the pipeline, if its values are known.
    pub(super) fn resolve(&mut self, frame: usize, output: usize) -> Result<()> {
        if !self.is_wanted[output] || self.frames[frame].outputs[output].is_some() {
            return Ok(());
        }
        if let Some(found) = self.output(frame, output)? {
            self.frames[frame].outputs[output] = Some(found);
        }
        Ok(())
    }

    /// Returns an output of the pipeline: its first alternative that is present. `None` until it is
    /// known.
    fn output(&self, frame: usize, output: usize) -> Result<Option<Option<Tensor>>> {
        let program = &self.program.outputs[output];
        for value in &program.members {
            match self.value(frame, value)? {
                ValueState::Pending => return Ok(None),
                ValueState::Absent => {}
                ValueState::Present(tensor) => {
                    return Ok(Some(Some(tensor.renamed(Arc::clone(&program.name)))));
                }
            }
        }
        Ok(Some(None))
    }
}
