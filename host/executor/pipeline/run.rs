//! A pipeline at work for one request: decides which steps run, and runs them until the answer is there.
//!
//! One task does all of it. Steps that are ready together run side by side; a step that is ready alone may run on the
//! worker that polls this. What a step waits for is known from its program, so each end of a step looks only at those
//! that read it.

use super::super::BoxFuture;
use super::account::RequestAccount;
use super::decide::Verdict;
use super::frame::{Frame, HeldValue, State};
use super::items::Items;
use super::metrics::StepOutcome;
use super::model::{PipelineModel, ResponseSink};
use super::rows::Rows;
use super::step::{StepEnd, StepRun};
use super::streams::Stream;
use crate::error::{Error, Result};
use crate::graph::{Program, Reader, ValueRef};
use crate::predict::{CallContext, Tensor};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use slab::Slab;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The scope of the request itself.
pub(super) const ROOT: usize = 0;

pub(super) struct Run<'a> {
    pub(super) model: &'a PipelineModel,
    pub(super) program: &'a Program,
    pub(super) context: &'a Arc<CallContext>,
    pub(super) account: &'a Arc<RequestAccount>,
    pub(super) frames: Slab<Frame>,
    /// Steps to look at, by frame.
    pub(super) open: Vec<(usize, usize)>,
    begun: Vec<BegunStep>,
    pub(super) running: FuturesUnordered<BoxFuture<'a, Event<'a>>>,
    pub(super) streams: Vec<Stream<'a>>,
    /// By step, whether it is to be decided at all.
    pub(super) is_active: Vec<bool>,
    pub(super) is_wanted: Vec<bool>,
    pub(super) rows: Rows,
    /// Answers of items, by number, until those before them are there.
    pub(super) answers: BTreeMap<u64, (usize, Vec<Tensor>)>,
    pub(super) answered: u64,
    /// The first item that failed, where items are answers; those before it are still to be sent.
    pub(super) failing: Option<(u64, Error)>,
    /// The caller has its answer or its error; what is left is detached.
    pub(super) is_answered: bool,
}

/// What a turn of a run has come to.
enum Turn {
    GoesOn,
    Ends(Option<Vec<Tensor>>),
}

struct BegunStep {
    frame: usize,
    step: usize,
    inputs: Vec<Tensor>,
    /// The inputs are those of the request.
    are_callers: bool,
}

