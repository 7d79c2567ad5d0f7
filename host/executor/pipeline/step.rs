//! One step of one request, from its inputs to its outputs: rounds of a loop, parts, attempts, and the calls of its model.

use super::super::{ModelTarget, Priority};
use super::account::RequestAccount;
use super::model::{PipelineModel, StepTarget};
use super::nested::{NESTED_MAX, apart, nested};
use super::snapshot::{Own, Snapshot};
use crate::error::{Error, Kind, Result};
use crate::graph::condition;
use crate::graph::{Member, Retry, Step};
use crate::predict::{CallContext, Parameter, Service, Tensor};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A step that is about to run, or runs.
#[derive(Clone)]
pub(super) struct StepRun<'a> {
    pub model: &'a PipelineModel,
    pub context: &'a Arc<CallContext>,
    pub account: &'a Arc<RequestAccount>,
    pub at: usize,
    /// Which row or item this is.
    pub number: Option<(&'static str, u64)>,
    /// The answer does not wait for it, and the caller's leaving does not stop it.
    pub is_detached: bool,
    /// Nothing else is to be done meanwhile.
    pub is_alone: bool,
    /// Its inputs are those of the request.
    pub are_callers: bool,
    /// What the condition of its loop asks about besides its own outputs.
    pub outside: Option<Arc<Snapshot>>,
}

/// How a step ended.
pub(super) struct StepEnd {
    pub outputs: Result<Vec<Tensor>>,
    /// Whether its model was called.
    pub ran: bool,
    /// In which it waited for places, of the time that it took.
    pub queue: Duration,
    pub time: Duration,
}

/// What one call is a part of, for its error.
#[derive(Clone, Copy, Default)]
pub(super) struct StepSlot {
    pub round: u32,
    pub rows: Option<(usize, usize)>,
    pub attempt: u32,
}

pub(super) struct StepResult {
    pub outputs: Vec<Tensor>,
    pub queue: Duration,
    /// False where there were no rows to run it for.
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

