//! Ends a step: with outputs that are kept, with an error, or skipped.

use super::frame::{HeldValue, StepState};
use super::metrics::StepOutcome;
use super::reusability::Reuse;
use super::run_state::RunState;
use super::step::StepEnd;
use crate::error::{Error, Result};
use crate::predict::Tensor;
use std::time::Duration;

impl RunState<'_> {
    /// Handles the end of a step that ran.
    pub(super) fn step_ended(
        &mut self,
        frame: usize,
        step: usize,
        inputs: Option<Vec<Tensor>>,
        end: StepEnd,
    ) -> Result<()> {
        let StepEnd { outputs, ran, is_reused, queue, time } = end;
        let outcome = if is_reused { StepOutcome::Reused } else { self.outcome_of(step, &outputs) };
        self.model.metrics[step].record(outcome, time, queue);
        // Set before an error can end the request, so that the step is not recorded twice.
        self.frames[frame].cells[step].state = StepState::Over;
        if self.context.steps.is_some() {
            let given = match self.records_tensors() {
                true => outputs.clone().unwrap_or_default(),
                false => Vec::new(),
            };
            let why = outputs.as_ref().err().map(|error| error.message().to_owned());
            let inputs = inputs.unwrap_or_default();
            self.record_step(frame, step, outcome, why, [inputs, given], (time, queue));
        }
        self.frames[frame].cells[step].ran = ran;
        if !is_reused {
            let before = self.reuse_of(frame, step);
            self.frames[frame].cells[step].reuse = before.max(Reuse::NextAttempt);
        }
        let settled = outputs.and_then(|outputs| self.keep_outputs(frame, step, outputs));
        if let Err(error) = settled {
            self.step_failed(frame, step, error)?;
        }
        self.finish_step(frame, step)
    }

    /// Keeps the outputs of a step that other steps read.
    fn keep_outputs(&mut self, frame: usize, step: usize, outputs: Vec<Tensor>) -> Result<()> {
        let program = &self.program.steps[step];
        for (place, spec) in program.outputs.iter().enumerate() {
            let tensor = outputs.iter().find(|tensor| *tensor.name() == *spec.name);
            if tensor.is_none() && !program.may_omit[place] {
                let message = format!(
                    "the model omitted its output \"{}\"; list it in may_omit if it may be absent",
                    spec.name
                );
                return Err(self.named(step, Error::failed(message)));
            }
            let readers = self.frames[frame].cells[step].values[place].readers;
            let held = HeldValue::new(tensor.cloned(), readers, self.account);
            self.frames[frame].cells[step].values[place] = held.map_err(|error| self.named(step, error))?;
        }
        if let Some(choice) = &program.choice {
            let name = &program.outputs[choice.output].name;
            let by = outputs.iter().find(|tensor| *tensor.name() == **name);
            let chosen = self.chosen(step, by).map_err(|error| self.named(step, error))?;
            self.frames[frame].cells[step].chosen = chosen;
        }
        Ok(())
    }

    /// Fails the request with an error of a step, or leaves the step's outputs absent if the error
    /// is tolerated.
    pub(super) fn step_failed(&mut self, frame: usize, step: usize, error: Error) -> Result<()> {
        if !self.is_tolerated(step) {
            let known = &self.frames[frame];
            if known.parent.is_none() || known.scope != self.program.answers_in {
                return Err(error);
            }
            // The items before it are answered first.
            let number = known.number;
            if self.failing.as_ref().is_none_or(|(first, _)| number < *first) {
                self.failing = Some((number, error));
            }
            return Ok(());
        }
        let request = &*self.context.id;
        tracing::debug!(request, detail = error.detail(), "step failed and was skipped: {error}");
        let cell = &mut self.frames[frame].cells[step];
        cell.error = Some(error.kind());
        for held in &mut cell.values {
            if let Some(tensor) = held.tensor.take() {
                self.account.release_bytes(tensor.data().len());
            }
        }
        Ok(())
    }

    /// Skips a step. Its outputs are absent.
    pub(super) fn skip_step(&mut self, frame: usize, step: usize, why: String) -> Result<()> {
        self.model.metrics[step].record(StepOutcome::Skipped, Duration::ZERO, Duration::ZERO);
        if self.context.steps.is_some() {
            let none = (Duration::ZERO, Duration::ZERO);
            self.record_step(frame, step, StepOutcome::Skipped, Some(why), Default::default(), none);
        }
        self.frames[frame].cells[step].reuse = self.reuse_before(frame, step);
        self.release_reads(frame, step);
        self.finish_step(frame, step)
    }
}
