//! Streams: each response of a streaming step is an item, with its own frame for the steps that
//! read it.

use super::frame::{Frame, GatheredItems, HeldValue, StepState};
use super::items::Items;
use super::run_state::{Event, ROOT, RunState};
use crate::error::{Error, Result};
use crate::predict::Tensor;
use std::time::Duration;

impl<'a> RunState<'a> {
    /// Waits for the next item of a streaming step, or keeps the stream until fewer items are in
    /// flight.
    pub(super) fn next_item(&mut self, frame: usize, step: usize, mut items: Items<'a>) {
        let (window, is_failing) = (self.program.graph.window, self.failing.is_some());
        let Some(stream) = self.stream(frame, step) else { return };
        if stream.in_flight >= window || is_failing {
            stream.items = Some(items);
            return;
        }
        self.running.push(Box::pin(async move {
            let item = items.next().await;
            Event::Item { frame, step, items, item }
        }));
    }

    /// Handles the next item of a stream, or its end.
    pub(super) fn handle_item(
        &mut self,
        frame: usize,
        step: usize,
        items: Items<'a>,
        item: Option<Result<Vec<Tensor>>>,
    ) -> Result<()> {
        let Some(stream) = self.stream(frame, step) else { return Ok(()) };
        let outputs = match item {
            Some(Ok(outputs)) => outputs,
            ended => {
                stream.end = Some(ended.map_or(Ok(()), |error| error.map(drop)));
                return self.stream_over(frame, step);
            }
        };
        let number = stream.next_number;
        let inner = match self.item_frame(frame, step, number, &outputs) {
            Ok(inner) => inner,
            Err(error) => {
                // Handled as if the stream had ended with this error.
                let error = self.named(step, error);
                self.stream(frame, step).expect("invariant: just there").end = Some(Err(error));
                return self.stream_over(frame, step);
            }
        };
        let stream = self.stream(frame, step).expect("invariant: just there");
        stream.next_number += 1;
        stream.in_flight += 1;
        self.next_item(frame, step, items);
        let at = self.open_frame(inner)?;
        self.finish_frame(at)
    }

    /// Creates the frame of an item.
    fn item_frame(&self, frame: usize, step: usize, number: u64, outputs: &[Tensor]) -> Result<Frame> {
        let scope = self.program.scope_of_outputs(step);
        let mut inner = Frame::new(self.program, scope, Some(frame), number);
        let program = &self.program.steps[step];
        for (place, spec) in program.outputs.iter().enumerate() {
            let tensor = outputs.iter().find(|tensor| *tensor.name() == *spec.name);
            if tensor.is_none() && !program.may_omit[place] {
                inner.release_all(self.account);
                let message = format!(
                    "item {number} lacks the output \"{}\"; list it in may_omit if it may be absent",
                    spec.name
                );
                return Err(Error::failed(message));
            }
            match HeldValue::new(tensor.cloned(), program.readers[place].max(1), self.account) {
                Ok(held) => inner.cells[step].values[place] = held,
                Err(error) => {
                    inner.release_all(self.account);
                    return Err(error);
                }
            }
        }
        inner.cells[step].state = StepState::Over;
        inner.cells[step].ran = true;
        Ok(inner)
    }

    /// Removes the frame of an item, and moves its gathered outputs to the frame around it.
    pub(super) fn end_item(&mut self, at: usize, parent: usize, step: usize) -> Result<()> {
        let scope = self.frames[at].scope;
        for &(of, output, _) in &self.program.scopes[scope].gathers {
            let number = self.frames[at].number;
            let held = &self.frames[at].cells[of].values[output];
            let Some(tensor) = held.tensor.clone() else { continue };
            self.account.hold_bytes(tensor.data().len())?;
            let lists = &mut self.frames[parent].gathered;
            match lists.iter_mut().find(|list| (list.step, list.output) == (of, output)) {
                Some(list) => list.items.push((number, tensor)),
                None => {
                    let items = vec![(number, tensor)];
                    lists.push(GatheredItems { step: of, output, items, stacked: None });
                }
            }
        }
        self.frames.remove(at).release_all(self.account);
        let Some(stream) = self.stream(parent, step) else { return Ok(()) };
        stream.in_flight -= 1;
        if let Some(items) = stream.items.take() {
            self.next_item(parent, step, items);
        }
        self.stream_over(parent, step)
    }

    /// Returns true if each item of the streaming step is a response of the pipeline.
    fn items_are_answers(&self, step: usize) -> bool {
        self.program.answers_in != ROOT && self.program.answers_in == self.program.scope_of_outputs(step)
    }

    /// Marks a streaming step as over, once its stream and all its items have ended.
    fn stream_over(&mut self, frame: usize, step: usize) -> Result<()> {
        let Some(at) = self.streams.iter().position(|stream| stream.frame == frame && stream.step == step)
        else {
            return Ok(());
        };
        if self.streams[at].in_flight > 0 || self.streams[at].end.is_none() {
            return match &self.streams[at].end {
                // An error that fails the request is held back only if the items are answers: those
                // before it are sent first.
                Some(Err(error)) if !self.is_tolerated(step) && !self.items_are_answers(step) => {
                    Err(error.clone())
                }
                _ => Ok(()),
            };
        }
        let stream = self.streams.swap_remove(at);
        let time = stream.started.elapsed();
        let end = stream.end.unwrap_or(Ok(()));
        let outcome = self.outcome_of(step, &end);
        self.model.metrics[step].record(outcome, time, Duration::ZERO);
        self.frames[frame].cells[step].state = StepState::Over;
        let why = match &end {
            Ok(()) => format!("it returned {} items", stream.next_number),
            Err(error) => error.message().to_owned(),
        };
        self.record_step(frame, step, outcome, Some(why), Default::default(), (time, Duration::ZERO));
        let gathered = end.and_then(|()| self.gather(frame, step));
        if let Err(error) = gathered {
            self.step_failed(frame, step, error)?;
        }
        self.finish_step(frame, step)
    }

    /// Stacks the items of each output that is read as one tensor. Of other outputs, keeps the last
    /// item.
    fn gather(&mut self, frame: usize, step: usize) -> Result<()> {
        let program = self.program;
        let scope = program.scope_of_outputs(step);
        for &(of, output, stacks) in &program.scopes[scope].gathers {
            let lists = &mut self.frames[frame].gathered;
            let Some(list) = lists.iter_mut().find(|list| (list.step, list.output) == (of, output)) else {
                continue;
            };
            list.items.sort_by_key(|(number, _)| *number);
            if stacks {
                let stacked = stacked(&list.items)?;
                self.account.hold_bytes(stacked.data().len())?;
                list.stacked = Some(stacked);
            }
            let last = list.items.len().saturating_sub(1);
            let bytes = list.items.drain(..last).map(|(_, tensor)| tensor.data().len()).sum();
            self.account.release_bytes(bytes);
        }
        Ok(())
    }
}

/// Concatenates the items. A scalar becomes a row.
fn stacked(items: &[(u64, Tensor)]) -> Result<Tensor> {
    let rows: Result<Vec<Tensor>> = items
        .iter()
        .map(|(_, tensor)| match tensor.shape().is_empty() {
            true => tensor.reshaped(smallvec::smallvec![1]),
            false => Ok(tensor.clone()),
        })
        .collect();
    Tensor::stacked(rows?.iter())
}
