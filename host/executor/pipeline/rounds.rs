//! Rounds: runs a step to its end, once, or repeatedly if it is a loop.

use super::snapshot::LoopView;
use super::step::{CallPosition, StepEnd, StepResult, StepRun};
use crate::error::{Error, Result};
use crate::graph::condition;
use crate::predict::Tensor;
use std::sync::Arc;
use std::time::{Duration, Instant};

impl StepRun<'_> {
    /// Runs the step to its end. Its own timeout bounds all rounds, parts and attempts together.
    pub async fn run(self, inputs: Vec<Tensor>) -> StepEnd {
        let started = Instant::now();
        let deadline = self.deadline(started);
        let work = self.rounds(inputs, deadline);
        let outcome = match (self.step().timeout, deadline) {
            (Some(_), Some(at)) => match tokio::time::timeout_at(at.into(), work).await {
                Ok(outcome) => outcome,
                Err(_) => Err(Error::deadline("the deadline of the request has passed")),
            },
            _ => work.await,
        };
        let time = started.elapsed();
        let queue = outcome.as_ref().map_or(Duration::ZERO, |result| result.queue).min(time);
        let ran = outcome.as_ref().is_ok_and(|result| result.ran) || outcome.is_err();
        let outputs = outcome.map(|result| result.outputs).map_err(|error| self.own_timeout(error, deadline));
        StepEnd { outputs, ran, is_reused: false, queue, time: time.saturating_sub(queue) }
    }

    /// Runs the step once, or again as long as the condition of its loop holds.
    async fn rounds(&self, mut inputs: Vec<Tensor>, deadline: Option<Instant>) -> Result<StepResult> {
        let step = self.step();
        let Some(looped) = &step.looped else { return self.parts(inputs, deadline).await };
        let condition = self.model.program.steps[self.at].again_while.as_ref();
        let condition = condition.expect("invariant: a loop has a condition");
        let mut queue = Duration::ZERO;
        for round in 1..=looped.max {
            let position = CallPosition { round, ..CallPosition::default() };
            let result = self.attempts(inputs.clone(), position, deadline).await?;
            queue += result.queue;
            let view = LoopView { outputs: &result.outputs, snapshot: self.snapshot.as_deref() };
            let again = condition::evaluate(condition, &view);
            let again = again.map_err(|error| self.named(error.context("loop.while"), position))?;
            if !again || (round == looped.max && looped.goes_on_at_max) {
                return Ok(StepResult { queue, ..result });
            }
            for (input, output) in &looped.carry {
                let carried = result.outputs.iter().find(|tensor| *tensor.name() == **output);
                let carried = carried.map(|tensor| tensor.renamed(Arc::clone(input)));
                let carried = carried.ok_or_else(|| {
                    self.named(
                        Error::failed(format!("the model omitted \"{output}\", which the loop carries")),
                        position,
                    )
                })?;
                match inputs.iter_mut().find(|tensor| *tensor.name() == **input) {
                    Some(tensor) => *tensor = carried,
                    None => inputs.push(carried),
                }
            }
        }
        let message = format!("the loop did not end within max = {} rounds", looped.max);
        Err(self.named(Error::failed(message), CallPosition::default()))
    }
}
