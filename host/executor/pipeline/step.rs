//! One step of one request, from its inputs to its outputs: rounds of a loop, parts, attempts, and the calls of its model.

use super::super::{BoxFuture, Callable, ModelTarget, Order};
use super::account::Account;
use super::model::{Answers, PipelineModel, StepTarget};
use crate::error::{Error, Kind, Result};
use crate::graph::condition::{self, Environment, TensorRef};
use crate::graph::{Member, Retry, Step};
use crate::predict::{Context, Parameter, Response, Responses, Service, Tensor};
use futures_util::{StreamExt, TryStreamExt};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Pipelines within one another that one task runs.
const NESTED_MAX: usize = 4;

/// Parts of a step that run at once.
const PARTS_AT_ONCE: usize = 64;

/// A step that is about to run, or runs.
#[derive(Clone)]
pub(super) struct StepRun<'a> {
    pub model: &'a PipelineModel,
    pub context: &'a Arc<Context>,
    pub account: &'a Arc<Account>,
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
struct Place {
    round: u32,
    rows: Option<(usize, usize)>,
    attempt: u32,
}

struct Called {
    outputs: Vec<Tensor>,
    queue: Duration,
    /// False where there were no rows to run it for.
    ran: bool,
}

impl<'a> StepRun<'a> {
    pub fn step(&self) -> &'a Step {
        &self.model.program.graph.steps[self.at]
    }

    fn target(&self) -> &'a StepTarget {
        let binding = &self.model.bindings[self.at];
        let version = binding.pick.as_ref().map_or(0, |pick| pick(self.context));
        binding.versions.get(version).unwrap_or(&binding.versions[0])
    }

    /// When it must have ended, by the request and by its own time.
    fn deadline(&self, started: Instant) -> Option<Instant> {
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
    fn own_timeout(&self, error: Error, deadline: Option<Instant>) -> Error {
        let is_own = error.kind() == Kind::Deadline && deadline != self.context.deadline;
        match self.step().timeout {
            Some(timeout) if is_own => {
                let message = format!("its timeout_ms = {} has passed", timeout.as_millis());
                self.named(Error::deadline(message), Place::default())
            }
            _ => error,
        }
    }

    /// Runs once, or again as long as the condition of its loop says.
    async fn rounds(&self, mut inputs: Vec<Tensor>, deadline: Option<Instant>) -> Result<Called> {
        let step = self.step();
        let Some(looped) = &step.looped else { return self.parts(inputs, deadline).await };
        let condition = self.model.program.steps[self.at].again_while.as_ref();
        let condition = condition.expect("invariant: a loop has a condition");
        let mut queue = Duration::ZERO;
        for round in 1..=looped.max {
            let place = Place { round, ..Place::default() };
            let called = self.attempts(inputs.clone(), place, deadline).await?;
            queue += called.queue;
            let own = Own { outputs: &called.outputs, outside: self.outside.as_deref() };
            let again = condition::evaluate(condition, &own);
            let again = again.map_err(|error| self.named(error.context("loop.while"), place))?;
            if !again || (round == looped.max && looped.goes_on_at_max) {
                return Ok(Called { queue, ..called });
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
        Err(self.named(Error::failed(message), Place::default()))
    }

    /// Runs once, or once for each part of its rows.
    async fn parts(&self, inputs: Vec<Tensor>, deadline: Option<Instant>) -> Result<Called> {
        let Some(each) = &self.step().each else {
            return self.attempts(inputs, Place::default(), deadline).await;
        };
        let named = |error: Error| self.named(error, Place::default());
        let rows = self.rows(&inputs).map_err(named)?;
        if rows == 0 {
            let outputs = self.without_rows().map_err(named)?;
            return Ok(Called { outputs, queue: Duration::ZERO, ran: false });
        }
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
        let runs = parts.into_iter().enumerate().map(|(number, inputs)| {
            let first = number * each.rows;
            let place = Place { rows: Some((first, first + sizes[number] - 1)), ..Place::default() };
            let run: BoxFuture<'_, Result<Called>> = Box::pin(alone.attempts(inputs, place, deadline));
            run
        });
        let mut runs: Vec<_> = runs.collect();
        if runs.len() == 1 {
            return runs.remove(0).await;
        }
        let all: Vec<Called> = futures_util::stream::iter(runs).buffered(PARTS_AT_ONCE).try_collect().await?;
        let queue = all.iter().map(|called| called.queue).max().unwrap_or_default();
        Ok(Called { outputs: self.stacked(&all).map_err(named)?, queue, ran: true })
    }

    /// The rows of what is split, which must be the same.
    fn rows(&self, inputs: &[Tensor]) -> Result<usize> {
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
    fn without_rows(&self) -> Result<Vec<Tensor>> {
        let empty = self.model.program.steps[self.at].outputs.iter().map(|spec| {
            let rest = spec.shape.iter().skip(1).map(|&dimension| dimension.max(0));
            let shape = std::iter::once(0).chain(rest).collect();
            Tensor::new(Arc::clone(&spec.name), spec.datatype, shape, bytes::Bytes::new())
        });
        empty.collect()
    }

    /// The outputs of all parts, one behind the other.
    fn stacked(&self, parts: &[Called]) -> Result<Vec<Tensor>> {
        let mut stacked = Vec::new();
        for spec in &self.model.program.steps[self.at].outputs {
            let of =
                |called: &'_ Called| called.outputs.iter().position(|tensor| *tensor.name() == *spec.name);
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

    /// Calls the model until it answers, fails for good, or has no attempt left.
    async fn attempts(&self, inputs: Vec<Tensor>, place: Place, deadline: Option<Instant>) -> Result<Called> {
        let Some(retry) = &self.step().retry else { return self.call(inputs, place, deadline).await };
        let mut attempt = 1;
        loop {
            let place = Place { attempt, ..place };
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
    async fn call(&self, inputs: Vec<Tensor>, place: Place, deadline: Option<Instant>) -> Result<Called> {
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

    async fn called(&self, inputs: Vec<Tensor>, place: Place, deadline: Option<Instant>) -> Result<Called> {
        self.account.visit()?;
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
        Ok(Called { outputs, queue: queue + waited, ran: true })
    }

    fn step_context(
        &self,
        target: &ModelTarget,
        deadline: Option<Instant>,
        now: Instant,
    ) -> Result<Arc<Context>> {
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
        context: &Arc<Context>,
        inputs: Vec<Tensor>,
        place: Place,
    ) -> Result<(Vec<Tensor>, Duration, Service)> {
        let began = Instant::now();
        let run_here = |outputs: Vec<Tensor>| {
            let service = Service { infer: began.elapsed(), rows: 1, ..Service::default() };
            (outputs, Duration::ZERO, service)
        };
        if let Some(pipeline) = target.callable.pipeline() {
            let is_deep = (self.account.depth + 1).is_multiple_of(NESTED_MAX);
            let account = self.account.below(&pipeline.program.graph, self.is_alone && !is_deep);
            let outputs = match is_deep {
                true => apart(Arc::clone(&target.callable), Arc::clone(context), inputs, account).await?,
                false => nested(pipeline, context, inputs, &account).await?,
            };
            return Ok(run_here(outputs.unwrap_or_default()));
        }
        let mut inputs = inputs;
        // Nobody would notice the end of a time of its own while it holds this thread.
        if self.is_alone && context.deadline == self.context.deadline {
            context.begin();
            match target.run_step(context, inputs).await {
                Ok(outputs) => return outputs.map(run_here),
                Err(back) => inputs = back,
            }
        }
        let order =
            if place.round > 1 { Order::Again(self.account.since) } else { Order::Begun(self.account.since) };
        let mut responses = target.start_step(context, inputs, order).await?;
        self.account.called(responses.release());
        let response = responses.one().await?;
        let (queue, service) = (response.queue_wait, response.service);
        Ok((response.tensors()?, queue, service))
    }

    /// Begins a model with any number of responses.
    pub async fn stream(self, inputs: Vec<Tensor>) -> Result<Items<'a>> {
        let started = Instant::now();
        let deadline = self.deadline(started);
        let callers_only = self.are_callers;
        let begun = async {
            self.account.visit()?;
            let permit = match &self.model.limits[self.at] {
                Some(limit) => Some(limit.enter(self.account.since).await),
                None => None,
            };
            let StepTarget { target, .. } = self.target();
            let context = self.step_context(target, deadline, Instant::now())?;
            target.check_step(&inputs)?;
            let responses = target.start_step(&context, inputs, Order::Begun(self.account.since)).await?;
            self.account.called(responses.release());
            Ok((responses, permit))
        };
        match begun.await {
            Ok((responses, permit)) => {
                Ok(Items { responses, started, callers_only, _permit: permit, run: self.clone() })
            }
            Err(error) => {
                let error: Error = error;
                let error = error.settled();
                let is_hosts = error.kind().is_about_request() && !callers_only;
                Err(self.named(if is_hosts { error.as_failure() } else { error }, Place::default()))
            }
        }
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
    fn named(&self, error: Error, place: Place) -> Error {
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

/// Runs a pipeline within another one.
fn nested<'r>(
    pipeline: &'r PipelineModel,
    context: &'r Arc<Context>,
    inputs: Vec<Tensor>,
    account: &'r Arc<Account>,
) -> BoxFuture<'r, Result<Option<Vec<Tensor>>>> {
    Box::pin(async move { pipeline.run(context, inputs, account, &mut OneAnswer).await })
}

/// The same as a task of its own, so that pipelines that are nested deeply do not use up the stack of a thread.
async fn apart(
    callable: Arc<dyn Callable>,
    context: Arc<Context>,
    inputs: Vec<Tensor>,
    account: Arc<Account>,
) -> Result<Option<Vec<Tensor>>> {
    /// The task ends with the step that waits for it.
    struct Ends(tokio::task::AbortHandle);
    impl Drop for Ends {
        fn drop(&mut self) {
            self.0.abort();
        }
    }
    let task = tokio::spawn(async move {
        let pipeline = callable.pipeline().expect("invariant: asked of a pipeline");
        nested(pipeline, &context, inputs, &account).await
    });
    let _ends = Ends(task.abort_handle());
    task.await.unwrap_or_else(|_| Err(Error::failed("the pipeline within ended without an answer")))
}

/// The items of a streaming step.
pub(super) struct Items<'a> {
    run: StepRun<'a>,
    responses: Responses,
    started: Instant,
    callers_only: bool,
    _permit: Option<super::limits::Permit<'a>>,
}

impl Items<'_> {
    pub async fn next(&mut self) -> Option<Result<Vec<Tensor>>> {
        let item = self.responses.next().await.map(|item| item.and_then(Response::tensors));
        let StepTarget { route, .. } = self.run.target();
        match item {
            Some(Ok(outputs)) => {
                if let Err(error) = self.run.account.visit() {
                    return Some(Err(self.run.named(error, Place::default())));
                }
                Some(Ok(outputs))
            }
            Some(Err(error)) => {
                if self.run.account.counts {
                    route.ended(Some(&error), Duration::ZERO, Service::default());
                }
                let error = error.settled();
                let is_hosts = error.kind().is_about_request() && !self.callers_only;
                let error = if is_hosts { error.as_failure() } else { error };
                Some(Err(self.run.named(error, Place::default())))
            }
            None => {
                if self.run.account.counts {
                    let service = Service { infer: self.started.elapsed(), rows: 1, ..Service::default() };
                    route.ended(None, Duration::ZERO, service);
                }
                None
            }
        }
    }

    pub fn started(&self) -> Instant {
        self.started
    }
}

/// For a pipeline within another one, which answers once.
struct OneAnswer;

impl Answers for OneAnswer {
    fn send(&mut self, _: Vec<Tensor>) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Err(Error::failed("a step that answers once gave several responses")) })
    }

    fn answers_early(&self) -> bool {
        false
    }

    fn answer(&mut self, _: Vec<Tensor>) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

/// The latest outputs of a loop, and what is around it.
struct Own<'a> {
    outputs: &'a [Tensor],
    outside: Option<&'a Snapshot>,
}

/// What a condition may ask about, as it was when its step began.
pub(super) struct Snapshot {
    pub context: Arc<Context>,
    pub tensors: Vec<(TensorRef, Tensor)>,
    pub steps: Vec<(Arc<str>, bool, Option<Kind>)>,
    pub bucket: u8,
}

impl Environment for Snapshot {
    fn tensor(&self, of: &TensorRef) -> Option<&Tensor> {
        self.tensors.iter().find(|(known, _)| known == of).map(|(_, tensor)| tensor)
    }

    fn parameter(&self, name: &str) -> Option<&Parameter> {
        self.context.parameter(name)
    }

    fn ran(&self, step: &str) -> bool {
        self.steps.iter().any(|(known, ran, _)| **known == *step && *ran)
    }

    fn error(&self, step: &str) -> Option<Kind> {
        self.steps.iter().find(|(known, ..)| **known == *step).and_then(|(.., error)| *error)
    }

    fn bucket(&self) -> i64 {
        self.bucket.into()
    }
}

impl Environment for Own<'_> {
    fn tensor(&self, of: &TensorRef) -> Option<&Tensor> {
        match of {
            TensorRef::Own(name) => self.outputs.iter().find(|tensor| *tensor.name() == **name),
            _ => self.outside?.tensor(of),
        }
    }

    fn parameter(&self, name: &str) -> Option<&Parameter> {
        self.outside?.parameter(name)
    }

    fn ran(&self, step: &str) -> bool {
        self.outside.is_some_and(|outside| outside.ran(step))
    }

    fn error(&self, step: &str) -> Option<Kind> {
        self.outside?.error(step)
    }

    fn bucket(&self) -> i64 {
        self.outside.map_or(0, |outside| outside.bucket())
    }
}

/// Half of it is chance, so that those who failed together do not come back together.
fn pause(retry: &Retry, attempt: u32) -> Duration {
    let factor = retry.factor.powi(attempt as i32 - 1);
    let pause = retry.interval.as_secs_f64() * factor;
    let pause = pause.min(retry.max_interval.as_secs_f64());
    Duration::from_secs_f64(pause * (0.5 + fastrand::f64() / 2.0))
}
