//! The driver of a request: decides which steps run, runs them, and sends the responses.
//!
//! One task does all of this. Steps that are ready at the same time run concurrently; a step that
//! is ready alone may run on the worker that polls the task. The program lists who reads each step,
//! so the end of a step leads to decisions only about its readers.

use super::account::RequestAccount;
use super::decide::Verdict;
use super::frame::StepState;
use super::metrics::StepOutcome;
use super::model::PipelineModel;
use super::nested::NestedRun;
use super::response_sink::{ResponseSink, SingleResponse};
use super::reusability::Reuse;
use super::run_state::{Event, ROOT, ReadyStep, RunState, Stream};
use super::step::{StepEnd, StepRun};
use crate::error::{Error, Result};
use crate::executor::callable::BoxFuture;
use crate::predict::{CallContext, Tensor};
use futures_util::StreamExt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

/// Runs a pipeline for a request, or for a step of an outer pipeline. The admission is its
/// caller's.
pub(super) async fn run_pipeline(
    pipeline: &PipelineModel,
    context: &Arc<CallContext>,
    inputs: Vec<Tensor>,
    account: &Arc<RequestAccount>,
    sink: &mut dyn ResponseSink,
) -> Result<Option<Vec<Tensor>>> {
    if let Some(why) = pipeline.why_unavailable() {
        return Err(why.clone());
    }
    RunState::new(pipeline, context, account).run(inputs, sink).await
}

/// Runs a nested pipeline, which responds once.
fn run_nested<'r>(
    pipeline: &'r PipelineModel,
    context: &'r Arc<CallContext>,
    inputs: Vec<Tensor>,
    account: &'r Arc<RequestAccount>,
) -> NestedRun<'r> {
    Box::pin(async move { run_pipeline(pipeline, context, inputs, account, &mut SingleResponse).await })
}

impl<'a> RunState<'a> {
    async fn run(mut self, inputs: Vec<Tensor>, sink: &mut dyn ResponseSink) -> Result<Option<Vec<Tensor>>> {
        self.record_expected();
        let outcome = self.work(inputs, sink).await;
        self.record_unfinished();
        self.has_ended = true;
        outcome
    }

