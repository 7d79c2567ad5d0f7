//! One step of one request while it runs: what it runs, its deadline and its errors.
//!
//! Its work is in layers: `rounds` repeats it for a loop, `parts` splits its rows, `attempts`
//! retries it and calls its model.

use super::account::RequestAccount;
use super::model::{PipelineModel, StepTarget};
use super::nested::RunNested;
use super::reusability::Reuse;
use super::snapshot::Snapshot;
use crate::error::{Error, Kind, Result};
use crate::executor::target::ModelTarget;
use crate::graph::{Member, Step};
use crate::predict::{CallContext, Parameter, Tensor};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A step that is about to run, or runs.
#[derive(Clone)]
pub(super) struct StepRun<'a> {
    pub model: &'a PipelineModel,
    pub context: &'a Arc<CallContext>,
    pub account: &'a Arc<RequestAccount>,
    pub at: usize,
    /// The row or item that the step runs for.
    pub number: Option<(&'static str, u64)>,
    /// The response does not wait for the step, and a cancellation of the request does not stop it.
    pub is_detached: bool,
    /// Nothing else of the request runs meanwhile.
    pub is_alone: bool,
    /// All inputs are the caller's own, from the request.
    pub inputs_are_callers: bool,
    pub reuse: Reuse,
    /// The values that the condition of the loop refers to, besides the step's own outputs.
    pub snapshot: Option<Arc<Snapshot>>,
    pub run_nested: RunNested,
}

/// The end of a step.
pub(super) struct StepEnd {
    pub outputs: Result<Vec<Tensor>>,
    /// Whether the model was called.
    pub ran: bool,
    /// Whether the outputs are those of an earlier attempt.
    pub is_reused: bool,
    /// The time for which the step waited for capacity.
    pub queue: Duration,
    /// The rest of the time that the step took.
    pub time: Duration,
}

/// The position of one call within its step, for errors.
#[derive(Clone, Copy, Default)]
pub(super) struct CallPosition {
    pub round: u32,
    pub rows: Option<(usize, usize)>,
    pub attempt: u32,
}

/// The outputs of a step, of one of its parts, or of one call.
pub(super) struct StepResult {
    pub outputs: Vec<Tensor>,
    /// The time for which the calls waited for capacity.
    pub queue: Duration,
    /// Whether the model was called. False if the inputs had no rows.
    pub ran: bool,
}

impl StepResult {
    pub fn bytes(&self) -> usize {
        self.outputs.iter().map(|tensor| tensor.data().len()).sum()
    }
}

impl<'a> StepRun<'a> {
    pub fn step(&self) -> &'a Step {
        &self.model.program.graph.steps[self.at]
    }

    /// Returns the version of the model that this request uses.
    pub(super) fn target(&self) -> &'a StepTarget {
        self.model.bindings[self.at].target(self.context)
    }

    /// Returns when the step must have ended, by the request's deadline and the step's own timeout.
    pub(super) fn deadline(&self, started: Instant) -> Option<Instant> {
        let own = self.step().timeout.map(|timeout| started + timeout);
        match (self.is_detached, own) {
            (true, Some(own)) => Some(own),
            _ => self.context.deadline.into_iter().chain(own).min(),
        }
    }

    /// Explains a deadline error that is due to the step's own timeout, not to the request's
    /// deadline.
    pub(super) fn own_timeout(&self, error: Error, deadline: Option<Instant>) -> Error {
        let has_passed = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        let is_own = error.kind() == Kind::Deadline && has_passed && deadline != self.context.deadline;
        match self.step().timeout {
            Some(timeout) if is_own => {
                let message = format!("its timeout_ms = {} has passed", timeout.as_millis());
                self.named(Error::deadline(message), CallPosition::default())
            }
            _ => error,
        }
    }

    /// Creates the context of a call of the model.
    pub(super) fn step_context(
        &self,
        target: &ModelTarget,
        deadline: Option<Instant>,
        now: Instant,
    ) -> Result<Arc<CallContext>> {
        let own = target.timeout.map(|timeout| now + timeout);
        let deadline = deadline.into_iter().chain(own).min();
        let mut context =
            self.context.step(Arc::clone(&target.model), Arc::clone(&target.version), deadline)?;
        context.trace.on_executor(target.executor.name());
        context.trace.rename(|| format!("step {}", self.step().name));
        for (name, value) in &self.step().params {
            context.parameters.retain(|(known, _)| known != name);
            context.parameters.push((name.clone(), Parameter::clone(value)));
        }
        Ok(Arc::new(context))
    }

    /// Names the field of the error as the caller knows it: the input of the pipeline.
    pub(super) fn with_callers_field(&self, error: Error) -> Error {
        let source = self.step().inputs.iter().find(|(name, _)| error.field_name() == Some(name));
        let callers = source.and_then(|(_, source)| {
            source.members.iter().find_map(|member| match member {
                Member::Input(name) => Some(name.to_string()),
                _ => None,
            })
        });
        match callers {
            Some(name) => error.with_field(name),
            None => error,
        }
    }

    /// Adds the pipeline, the step and the position of the call to an error.
    pub(super) fn named(&self, error: Error, position: CallPosition) -> Error {
        let step = self.step();
        let mut run = Vec::new();
        run.extend(self.number.map(|(what, number)| format!("{what} {number}")));
        run.extend(position.rows.map(|(first, last)| format!("rows {first} to {last}")));
        run.extend((position.round > 1).then(|| format!("round {}", position.round)));
        run.extend((position.attempt > 1).then(|| format!("attempt {}", position.attempt)));
        let run = if run.is_empty() { String::new() } else { format!(" ({})", run.join(", ")) };
        let target = &self.target().target;
        let pipeline = &self.model.program.graph.name;
        error
            .context(format!("pipeline \"{pipeline}\": step \"{}\"{run}", step.name))
            .step(&step.name)
            .model(format!("{}:{}", target.model, target.version))
    }
}
