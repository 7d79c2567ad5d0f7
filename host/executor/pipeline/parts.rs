//! Parts: with `each`, a step runs once for each part of the rows of its inputs, and the outputs of
//! the parts are stacked.

use super::step::{CallPosition, StepResult, StepRun};
use crate::error::{Error, Result};
use crate::executor::callable::BoxFuture;
use crate::predict::{Tensor, TensorSpec};
use futures_util::{StreamExt, TryStreamExt};
use std::time::{Duration, Instant};

/// The maximum number of parts of a step that run concurrently.
const PARTS_AT_ONCE: usize = 64;

impl StepRun<'_> {
    /// Runs the step once, or once for each part of its rows.
    pub(super) async fn parts(&self, inputs: Vec<Tensor>, deadline: Option<Instant>) -> Result<StepResult> {
        let Some(each) = &self.step().each else {
            return self.attempts(inputs, CallPosition::default(), deadline).await;
        };
        let named = |error: Error| {
            // The rows are the caller's fault only if the caller sent all inputs.
            let error = if self.inputs_are_callers { error } else { error.as_failure() };
            self.named(error, CallPosition::default())
        };
        let rows = self.rows(&inputs).map_err(named)?;
        if rows == 0 {
            let outputs = self.without_rows().map_err(named)?;
            return Ok(StepResult { outputs, queue: Duration::ZERO, ran: false });
        }
        self.account.check_runs_left("parts", rows.div_ceil(each.rows)).map_err(named)?;
        let sizes: Vec<usize> =
            (0..rows).step_by(each.rows).map(|first| each.rows.min(rows - first)).collect();
        let mut parts: Vec<Vec<Tensor>> = vec![Vec::with_capacity(inputs.len()); sizes.len()];
        for tensor in &inputs {
            if each.split.iter().any(|name| **name == *tensor.name()) {
                let cut = tensor.cut(&sizes).map_err(named)?;
                parts.iter_mut().zip(cut).for_each(|(part, tensor)| part.push(tensor));
            } else {
                parts.iter_mut().for_each(|part| part.push(tensor.clone()));
            }
        }
        let alone = StepRun { is_alone: self.is_alone && parts.len() == 1, ..self.clone() };
        let run = |(number, inputs): (usize, Vec<Tensor>)| {
            let first = number * each.rows;
            let position =
                CallPosition { rows: Some((first, first + sizes[number] - 1)), ..CallPosition::default() };
            let run: BoxFuture<'_, Result<StepResult>> = Box::pin(alone.part(inputs, position, deadline));
            run
        };
        if parts.len() == 1 {
            let result = run((0, parts.remove(0))).await?;
            self.account.release_bytes(result.bytes());
            return Ok(result);
        }
        let runs = futures_util::stream::iter(parts.into_iter().enumerate()).map(run);
        let all: Result<Vec<StepResult>> = runs.buffered(PARTS_AT_ONCE).try_collect().await;
        let all = all?;
        let stacked = self.stacked(&all).map_err(named);
        self.account.release_bytes(all.iter().map(StepResult::bytes).sum());
        let queue = all.iter().map(|result| result.queue).max().unwrap_or_default();
        Ok(StepResult { outputs: stacked?, queue, ran: true })
    }

    /// Runs one part. Its outputs count as held until all parts have ended.
    async fn part(
        &self,
        inputs: Vec<Tensor>,
        position: CallPosition,
        deadline: Option<Instant>,
    ) -> Result<StepResult> {
        let result = self.attempts(inputs, position, deadline).await?;
        self.account.hold_bytes(result.bytes()).map_err(|error| self.named(error, position))?;
        Ok(result)
    }

    /// Returns the number of rows of the inputs that are split, which must be the same for all.
    fn rows(&self, inputs: &[Tensor]) -> Result<usize> {
        let each = self.step().each.as_ref().expect("invariant: asked of a step with each");
        let mut rows = None;
        for tensor in inputs.iter().filter(|tensor| each.split.iter().any(|name| **name == *tensor.name())) {
            let Some(count) = tensor.rows() else {
                let name = tensor.name();
                let message = format!("the input \"{name}\" is a scalar, which has no rows to split");
                return Err(Error::invalid(message));
            };
            if rows.is_some_and(|rows| rows != count) {
                let names = each.split.join("\", \"");
                return Err(Error::invalid(format!("the inputs \"{names}\" have different numbers of rows")));
            }
            rows = Some(count);
        }
        Ok(rows.unwrap_or(0))
    }

    /// Returns outputs without rows.
    fn without_rows(&self) -> Result<Vec<Tensor>> {
        self.model.program.steps[self.at].outputs.iter().map(TensorSpec::without_rows).collect()
    }

    /// Stacks the outputs of all parts, in order.
    fn stacked(&self, parts: &[StepResult]) -> Result<Vec<Tensor>> {
        let mut stacked = Vec::new();
        for spec in &self.model.program.steps[self.at].outputs {
            let of = |result: &'_ StepResult| {
                result.outputs.iter().position(|tensor| *tensor.name() == *spec.name)
            };
            let there = parts.iter().filter(|result| of(result).is_some()).count();
            if there == 0 {
                continue;
            }
            if there < parts.len() {
                let message = format!("the model omitted \"{}\" for some of the rows", spec.name);
                return Err(Error::failed(message));
            }
            let tensors = parts.iter().filter_map(|result| Some(&result.outputs[of(result)?]));
            stacked.push(Tensor::stacked(tensors)?);
        }
        Ok(stacked)
    }
}
