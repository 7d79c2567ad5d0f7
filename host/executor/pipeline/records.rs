//! Records of the steps of a request: their metrics at its end, and their log if the caller wants
//! it.

use super::frame::StepState;
use super::metrics::StepOutcome;
use super::run_state::RunState;
use crate::error::{Kind, Result};
use crate::predict::{StepRecord, Tensor};
use std::time::Duration;

impl RunState<'_> {
    /// Records a step with its inputs and outputs, its time and its waiting time, if steps are
    /// recorded.
    pub(super) fn record_step(
        &self,
        frame: usize,
        step: usize,
        outcome: StepOutcome,
        why: Option<String>,
        [inputs, outputs]: [Vec<Tensor>; 2],
        (time, queue): (Duration, Duration),
    ) {
        let Some(observer) = &self.context.steps else { return };
        let written = &self.program.graph.steps[step];
        let number = self.number(frame).map(|(what, number)| format!(" ({what} {number})"));
        let path = self.account.step_path(&written.name);
        let record = StepRecord {
            step: format!("{path}{}", number.unwrap_or_default()),
            model: written.model.to_string(),
            outcome: outcome.as_str(),
            why,
            inputs,
            outputs,
            time,
            queue,
        };
        observer.ended(&path, record);
    }

    /// Returns the outcome of a step that ran. A step that ran until the deadline of the request
    /// is cancelled, whether its executor or the request sees the deadline first.
    pub(super) fn outcome_of<T>(&self, step: usize, ended: &Result<T>) -> StepOutcome {
        let is_late = ended.as_ref().is_err_and(|error| error.kind() == Kind::Deadline)
            && !self.program.steps[step].is_detached
            && self.context.check().is_err();
        if is_late { StepOutcome::Cancelled } else { StepOutcome::of(ended) }
    }

    /// Whether records of steps have their tensors.
    pub(super) fn records_tensors(&self) -> bool {
        self.context.steps.as_ref().is_some_and(|observer| observer.wants_tensors())
    }

    /// Tells the observer which steps may run.
    pub(super) fn record_expected(&self) {
        let Some(observer) = &self.context.steps else { return };
        let active = self.program.graph.steps.iter().zip(&self.is_active).filter(|(_, active)| **active);
        active.for_each(|(step, _)| observer.expected(&self.account.step_path(&step.name)));
    }

    pub(super) fn record_begin(&self, step: usize) {
        if let Some(observer) = &self.context.steps {
            observer.begun(&self.account.step_path(&self.program.graph.steps[step].name));
        }
    }

    /// Records the steps that still ran when the request ended: it failed, or its answer did not
    /// need them.
    pub(super) fn record_unfinished(&self) {
        for (at, frame) in &self.frames {
            let running = frame.cells.iter().enumerate().filter(|(_, cell)| cell.state == StepState::Running);
            for (step, _) in running {
                let stream = self.streams.iter().find(|stream| (stream.frame, stream.step) == (at, step));
                let error = stream.and_then(|stream| stream.end.as_ref()?.as_ref().err());
                let outcome = error.map_or(StepOutcome::Cancelled, |_| StepOutcome::Error);
                let why = error.map(|error| error.message().to_owned());
                self.model.metrics[step].record(outcome, Duration::ZERO, Duration::ZERO);
                self.record_step(at, step, outcome, why, Default::default(), Default::default());
            }
        }
    }
}