    pub(super) fn target(&self) -> &'a StepTarget {
        let binding = &self.model.bindings[self.at];
        let version = binding.pick.as_ref().map_or(0, |pick| pick(self.context));
        binding.versions.get(version).unwrap_or(&binding.versions[0])
    }

    /// When it must have ended, by the request and by its own time.
    pub(super) fn deadline(&self, started: Instant) -> Option<Instant> {
        let own = self.step().timeout.map(|timeout| started + timeout);
        match (self.is_detached, own) {
            (true, Some(own)) => Some(own),
            _ => self.context.deadline.into_iter().chain(own).min(),
        }
    }

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
        let queue = outcome.as_ref().map_or(Duration::ZERO, |called| called.queue).min(time);
        let ran = outcome.as_ref().is_ok_and(|called| called.ran) || outcome.is_err();
        let outputs = outcome.map(|called| called.outputs).map_err(|error| self.own_timeout(error, deadline));
        StepEnd { outputs, ran, queue, time: time - queue }
    }

    /// Says whose time it was that has passed.
    pub(super) fn own_timeout(&self, error: Error, deadline: Option<Instant>) -> Error {
        let has_passed = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        let is_own = error.kind() == Kind::Deadline && has_passed && deadline != self.context.deadline;
        match self.step().timeout {
            Some(timeout) if is_own => {
                let message = format!("its timeout_ms = {} has passed", timeout.as_millis());
                self.named(Error::deadline(message), StepSlot::default())
            }
            _ => error,
        }
    }

    /// Runs once, or again as long as the condition of its loop says.
    async fn rounds(&self, mut inputs: Vec<Tensor>, deadline: Option<Instant>) -> Result<StepResult> {
        let step = self.step();
        let Some(looped) = &step.looped else { return self.parts(inputs, deadline).await };
        let condition = self.model.program.steps[self.at].again_while.as_ref();
        let condition = condition.expect("invariant: a loop has a condition");
        let mut queue = Duration::ZERO;
        for round in 1..=looped.max {
            let place = StepSlot { round, ..StepSlot::default() };
            let called = self.attempts(inputs.clone(), place, deadline).await?;
            queue += called.queue;
            let own = Own { outputs: &called.outputs, outside: self.outside.as_deref() };
            let again = condition::evaluate(condition, &own);
            let again = again.map_err(|error| self.named(error.context("loop.while"), place))?;
            if !again || (round == looped.max && looped.goes_on_at_max) {
                return Ok(StepResult { queue, ..called });
            }
            for (input, output) in &looped.carry {
                let carried = called.outputs.iter().find(|tensor| *tensor.name() == **output);
                let carried = carried.map(|tensor| tensor.renamed(Arc::clone(input)));
                let carried = carried.ok_or_else(|| {
                    self.named(
                        Error::failed(format!("the model omitted \"{output}\", which the loop carries")),
                        place,
                    )
                })?;
                match inputs.iter_mut().find(|tensor| *tensor.name() == **input) {
                    Some(tensor) => *tensor = carried,
                    None => inputs.push(carried),
                }
            }
        }
        let message = format!("the loop did not end within max = {} rounds", looped.max);
        Err(self.named(Error::failed(message), StepSlot::default()))
    }

    /// Calls the model until it answers, fails for good, or has no attempt left.
    pub(super) async fn attempts(
        &self,
        inputs: Vec<Tensor>,
        place: StepSlot,
        deadline: Option<Instant>,
    ) -> Result<StepResult> {
        let Some(retry) = &self.step().retry else { return self.call(inputs, place, deadline).await };
        let mut attempt = 1;
        loop {
            let place = StepSlot { attempt, ..place };
            match self.call(inputs.clone(), place, deadline).await {
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

    /// Calls the model once.
    async fn call(
        &self,
        inputs: Vec<Tensor>,
        place: StepSlot,
        deadline: Option<Instant>,
    ) -> Result<StepResult> {
        let callers_only = self.are_callers && place.round <= 1;
        let outcome = self.called(inputs, place, deadline).await;
        outcome.map_err(|error| {
            let error = error.settled();
            let error = if error.kind().is_about_request() {
                if callers_only { self.in_callers_words(error) } else { error.as_failure() }
            } else {
                error
            };
            self.named(error, place)
        })
    }

    async fn called(
        &self,
        inputs: Vec<Tensor>,
        place: StepSlot,
        deadline: Option<Instant>,
    ) -> Result<StepResult> {
        self.account.session()?;
        let waited = Instant::now();
        let _parallel = self.account.parallel().await;
        let _permit = match &self.model.limits[self.at] {
            Some(limit) => Some(limit.enter(self.account.since).await),
            None => None,
        };
        let began = Instant::now();
        let waited = began - waited;
        let StepTarget { target, route } = self.target();
        let context = self.step_context(target, deadline, began)?;
        let _leaving = (!self.is_detached).then(|| self.context.cancellation.cancels(&context));
        target.check_step(&inputs)?;
        let outcome = self.outcome(target, &context, inputs, place).await;
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
        for (name, value) in &self.step().params {
            context.parameters.retain(|(known, _)| known != name);
            context.parameters.push((name.clone(), Parameter::clone(value)));
        }
        Ok(Arc::new(context))
    }

    /// Outputs, time in the queue and the work.
    async fn outcome(
        &self,
        target: &ModelTarget,
        context: &Arc<CallContext>,
        inputs: Vec<Tensor>,
        place: StepSlot,
    ) -> Result<(Vec<Tensor>, Duration, Service)> {
        let began = Instant::now();
        let run_here = |outputs: Vec<Tensor>| {
            let service = Service { infer: began.elapsed(), rows: 1, ..Service::default() };
            (outputs, Duration::ZERO, service)
        };
        if let Some(pipeline) = PipelineModel::of(&*target.callable) {
            let is_deep = (self.account.depth + 1).is_multiple_of(NESTED_MAX);
            // A time of its own is watched here: nobody else waits for its answer.
            let own_time = context.deadline.filter(|_| context.deadline != self.context.deadline);
            let may_run_here = self.is_alone && !is_deep && own_time.is_none();
            let path = context.steps.is_some().then(|| self.account.shown(&self.step().name).into());
            let account = self.account.below(&pipeline.program.graph, may_run_here, path);
            context.begin();
            let run = match is_deep {
                true => apart(Arc::clone(&target.callable), Arc::clone(context), inputs, account),
                false => nested(pipeline, context, inputs, &account),
            };
            let outputs = match own_time {
                None => run.await?,
                Some(at) => match tokio::time::timeout_at(at.into(), run).await {
                    Ok(outputs) => outputs?,
                    Err(_) => {
                        context.cancellation.expire();
                        return Err(Error::deadline("the deadline of the request has passed"));
                    }
                },
            };
            return Ok(run_here(outputs.unwrap_or_default()));
        }
        let mut inputs = inputs;
        // Nobody would notice the end of a time of its own while it holds this thread, and rounds wait behind new work.
        if self.is_alone && place.round <= 1 && context.deadline == self.context.deadline {
            context.begin();
            match target.run_step(context, inputs).await {
                Ok(outputs) => return outputs.map(run_here),
                Err(back) => inputs = back,
            }
        }
        let order = if place.round > 1 {
            Priority::Repeated(self.account.since)
        } else {
            Priority::Started(self.account.since)
        };
        let mut responses = target.start_step(context, inputs, order).await?;
        self.account.called(responses.release());
        let response = responses.one().await?;
        let (queue, service) = (response.queue_wait, response.service);
        Ok((response.tensors()?, queue, service))
    }

    /// With the field as the caller knows it.
    fn in_callers_words(&self, error: Error) -> Error {
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

    /// With the pipeline, the step and the run.
    pub(super) fn named(&self, error: Error, place: StepSlot) -> Error {
        let step = self.step();
        let mut run = Vec::new();
        run.extend(self.number.map(|(what, number)| format!("{what} {number}")));
        run.extend(place.rows.map(|(first, last)| format!("rows {first} to {last}")));
        run.extend((place.round > 1).then(|| format!("round {}", place.round)));
        run.extend((place.attempt > 1).then(|| format!("attempt {}", place.attempt)));
        let run = if run.is_empty() { String::new() } else { format!(" ({})", run.join(", ")) };
        let target = &self.target().target;
        let pipeline = &self.model.program.graph.name;
        error
            .context(format!("pipeline \"{pipeline}\": step \"{}\"{run}", step.name))
            .step(&step.name)
            .model(format!("{}:{}", target.model, target.version))
    }
}

/// Half of it is chance, so that those who failed together do not come back together.
fn pause(retry: &Retry, attempt: u32) -> Duration {
    let factor = retry.factor.powi(attempt as i32 - 1);
    let pause = retry.interval.as_secs_f64() * factor;
    let pause = pause.min(retry.max_interval.as_secs_f64());
    Duration::from_secs_f64(pause * (0.5 + fastrand::f64() / 2.0))
}
