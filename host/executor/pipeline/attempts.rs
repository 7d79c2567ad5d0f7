//! Attempts: calls the model of a step, on this thread or on its executor, and retries failed
//! calls.

use super::model::{PipelineModel, StepTarget};
use super::nested::{NESTED_MAX, run_in_task};
use super::step::{CallPosition, StepResult, StepRun};
use crate::error::{Error, Kind, Result};
use crate::executor::call::Precedence;
use crate::executor::target::ModelTarget;
use crate::graph::Retry;
use crate::predict::{CallContext, Service, Tensor};
use crate::traces::Attributes;
use smallvec::smallvec;
use std::sync::Arc;
use std::time::{Duration, Instant};

impl StepRun<'_> {
    /// Calls the model, and repeats a failed call as the step's `retry` says.
    pub(super) async fn attempts(
        &self,
        inputs: Vec<Tensor>,
        position: CallPosition,
        deadline: Option<Instant>,
    ) -> Result<StepResult> {
        let Some(retry) = &self.step().retry else { return self.call(inputs, position, deadline).await };
        let mut attempt = 1;
        loop {
            let position = CallPosition { attempt, ..position };
            match self.call(inputs.clone(), position, deadline).await {
                Err(error) if attempt < retry.attempts && retry.on.contains(&error.kind()) => {
                    let pause = pause(retry, attempt);
                    let is_late = deadline.is_some_and(|deadline| Instant::now() + pause >= deadline);
                    if is_late || (!self.is_detached && self.context.check().is_err()) {
                        return Err(error);
                    }
                    tokio::time::sleep(pause).await;
                    attempt += 1;
                }
                outcome => return outcome,
            }
        }
    }

    /// Calls the model once. Errors name the step; an error about the inputs is the caller's fault
    /// only if all inputs are the caller's.
    async fn call(
        &self,
        inputs: Vec<Tensor>,
        position: CallPosition,
        deadline: Option<Instant>,
    ) -> Result<StepResult> {
        let callers_only = self.inputs_are_callers && position.round <= 1;
        let outcome = self.call_counted(inputs, position, deadline).await;
        outcome.map_err(|error| {
            let error = error.settled();
            let error = if error.kind().is_about_request() {
                if callers_only { self.with_callers_field(error) } else { error.as_failure() }
            } else {
                error
            };
            self.named(error, position)
        })
    }

    /// Waits for the limits of the step, calls the model, and counts the call on its route.
    async fn call_counted(
        &self,
        inputs: Vec<Tensor>,
        position: CallPosition,
        deadline: Option<Instant>,
    ) -> Result<StepResult> {
        self.account.count_run()?;
        let waited = Instant::now();
        let _parallel = self.account.acquire_parallel().await;
        let _permit = match &self.model.limits[self.at] {
            Some(limit) => Some(limit.enter(self.account.since).await),
            None => None,
        };
        let began = Instant::now();
        let waited = began - waited;
        let StepTarget { target, route, .. } = self.target();
        let context = self.step_context(target, deadline, began)?;
        let _cancels = (!self.is_detached).then(|| self.context.cancellation.cancels(&context));
        target.check_step(&inputs)?;
        let outcome = self.call_target(target, &context, inputs, position).await;
        Self::end_span(&context, position, outcome.as_ref().err());
        let (queue, service) = match &outcome {
            Ok((_, queue, service)) => (*queue, *service),
            Err(_) => (Duration::ZERO, Service::default()),
        };
        if self.account.counts {
            let error = outcome.as_ref().err().map(|error| match error.kind() {
                Kind::Deadline if !context.has_begun() => error.clone().unjudged(),
                _ => error.clone(),
            });
            route.ended(error.as_ref(), queue, service);
        }
        let (outputs, queue, _) = outcome?;
        Ok(StepResult { outputs, queue: queue + waited, ran: true })
    }

    /// Records the span of one call of the step.
    pub(super) fn end_span(context: &CallContext, position: CallPosition, error: Option<&Error>) {
        let Some(span) = context.trace.span() else { return };
        let mut attributes: Attributes = smallvec![
            ("hostler.model", (&context.model).into()),
            ("hostler.version", (&context.version).into()),
        ];
        let CallPosition { attempt, round, .. } = position;
        for (key, number) in
            [("hostler.step.attempt", attempt as usize), ("hostler.step.round", round as usize)]
        {
            if number > 1 {
                attributes.push((key, number.into()));
            }
        }
        span.end(attributes, error.map(Error::message));
    }

    /// Returns the outputs, the time in the queue and the work of one call.
    async fn call_target(
        &self,
        target: &ModelTarget,
        context: &Arc<CallContext>,
        inputs: Vec<Tensor>,
        position: CallPosition,
    ) -> Result<(Vec<Tensor>, Duration, Service)> {
        let began = Instant::now();
        let inline_result = |outputs: Vec<Tensor>| {
            let service = Service { infer: began.elapsed(), rows: 1, ..Service::default() };
            (outputs, Duration::ZERO, service)
        };
        if let Some(pipeline) = PipelineModel::of(&*target.callable) {
            let is_deep = (self.account.depth + 1).is_multiple_of(NESTED_MAX);
            // The timeout of the model is enforced here, since no executor does it for a nested
            // pipeline.
            let own_deadline = context.deadline.filter(|_| context.deadline != self.context.deadline);
            let may_run_inline = self.is_alone && !is_deep && own_deadline.is_none();
            let path = context.steps.is_some().then(|| self.account.step_path(&self.step().name).into());
            let account = self.account.nested(&pipeline.program.graph, may_run_inline, self.reuse, path);
            context.begin();
            let run = match is_deep {
                true => {
                    let callable = Arc::clone(&target.callable);
                    run_in_task(self.run_nested, callable, Arc::clone(context), inputs, account)
                }
                false => (self.run_nested)(pipeline, context, inputs, &account),
            };
            let outputs = match own_deadline {
                None => run.await?,
                Some(at) => match tokio::time::timeout_at(at.into(), run).await {
                    Ok(outputs) => outputs?,
                    Err(_) => {
                        context.cancellation.expire();
                        return Err(Error::deadline("the deadline of the request has passed"));
                    }
                },
            };
            return Ok(inline_result(outputs.unwrap_or_default()));
        }
        let mut inputs = inputs;
        // A call with its own timeout does not run inline: nothing would notice the timeout while
        // the call occupies this thread. Neither do repeated rounds: they must wait behind new
        // work.
        if self.is_alone && position.round <= 1 && context.deadline == self.context.deadline {
            context.begin();
            match target.run_step(context, inputs).await {
                Ok(outputs) => return outputs.map(inline_result),
                Err(returned) => inputs = returned,
            }
        }
        let precedence = if position.round > 1 {
            Precedence::Repeated(self.account.since)
        } else {
            Precedence::Started(self.account.since)
        };
        let mut responses = target.start_step(context, inputs, precedence).await?;
        self.account.track(responses.release());
        let response = responses.one().await?;
        let (queue, service) = (response.queue_wait, response.service);
        Ok((response.tensors()?, queue, service))
    }
}

/// Returns the pause before the next attempt. Half of it is random, so that calls that failed
/// together are not repeated together.
fn pause(retry: &Retry, attempt: u32) -> Duration {
    let factor = retry.factor.powi(attempt as i32 - 1);
    let pause = retry.interval.as_secs_f64() * factor;
    let pause = pause.min(retry.max_interval.as_secs_f64());
    Duration::from_secs_f64(pause * (0.5 + fastrand::f64() / 2.0))
}
