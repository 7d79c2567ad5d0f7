//! The outputs of a pipeline: each is settled once what it reads is.

use super::frame::Frame;
use super::run::Run;
use crate::error::Result;
use crate::predict::Tensor;

impl Run<'_> {
    /// The wanted outputs of a frame, if all are settled.
    pub(super) fn outputs_of(&self, frame: &Frame) -> Option<Vec<Tensor>> {
        let wanted = || self.is_wanted.iter().zip(&frame.outputs).filter(|(wanted, _)| **wanted);
        if wanted().any(|(_, output)| output.is_none()) {
            return None;
        }
        Some(wanted().filter_map(|(_, output)| output.clone().flatten()).collect())
    }

    /// The frames of a scope that lie within another one.
    pub(super) fn frames_within(&self, outer: usize, scope: usize) -> Vec<usize> {
        let of_scope = self.frames.iter().filter(|(_, frame)| frame.scope == scope);
        let lies_within = |at: &usize| {
            std::iter::successors(Some(*at), |at| self.frames.get(*at)?.parent).any(|at| at == outer)
        };
        of_scope.map(|(at, _)| at).filter(lies_within).collect()
    }

    pub(super) fn resolve_all(&mut self, frame: usize) -> Result<()> {
        if self.frames[frame].scope != self.program.answers_in {
            return Ok(());
        }
        (0..self.program.outputs.len()).try_for_each(|output| self.resolve(frame, output))
    }

    /// Settles an output of the pipeline, if what it reads is.
    pub(super) fn resolve(&mut self, frame: usize, output: usize) -> Result<()> {
        if !self.is_wanted[output] || self.frames[frame].outputs[output].is_some() {
            return Ok(());
        }
        if let Some(found) = self.output(frame, output)? {
            self.frames[frame].outputs[output] = Some(found);
        }
        Ok(())
    }
}
