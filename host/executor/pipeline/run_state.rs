//! The state of one request in a pipeline: its frames, the steps that run, and the responses that
//! wait to be sent. The modules that decide, run and end steps are implemented on top of it.

use super::account::RequestAccount;
use super::frame::{Frame, StepState};
use super::items::Items;
use super::model::PipelineModel;
use super::reusability::Reuse;
use super::step::StepEnd;
use crate::error::{Error, Result};
use crate::executor::callable::BoxFuture;
use crate::graph::{OutputProgram, Program};
use crate::predict::{CallContext, Tensor};
use futures_util::stream::FuturesUnordered;
use slab::Slab;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// The scope of the request itself.
pub(super) const ROOT: usize = 0;

/// The state of a request, from the start of its pipeline to its end.
pub(super) struct RunState<'a> {
    pub model: &'a PipelineModel,
    pub program: &'a Program,
    pub context: &'a Arc<CallContext>,
    pub account: &'a Arc<RequestAccount>,
    pub frames: Slab<Frame>,
    /// Steps that are to be decided again, each with its frame.
    pub open: Vec<(usize, usize)>,
    /// Steps that were decided to run and are not started yet.
    pub ready: Vec<ReadyStep>,
    pub running: FuturesUnordered<BoxFuture<'a, Event<'a>>>,
    pub streams: Vec<Stream<'a>>,
    /// By step, whether it is decided at all: a requested output needs it, or it always runs.
    pub is_active: Vec<bool>,
    /// By output, whether the caller requested it.
    pub is_wanted: Vec<bool>,
    pub rows: Rows,
    /// Answers of items, each with its frame, by number: kept until those before them are sent.
    pub answers: BTreeMap<u64, (usize, Vec<Tensor>)>,
    /// The number of the item whose answer is sent next.
    pub next_answer: u64,
    /// The first item that failed, if items are answers. Those before it are still sent.
    pub failing: Option<(u64, Error)>,
    /// The caller has its answer or its error. Only detached steps still run.
    pub is_answered: bool,
    /// The records of all steps are made.
    pub has_ended: bool,
}

impl Drop for RunState<'_> {
    /// A run that is dropped, by a timeout around it, has an end as well.
    fn drop(&mut self) {
        if !self.has_ended {
            self.record_unfinished();
        }
    }
}

/// A step that was decided to run, with its inputs.
pub(super) struct ReadyStep {
    pub frame: usize,
    pub step: usize,
    pub inputs: Vec<Tensor>,
    /// All inputs are the caller's own, from the request.
    pub inputs_are_callers: bool,
    pub reuse: Reuse,
}

/// What happened to a step that runs.
pub(super) enum Event<'a> {
    StepEnded { frame: usize, step: usize, inputs: Option<Vec<Tensor>>, end: StepEnd },
    StreamStarted { frame: usize, step: usize, items: Result<Items<'a>> },
    Item { frame: usize, step: usize, items: Items<'a>, item: Option<Result<Vec<Tensor>>> },
}

/// The rows of a request whose rows are computed separately.
#[derive(Default)]
pub(super) struct Rows {
    /// By row.
    pub inputs: Vec<Vec<Tensor>>,
    /// The next row to start.
    pub next: usize,
    /// The outputs of each row that has ended.
    pub done: Vec<Option<Vec<Tensor>>>,
    pub unfinished: usize,
}

/// A streaming step whose stream, or whose items, have not ended.
pub(super) struct Stream<'a> {
    pub frame: usize,
    pub step: usize,
    /// Present while the maximum number of items is in flight, so that no further item is read.
    pub items: Option<Items<'a>>,
    /// The number of items whose frames exist.
    pub in_flight: usize,
    /// The number of the next item.
    pub next_number: u64,
    /// The end of the stream, once it has ended.
    pub end: Option<Result<()>>,
    pub started: Instant,
}

impl<'a> RunState<'a> {
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
            let needs = |output: &OutputProgram| output.needs[step];
            program.is_always[step]
                // Every item of a stream has a response, whichever outputs are requested.
                || (program.graph.streaming && program.outputs.iter().any(needs))
                || program.outputs.iter().zip(&is_wanted).any(|(output, wanted)| *wanted && needs(output))
        });
        RunState {
            model,
            program,
            context,
            account,
            frames: Slab::new(),
            open: Vec::new(),
            ready: Vec::new(),
            running: FuturesUnordered::new(),
            streams: Vec::new(),
            is_active: is_active.collect(),
            is_wanted,
            rows: Rows::default(),
            answers: BTreeMap::new(),
            next_answer: 0,
            failing: None,
            is_answered: false,
            has_ended: false,
        }
    }

    /// Returns which row or item a frame is, for messages.
    pub(super) fn number(&self, frame: usize) -> Option<(&'static str, u64)> {
        let frame = &self.frames[frame];
        match frame.parent {
            Some(_) => Some(("item", frame.number)),
            None if self.program.graph.each_row => Some(("row", frame.number)),
            None => None,
        }
    }

    /// Adds the pipeline and the step to an error.
    pub(super) fn named(&self, step: usize, error: Error) -> Error {
        let step = &self.program.graph.steps[step];
        let pipeline = &self.program.graph.name;
        error.context(format!("pipeline \"{pipeline}\": step \"{}\"", step.name)).step(&step.name)
    }

    pub(super) fn stream(&mut self, frame: usize, step: usize) -> Option<&mut Stream<'a>> {
        self.streams.iter_mut().find(|stream| stream.frame == frame && stream.step == step)
    }

    /// Returns the frame of `scope` that contains `frame`.
    pub(super) fn enclosing_frame(&self, frame: usize, scope: usize) -> Option<usize> {
        std::iter::successors(Some(frame), |at| self.frames[*at].parent)
            .find(|at| self.frames[*at].scope == scope)
    }

    /// Returns the frames of a scope that lie within another frame.
    pub(super) fn frames_within(&self, outer: usize, scope: usize) -> Vec<usize> {
        let of_scope = self.frames.iter().filter(|(_, frame)| frame.scope == scope);
        let lies_within = |at: &usize| {
            std::iter::successors(Some(*at), |at| self.frames.get(*at)?.parent).any(|at| at == outer)
        };
        of_scope.map(|(at, _)| at).filter(lies_within).collect()
    }

    pub(super) fn is_over(&self, frame: usize, step: usize) -> bool {
        // An inactive step is never decided, and never waited for.
        if !self.is_active[step] {
            return true;
        }
        let at = self.enclosing_frame(frame, self.program.steps[step].scope);
        at.is_some_and(|at| self.frames[at].cells[step].state == StepState::Over)
    }

    /// Returns the number of detached steps of a frame that are not over.
    pub(super) fn unfinished_detached(&self, frame: &Frame) -> usize {
        let steps = self.program.scopes[frame.scope].steps.iter();
        let is_left = |step: &&usize| {
            let (program, cell) = (&self.program.steps[**step], &frame.cells[**step]);
            program.is_detached && self.is_active[**step] && cell.state != StepState::Over
        };
        if self.program.has_detached { steps.filter(is_left).count() } else { 0 }
    }

    /// Returns true if an error of the step does not fail the request.
    pub(super) fn is_tolerated(&self, step: usize) -> bool {
        self.program.graph.steps[step].skips_on_error
            || self.program.steps[step].is_detached
            || self.is_answered
    }
}