    async fn work(
        &mut self,
        inputs: Vec<Tensor>,
        sink: &mut dyn ResponseSink,
    ) -> Result<Option<Vec<Tensor>>> {
        if self.program.graph.each_row {
            self.cut_rows(inputs)?;
            self.begin_rows()?;
        } else {
            self.open_root(inputs, 0)?;
        }
        let mut failure = None;
        loop {
            match self.advance(sink).await {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(outputs)) => return failure.map_or(Ok(outputs), Err),
                // Detached steps continue, although the request has failed.
                Err(error) if self.has_detached_work() && !self.is_answered && sink.answers_early() => {
                    sink.fail(&error);
                    self.is_answered = true;
                    self.context.cancellation.cancel();
                    failure = Some(error);
                }
                Err(error) => return Err(failure.unwrap_or(error)),
            }
        }
    }

    /// Decides all open steps, sends the answer if it is known, and waits for one event. Breaks
    /// with the last response at the end of the request.
    async fn advance(&mut self, sink: &mut dyn ResponseSink) -> Result<ControlFlow<Option<Vec<Tensor>>>> {
        self.decide_open()?;
        self.send_answers(sink).await?;
        if !self.is_answered
            && let Some(outputs) = self.final_answer(sink.answers_early())?
        {
            if self.is_finished() {
                return Ok(ControlFlow::Break(outputs));
            }
            sink.answer(outputs.unwrap_or_default()).await;
            self.is_answered = true;
        }
        if self.is_answered && self.is_finished() {
            return Ok(ControlFlow::Break(None));
        }
        if !self.open.is_empty() {
            return Ok(ControlFlow::Continue(()));
        }
        let is_alone = self.ready.len() == 1 && self.running.is_empty() && self.account.may_run_inline;
        if is_alone && self.program.steps[self.ready[0].step].items.is_none() {
            let one = self.ready.remove(0);
            let work = self.step_run(one, true);
            let event = watched(self.context, self.is_answered, work).await?;
            return self.handle(event).map(ControlFlow::Continue);
        }
        self.start_ready();
        let next = self.running.next();
        match watched(self.context, self.is_answered, next).await? {
            Some(event) => self.handle(event).map(ControlFlow::Continue),
            None => {
                let name = &self.program.graph.name;
                let message = format!(
                    "pipeline \"{name}\" stalled: none of its steps can run; this is a bug in the host"
                );
                Err(Error::failed(message))
            }
        }
    }

    fn decide_open(&mut self) -> Result<()> {
        while let Some((frame, step)) = self.open.pop() {
            self.decide(frame, step)?;
        }
        Ok(())
    }

    /// Starts the steps that were decided to run, concurrently with those that run already.
    fn start_ready(&mut self) {
        for one in std::mem::take(&mut self.ready) {
            let work = self.step_run(one, false);
            self.running.push(Box::pin(work));
        }
    }

    /// Sends the answers of items, in the order of the items.
    async fn send_answers(&mut self, sink: &mut dyn ResponseSink) -> Result<()> {
        loop {
            if let Some((_, error)) = self.failing.take_if(|(number, _)| *number <= self.next_answer) {
                return Err(error);
            }
            let Some((at, outputs)) = self.answers.remove(&self.next_answer) else { return Ok(()) };
            self.next_answer += 1;
            // An item whose outputs are all absent has no response.
            if !outputs.is_empty() {
                self.while_sending(sink.send(outputs)).await?;
            }
            let (parent, scope) = (self.frames[at].parent, self.frames[at].scope);
            let (parent, step) = (parent.unwrap_or(ROOT), self.program.scopes[scope].stream.unwrap_or(0));
            self.end_item(at, parent, step)?;
        }
    }

    /// Sends one of several responses. While the client is slow to read it, running steps continue,
    /// since other work may wait for what they hold.
    async fn while_sending(&mut self, mut send: BoxFuture<'_, Result<()>>) -> Result<()> {
        loop {
            let context = self.context;
            tokio::select! {
                biased;
                sent = &mut send => return sent,
                Some(event) = self.running.next() => {
                    self.handle(event)?;
                    self.decide_open()?;
                    self.start_ready();
                }
                () = context.cancellation.cancelled() => return Err(stopped(context)),
                // Nothing else enforces the deadline while the client does not read.
                () = deadline(context) => context.cancellation.expire(),
            }
        }
    }

    fn has_detached_work(&self) -> bool {
        self.program.has_detached && self.frames.iter().any(|(_, frame)| self.unfinished_detached(frame) > 0)
    }

    /// Returns the work of a step that was decided to run.
    fn step_run(&self, ready: ReadyStep, is_alone: bool) -> impl Future<Output = Event<'a>> + Send + use<'a> {
        let ReadyStep { frame, step, inputs, inputs_are_callers, reuse } = ready;
        let run = StepRun {
            model: self.model,
            context: self.context,
            account: self.account,
            at: step,
            number: self.number(frame),
            is_detached: self.program.steps[step].is_detached,
            is_alone,
            inputs_are_callers,
            reuse,
            snapshot: self.program.steps[step]
                .again_while
                .is_some()
                .then(|| Arc::new(self.snapshot(frame, step))),
            run_nested,
        };
        let is_stream = self.program.steps[step].items.is_some();
        let kept = self.records_tensors().then(|| inputs.clone());
        async move {
            if is_stream {
                return Event::StreamStarted { frame, step, items: run.stream(inputs).await };
            }
            Event::StepEnded { frame, step, inputs: kept, end: run.run_or_reuse(inputs).await }
        }
    }

    /// Returns true if nothing is left to run, whether the request is answered or not.
    fn is_finished(&self) -> bool {
        self.rows.unfinished == 0 && self.frames.iter().all(|(_, frame)| self.unfinished_detached(frame) == 0)
    }

    /// Returns the final answer once it is known: `Some(None)` for a stream, whose items were its
    /// answers.
    fn final_answer(&mut self, early: bool) -> Result<Option<Option<Vec<Tensor>>>> {
        if self.program.graph.each_row {
            return match self.rows.unfinished {
                0 => self.stacked_rows().map(|rows| Some(Some(rows))),
                _ => Ok(None),
            };
        }
        let Some((_, root)) = self.frames.iter().next() else { return Ok(None) };
        if root.unfinished_always > 0 || (!early && self.unfinished_detached(root) > 0) {
            return Ok(None);
        }
        if self.program.answers_in != ROOT {
            let is_done = root.unfinished == self.unfinished_detached(root) && self.frames.len() == 1;
            return Ok(is_done.then_some(None));
        }
        Ok(self.outputs_of(root).map(Some))
    }

    fn handle(&mut self, event: Event<'a>) -> Result<()> {
        match event {
            Event::StepEnded { frame, step, inputs, end } => self.step_ended(frame, step, inputs, end),
            Event::StreamStarted { frame, step, items: Ok(items) } => {
                let started = items.started();
                self.frames[frame].cells[step].ran = true;
                self.frames[frame].cells[step].reuse = Reuse::Never;
                let stream =
                    Stream { frame, step, items: None, in_flight: 0, next_number: 0, end: None, started };
                self.streams.push(stream);
                self.next_item(frame, step, items);
                Ok(())
            }
            Event::StreamStarted { frame, step, items: Err(error) } => {
                let zero = Duration::ZERO;
                self.step_ended(
                    frame,
                    step,
                    None,
                    StepEnd { outputs: Err(error), ran: true, is_reused: false, queue: zero, time: zero },
                )
            }
            Event::Item { frame, step, items, item } => self.handle_item(frame, step, items, item),
        }
    }

    /// Decides an open step.
    fn decide(&mut self, frame: usize, step: usize) -> Result<()> {
        // The frame of an item may have been removed.
        let Some(known) = self.frames.get(frame) else { return Ok(()) };
        if known.scope != self.program.steps[step].scope
            || known.cells[step].state != StepState::Waiting
            || !self.is_active[step]
        {
            return Ok(());
        }
        if self.is_answered && !self.program.steps[step].is_detached {
            return self.skip_step(frame, step, "the request has ended".to_owned());
        }
        match self.verdict(frame, step) {
            Ok(Verdict::Wait) => Ok(()),
            Ok(Verdict::Skip(why)) => self.skip_step(frame, step, why),
            Ok(Verdict::Run(inputs, inputs_are_callers)) => {
                let reuse = self.reuse_of(frame, step);
                self.frames[frame].cells[step].state = StepState::Running;
                self.release_reads(frame, step);
                self.record_begin(step);
                self.ready.push(ReadyStep { frame, step, inputs, inputs_are_callers, reuse });
                Ok(())
            }
            Err(error) => {
                self.model.metrics[step].record(StepOutcome::Error, Duration::ZERO, Duration::ZERO);
                self.frames[frame].cells[step].reuse = Reuse::Never;
                let (why, none) = (Some(error.message().to_owned()), Duration::ZERO);
                self.record_step(frame, step, StepOutcome::Error, why, Default::default(), (none, none));
                self.release_reads(frame, step);
                self.step_failed(frame, step, error)?;
                self.finish_step(frame, step)
            }
        }
    }
}

/// Waits for work until the request is cancelled; or to its end, if the request is answered
/// already.
async fn watched<T>(context: &CallContext, is_answered: bool, work: impl Future<Output = T>) -> Result<T> {
    if is_answered {
        return Ok(work.await);
    }
    let mut work = std::pin::pin!(work);
    tokio::select! {
        biased;
        done = &mut work => Ok(done),
        () = context.cancellation.cancelled() => Err(stopped(context)),
    }
}

/// Waits until the deadline of the request.
async fn deadline(context: &CallContext) {
    match context.deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

fn stopped(context: &CallContext) -> Error {
    let error = || Error::cancelled("cancelled by the caller before the answer was ready");
    context.stopped().unwrap_or_else(error)
}
