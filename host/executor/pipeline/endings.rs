//! How a step ends: with outputs that are kept, with an error, skipped, or cancelled.

use super::frame::{HeldValue, State};
use super::metrics::StepOutcome;
use super::run::Run;
use super::step::StepEnd;
use crate::error::{Error, Result};
use crate::predict::{StepRecord, Tensor};
use std::time::Duration;

impl Run<'_> {
    /// A step is over by itself.
    pub(super) fn ended(
        &mut self,
        frame: usize,
        step: usize,
        inputs: Option<Vec<Tensor>>,
        end: StepEnd,
    ) -> Result<()> {
        let StepEnd { outputs, ran, queue, time } = end;
        let outcome = StepOutcome::of(&outputs);
        self.model.metrics[step].record(outcome, time, queue);
        // Accounted for, also where its error ends the request.
        self.frames[frame].cells[step].state = State::Over;
        if self.context.steps.is_some() {
            let given = outputs.as_deref().unwrap_or_default();
            let why = outputs.as_ref().err().map(|error| error.message().to_owned());
            let inputs = inputs.unwrap_or_default();
            self.note(frame, step, outcome, why, [inputs, given.to_vec()], (time, queue));
        }
        self.frames[frame].cells[step].ran = ran;
        let settled = outputs.and_then(|outputs| self.settled(frame, step, outputs));
        if let Err(error) = settled {
            self.failed(frame, step, error)?;
        }
        self.over(frame, step)
    }

    /// Keeps the outputs of a step.
    pub(super) fn settled(&mut self, frame: usize, step: usize, outputs: Vec<Tensor>) -> Result<()> {
        let program = &self.program.steps[step];
        for (place, spec) in program.outputs.iter().enumerate() {
            let tensor = outputs.iter().find(|tensor| *tensor.name() == *spec.name);
            if tensor.is_none() && !program.may_omit[place] {
                let message = format!("the model omitted its output \"{}\"; see may_omit", spec.name);
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

    /// An error of a step ends the request, or leaves the step's outputs absent.
    pub(super) fn failed(&mut self, frame: usize, step: usize, error: Error) -> Result<()> {
        if !self.tolerates(step) {
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
                self.account.let_go(tensor.data().len());
            }
        }
        Ok(())
    }

    /// Whether an error of the step does not fail the request.
    pub(super) fn tolerates(&self, step: usize) -> bool {
        self.program.graph.steps[step].skips_on_error
            || self.program.steps[step].is_detached
            || self.is_answered
    }

    pub(super) fn named(&self, step: usize, error: Error) -> Error {
        let step = &self.program.graph.steps[step];
        let pipeline = &self.program.graph.name;
        error.context(format!("pipeline \"{pipeline}\": step \"{}\"", step.name)).step(&step.name)
    }

    /// A step does not run; its outputs are absent.
    pub(super) fn skipped(&mut self, frame: usize, step: usize, why: String) -> Result<()> {
        self.model.metrics[step].record(StepOutcome::Skipped, Duration::ZERO, Duration::ZERO);
        if self.context.steps.is_some() {
            let none = (Duration::ZERO, Duration::ZERO);
            self.note(frame, step, StepOutcome::Skipped, Some(why), Default::default(), none);
        }
        self.release(frame, step);
        self.over(frame, step)
    }

    /// Notes a step with its inputs and outputs, its time and its waits, if somebody wants to see it.
    pub(super) fn note(
        &self,
        frame: usize,
        step: usize,
        outcome: StepOutcome,
        why: Option<String>,
        [inputs, outputs]: [Vec<Tensor>; 2],
        (time, queue): (Duration, Duration),
    ) {
        let Some(log) = &self.context.steps else { return };
        let written = &self.program.graph.steps[step];
        let number = self.number(frame).map(|(what, number)| format!(" ({what} {number})"));
        log.add(StepRecord {
            step: self.account.shown(&written.name) + &number.unwrap_or_default(),
            model: written.model.to_string(),
            outcome: outcome.as_str(),
            why,
            inputs,
            outputs,
            time,
            queue,
        });
    }

    /// Notes what still ran when the request ended: it failed, or its answer needed no more.
    pub(super) fn cancelled(&self) {
        for (at, frame) in &self.frames {
            let running = frame.cells.iter().enumerate().filter(|(_, cell)| cell.state == State::Running);
            for (step, _) in running {
                let stream = self.streams.iter().find(|stream| (stream.frame, stream.step) == (at, step));
                let error = stream.and_then(|stream| stream.end.as_ref()?.as_ref().err());
                let outcome = error.map_or(StepOutcome::Cancelled, |_| StepOutcome::Error);
                let why = error.map(|error| error.message().to_owned());
                self.model.metrics[step].record(outcome, Duration::ZERO, Duration::ZERO);
                self.note(at, step, outcome, why, Default::default(), Default::default());
            }
        }
    }
}