pub(super) enum Event<'a> {
    Step { frame: usize, step: usize, inputs: Option<Vec<Tensor>>, end: StepEnd },
    Begun { frame: usize, step: usize, stream: Result<Items<'a>> },
    Item { frame: usize, step: usize, items: Items<'a>, item: Option<Result<Vec<Tensor>>> },
}

impl<'a> Run<'a> {
    pub fn new(
        model: &'a PipelineModel,
        context: &'a Arc<CallContext>,
        account: &'a Arc<RequestAccount>,
    ) -> Self {
        let program = &model.program;
        let wanted = |name: &str| {
            let wanted = context.outputs.as_ref().filter(|outputs| !outputs.is_empty());
            wanted.is_none_or(|outputs| outputs.iter().any(|output| *output == *name))
        };
        let is_wanted: Vec<bool> = program.outputs.iter().map(|output| wanted(&output.name)).collect();
        let is_active = (0..program.steps.len()).map(|step| {
            let needs = |output: &crate::graph::OutputProgram| output.needs[step];
            program.is_always[step]
                // Every item of a stream has a response, whatever is asked of it.
                || (program.graph.streaming && program.outputs.iter().any(needs))
                || program.outputs.iter().zip(&is_wanted).any(|(output, wanted)| *wanted && needs(output))
        });
        Run {
            model,
            program,
            context,
            account,
            frames: Slab::new(),
            open: Vec::new(),
            begun: Vec::new(),
            running: FuturesUnordered::new(),
            streams: Vec::new(),
            is_active: is_active.collect(),
            is_wanted,
            rows: Rows::default(),
            answers: BTreeMap::new(),
            answered: 0,
            failing: None,
            is_answered: false,
        }
    }

    pub async fn run(
        mut self,
        inputs: Vec<Tensor>,
        sink: &mut dyn ResponseSink,
    ) -> Result<Option<Vec<Tensor>>> {
        let outcome = self.work(inputs, sink).await;
        self.cancelled();
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
            self.root(inputs, 0)?;
        }
        let mut failure = None;
        loop {
            match self.turn(sink).await {
                Ok(Turn::GoesOn) => {}
                Ok(Turn::Ends(outputs)) => return failure.map_or(Ok(outputs), Err),
                // Detached steps go on, whatever becomes of the request.
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

    /// Decides what can be decided, answers if it can, and waits for one thing to happen.
    async fn turn(&mut self, sink: &mut dyn ResponseSink) -> Result<Turn> {
        self.decide_open()?;
        self.flush(sink).await?;
        if !self.is_answered
            && let Some(outputs) = self.answer(sink.answers_early())?
        {
            if self.is_finished() {
                return Ok(Turn::Ends(outputs));
            }
            sink.answer(outputs.unwrap_or_default()).await;
            self.is_answered = true;
        }
        if self.is_answered && self.is_finished() {
            return Ok(Turn::Ends(None));
        }
        if !self.open.is_empty() {
            return Ok(Turn::GoesOn);
        }
        let is_alone = self.begun.len() == 1 && self.running.is_empty() && self.account.may_run_here;
        if is_alone && self.program.steps[self.begun[0].step].items.is_none() {
            let one = self.begun.remove(0);
            let work = self.step(one, true);
            let event = watched(self.context, self.is_answered, work).await?;
            return self.handle(event).map(|()| Turn::GoesOn);
        }
        self.start_begun();
        let next = self.running.next();
        match watched(self.context, self.is_answered, next).await? {
            Some(event) => self.handle(event).map(|()| Turn::GoesOn),
            None => {
                let name = &self.program.graph.name;
                let message = format!("pipeline \"{name}\" came to a halt; this is a bug of the host");
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

    /// Starts what was decided to run, side by side with what runs.
    fn start_begun(&mut self) {
        for one in std::mem::take(&mut self.begun) {
            let work = self.step(one, false);
            self.running.push(Box::pin(work));
        }
    }

    /// Sends a response of several. The caller may be slow: what runs goes on meanwhile, since others may wait for what it
    /// holds.
    pub(super) async fn while_sending(&mut self, mut send: BoxFuture<'_, Result<()>>) -> Result<()> {
        loop {
            let context = self.context;
            tokio::select! {
                biased;
                sent = &mut send => return sent,
                Some(event) = self.running.next() => {
                    self.handle(event)?;
                    self.decide_open()?;
                    self.start_begun();
                }
                () = context.cancellation.cancelled() => return Err(stopped(context)),
                // Nobody else looks at the clock while the caller reads nothing.
                () = deadline(context) => context.cancellation.expire(),
            }
        }
    }

    fn has_detached_work(&self) -> bool {
        self.program.has_detached && self.frames.iter().any(|(_, frame)| self.detached_left(frame) > 0)
    }

    /// The work of a step that was decided to run.
    fn step(&self, begun: BegunStep, is_alone: bool) -> impl Future<Output = Event<'a>> + Send + use<'a> {
        let BegunStep { frame, step, inputs, are_callers } = begun;
        let run = StepRun {
            model: self.model,
            context: self.context,
            account: self.account,
            at: step,
            number: self.number(frame),
            is_detached: self.program.steps[step].is_detached,
            is_alone,
            are_callers,
            outside: self.program.steps[step]
                .again_while
                .is_some()
                .then(|| Arc::new(self.snapshot(frame, step))),
        };
        let is_stream = self.program.steps[step].items.is_some();
        let kept = self.context.steps.is_some().then(|| inputs.clone());
        async move {
            if is_stream {
                return Event::Begun { frame, step, stream: run.stream(inputs).await };
            }
            Event::Step { frame, step, inputs: kept, end: run.run(inputs).await }
        }
    }

    /// Which row or item a frame is, for messages.
    pub(super) fn number(&self, frame: usize) -> Option<(&'static str, u64)> {
        let frame = &self.frames[frame];
        match frame.parent {
            Some(_) => Some(("item", frame.number)),
            None if self.program.graph.each_row => Some(("row", frame.number)),
            None => None,
        }
    }

    /// A frame for a request or a row.
    pub(super) fn root(&mut self, inputs: Vec<Tensor>, number: u64) -> Result<usize> {
        let mut frame = Frame::new(self.program, ROOT, None, number);
        for input in &self.program.inputs {
            let tensor = inputs.iter().find(|tensor| *tensor.name() == *input.name).cloned();
            frame.inputs.push(HeldValue::new(tensor, input.readers, self.account)?);
        }
        drop(inputs);
        self.begin_frame(frame)
    }

    /// Opens all steps of a new frame.
    pub(super) fn begin_frame(&mut self, mut frame: Frame) -> Result<usize> {
        let program = self.program;
        let steps = &program.scopes[frame.scope].steps;
        let active: Vec<usize> = steps.iter().copied().filter(|step| self.is_active[*step]).collect();
        frame.left = active.len();
        frame.always_left = active.iter().filter(|step| program.steps[**step].always).count();
        let at = self.frames.insert(frame);
        self.open.extend(active.into_iter().map(|step| (at, step)));
        // What does not run reads nothing.
        for &step in steps {
            if !self.is_active[step] {
                self.release(at, step);
            }
        }
        self.resolve_all(at)?;
        Ok(at)
    }

    /// Whether nothing is left to be done, answered or not.
    fn is_finished(&self) -> bool {
        self.rows.left == 0 && self.frames.iter().all(|(_, frame)| self.detached_left(frame) == 0)
    }

    /// Steps that nobody waits for and that are to run all the same.
    fn detached_left(&self, frame: &Frame) -> usize {
        let steps = self.program.scopes[frame.scope].steps.iter();
        let is_left = |step: &&usize| {
            let (program, cell) = (&self.program.steps[**step], &frame.cells[**step]);
            program.is_detached && self.is_active[**step] && cell.state != State::Over
        };
        if self.program.has_detached { steps.filter(is_left).count() } else { 0 }
    }

    /// The answer, once everything that it waits for is there: none of a stream, which has answered by items.
    fn answer(&mut self, early: bool) -> Result<Option<Option<Vec<Tensor>>>> {
        if self.program.graph.each_row {
            return match self.rows.left {
                0 => self.stacked_rows().map(|rows| Some(Some(rows))),
                _ => Ok(None),
            };
        }
        let Some((_, root)) = self.frames.iter().next() else { return Ok(None) };
        if root.always_left > 0 || (!early && self.detached_left(root) > 0) {
            return Ok(None);
        }
        if self.program.answers_in != ROOT {
            let is_done = root.left == self.detached_left(root) && self.frames.len() == 1;
            return Ok(is_done.then_some(None));
        }
        Ok(self.outputs_of(root).map(Some))
    }

    fn handle(&mut self, event: Event<'a>) -> Result<()> {
        match event {
            Event::Step { frame, step, inputs, end } => self.ended(frame, step, inputs, end),
            Event::Begun { frame, step, stream: Ok(items) } => {
                let started = items.started();
                self.frames[frame].cells[step].ran = true;
                let stream = Stream { frame, step, items: None, live: 0, next: 0, end: None, started };
                self.streams.push(stream);
                self.next_item(frame, step, items);
                Ok(())
            }
            Event::Begun { frame, step, stream: Err(error) } => {
                let zero = Duration::ZERO;
                self.ended(
                    frame,
                    step,
                    None,
                    StepEnd { outputs: Err(error), ran: true, queue: zero, time: zero },
                )
            }
            Event::Item { frame, step, items, item } => self.item(frame, step, items, item),
        }
    }

    /// Looks at a step that waits.
    fn decide(&mut self, frame: usize, step: usize) -> Result<()> {
        // The frame of an item may be gone.
        let Some(known) = self.frames.get(frame) else { return Ok(()) };
        if known.scope != self.program.steps[step].scope
            || known.cells[step].state != State::Waiting
            || !self.is_active[step]
        {
            return Ok(());
        }
        if self.is_answered && !self.program.steps[step].is_detached {
            return self.skipped(frame, step, "the request has ended".to_owned());
        }
        match self.verdict(frame, step) {
            Ok(Verdict::Wait) => Ok(()),
            Ok(Verdict::Skip(why)) => self.skipped(frame, step, why),
            Ok(Verdict::Run(inputs, are_callers)) => {
                self.frames[frame].cells[step].state = State::Running;
                self.release(frame, step);
                self.begun.push(BegunStep { frame, step, inputs, are_callers });
                Ok(())
            }
            Err(error) => {
                self.model.metrics[step].record(StepOutcome::Error, Duration::ZERO, Duration::ZERO);
                self.release(frame, step);
                self.failed(frame, step, error)?;
                self.over(frame, step)
            }
        }
    }

    /// A step needs what it reads no more.
    pub(super) fn release(&mut self, frame: usize, step: usize) {
        let scope = self.frames[frame].scope;
        for value in &self.program.steps[step].reads {
            match value {
                ValueRef::Output(of, output) if self.program.scope_of_outputs(*of) == scope => {
                    self.frames[frame].cells[*of].values[*output].release(self.account);
                }
                ValueRef::Input(input) if scope == ROOT => {
                    self.frames[frame].inputs[*input].release(self.account);
                }
                _ => {}
            }
        }
    }

    /// A step is over: those that look at it are looked at.
    pub(super) fn over(&mut self, frame: usize, step: usize) -> Result<()> {
        let known = &mut self.frames[frame];
        known.cells[step].state = State::Over;
        known.left -= 1;
        known.always_left -= usize::from(self.program.steps[step].always);
        let scope = known.scope;
        for reader in &self.program.steps[step].dependents {
            match *reader {
                Reader::Step(other) => {
                    let inner = self.program.steps[other].scope;
                    if inner == scope {
                        self.open.push((frame, other));
                    } else {
                        let frames = self.frames_within(frame, inner);
                        self.open.extend(frames.into_iter().map(|frame| (frame, other)));
                    }
                }
                Reader::Output(output) => {
                    let frames = match self.program.answers_in == scope {
                        true => vec![frame],
                        false => self.frames_within(frame, self.program.answers_in),
                    };
                    for within in frames {
                        self.resolve(within, output)?;
                        // Its steps may be over, and only this was missing.
                        if within != frame && self.frames[within].left == 0 {
                            self.finish_frame(within)?;
                        }
                    }
                }
            }
        }
        self.finish_frame(frame)
    }
}

/// Waits for work as long as the caller does, or to its end where the caller has its answer.
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

async fn deadline(context: &CallContext) {
    match context.deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

fn stopped(context: &CallContext) -> Error {
    let error = || Error::cancelled("the caller left before the answer was ready");
    context.stopped().unwrap_or_else(error)
}
