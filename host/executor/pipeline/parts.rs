//! `each`: the rows of a step's inputs in parts, and the outputs of the parts in one.

use super::super::BoxFuture;
use super::step::{StepResult, StepRun, StepSlot};
use crate::error::{Error, Result};
use crate::predict::Tensor;
use futures_util::{StreamExt, TryStreamExt};
use std::time::{Duration, Instant};

/// Parts of a step that run at once.
const PARTS_AT_ONCE: usize = 64;

impl StepRun<'_> {
    /// Runs once, or once for each part of its rows.
    pub(super) async fn parts(&self, inputs: Vec<Tensor>, deadline: Option<Instant>) -> Result<StepResult> {
        let Some(each) = &self.step().each else {
            return self.attempts(inputs, StepSlot::default(), deadline).await;
        };
        let named = |error: Error| {
            // What was cut is the caller's only if nobody else has made it.
            let error = if self.are_callers { error } else { error.as_failure() };
            self.named(error, StepSlot::default())
        };
        let rows = self.rows(&inputs).map_err(named)?;
        if rows == 0 {
            let outputs = self.without_rows().map_err(named)?;
            return Ok(StepResult { outputs, queue: Duration::ZERO, ran: false });
        }
        self.account.expect("parts", rows.div_ceil(each.rows)).map_err(named)?;
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
            let place = StepSlot { rows: Some((first, first + sizes[number] - 1)), ..StepSlot::default() };
            let run: BoxFuture<'_, Result<StepResult>> = Box::pin(alone.part(inputs, place, deadline));
            run
        };
        if parts.len() == 1 {
            let called = run((0, parts.remove(0))).await?;
            self.account.let_go(called.bytes());
            return Ok(called);
        }
        let runs = futures_util::stream::iter(parts.into_iter().enumerate()).map(run);
        let all: Result<Vec<StepResult>> = runs.buffered(PARTS_AT_ONCE).try_collect().await;
        let all = all?;
        let stacked = self.stacked(&all).map_err(named);
        self.account.let_go(all.iter().map(StepResult::bytes).sum());
        let queue = all.iter().map(|called| called.queue).max().unwrap_or_default();
        Ok(StepResult { outputs: stacked?, queue, ran: true })
    }

    /// One of several parts: what it gives is held until all are there.
    async fn part(
        &self,
        inputs: Vec<Tensor>,
        place: StepSlot,
        deadline: Option<Instant>,
    ) -> Result<StepResult> {
        let called = self.attempts(inputs, place, deadline).await?;
        self.account.hold(called.bytes()).map_err(|error| self.named(error, place))?;
        Ok(called)
    }

    /// The rows of what is split, which must be the same.
    pub(super) fn rows(&self, inputs: &[Tensor]) -> Result<usize> {
        let each = self.step().each.as_ref().expect("invariant: asked of a step with each");
        let mut rows = None;
        for tensor in inputs.iter().filter(|tensor| each.split.iter().any(|name| **name == *tensor.name())) {
            let count = tensor.rows().unwrap_or(0);
            if rows.is_some_and(|rows| rows != count) {
                let names = each.split.join("\", \"");
                return Err(Error::invalid(format!("the inputs \"{names}\" have different numbers of rows")));
            }
            rows = Some(count);
        }
        Ok(rows.unwrap_or(0))
    }

    /// Outputs of no rows.
    pub(super) fn without_rows(&self) -> Result<Vec<Tensor>> {
        self.model.program.steps[self.at].outputs.iter().map(|spec| spec.without_rows()).collect()
    }

    /// The outputs of all parts, one behind the other.
    pub(super) fn stacked(&self, parts: &[StepResult]) -> Result<Vec<Tensor>> {
        let mut stacked = Vec::new();
        for spec in &self.model.program.steps[self.at].outputs {
            let of = |called: &'_ StepResult| {
                called.outputs.iter().position(|tensor| *tensor.name() == *spec.name)
            };
            let there = parts.iter().filter(|called| of(called).is_some()).count();
            if there == 0 {
                continue;
            }
            if there < parts.len() {
                let message = format!("the model omitted \"{}\" for some of the rows", spec.name);
                return Err(Error::failed(message));
            }
            let tensors = parts.iter().filter_map(|called| Some(&called.outputs[of(called)?]));
            stacked.push(Tensor::stacked(tensors)?);
        }
        Ok(stacked)
    }
}
