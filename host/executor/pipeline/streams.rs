//! Items: the responses of a streaming step, each of which has a frame of its own for the steps behind it.

use super::frame::{Frame, GatheredItems, HeldValue, State};
use super::items::Items;
use super::metrics::StepOutcome;
use super::model::ResponseSink;
use super::run::{Event, ROOT, Run};
use crate::error::{Error, Result};
use crate::graph::Gather;
use crate::predict::Tensor;
use std::time::{Duration, Instant};

/// A streaming step whose items are under way.
pub(super) struct Stream<'a> {
    pub frame: usize,
    pub step: usize,
    /// Here while as many items are under way as may be.
    pub items: Option<Items<'a>>,
    pub live: usize,
    pub next: u64,
    /// Once it has ended.
    pub end: Option<Result<()>>,
    pub started: Instant,
}

impl<'a> Run<'a> {
    /// Begins a streaming step's next item, or leaves it for when there is room.
    pub(super) fn next_item(&mut self, frame: usize, step: usize, mut items: Items<'a>) {
        let (window, is_failing) = (self.program.graph.window, self.failing.is_some());
        let Some(stream) = self.stream(frame, step) else { return };
        if stream.live >= window || is_failing {
            stream.items = Some(items);
            return;
        }
        self.running.push(Box::pin(async move {
            let item = items.next().await;
            Event::Item { frame, step, items, item }
        }));
    }

    pub(super) fn stream(&mut self, frame: usize, step: usize) -> Option<&mut Stream<'a>> {
        self.streams.iter_mut().find(|stream| stream.frame == frame && stream.step == step)
    }

    pub(super) fn item(
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
        let number = stream.next;
        let inner = match self.item_frame(frame, step, number, &outputs) {
            Ok(inner) => inner,
            Err(error) => {
                // As if the stream had ended so.
                let error = self.named(step, error);
                self.stream(frame, step).expect("invariant: just there").end = Some(Err(error));
                return self.stream_over(frame, step);
            }
        };
        let stream = self.stream(frame, step).expect("invariant: just there");
        stream.next += 1;
        stream.live += 1;
        self.next_item(frame, step, items);
        let at = self.begin_frame(inner)?;
        self.finish_frame(at)
    }

    fn item_frame(&self, frame: usize, step: usize, number: u64, outputs: &[Tensor]) -> Result<Frame> {
        let scope = self.program.scope_of_outputs(step);
        let mut inner = Frame::new(self.program, scope, Some(frame), number);
        let program = &self.program.steps[step];
        for (place, spec) in program.outputs.iter().enumerate() {
            let tensor = outputs.iter().find(|tensor| *tensor.name() == *spec.name);
            if tensor.is_none() && !program.may_omit[place] {
                inner.let_go(self.account);
                let message = format!("item {number} lacks the output \"{}\"; see may_omit", spec.name);
                return Err(Error::failed(message));
            }
            match HeldValue::new(tensor.cloned(), program.readers[place].max(1), self.account) {
                Ok(held) => inner.cells[step].values[place] = held,
                Err(error) => {
                    inner.let_go(self.account);
                    return Err(error);
                }
            }
        }
        inner.cells[step].state = State::Over;
        inner.cells[step].ran = true;
        Ok(inner)
    }

    /// The frame of an item ends once all its steps are over; what is gathered of it goes to the frame around it.
    pub(super) fn finish_frame(&mut self, at: usize) -> Result<()> {
        let frame = &self.frames[at];
        if frame.left > 0 {
            return Ok(());
        }
        if self.program.graph.each_row && frame.parent.is_none() {
            return self.finish_row(at);
        }
        let (Some(parent), number, scope) = (frame.parent, frame.number, frame.scope) else { return Ok(()) };
        let step = self.program.scopes[scope].stream.expect("invariant: an item is of a stream");
        if self.program.answers_in == scope {
            let is_known = number < self.answered || self.answers.contains_key(&number);
            let has_failed = self.failing.as_ref().is_some_and(|(first, _)| number >= *first);
            let is_known = is_known || has_failed;
            let Some(outputs) = self.outputs_of(frame).filter(|_| !is_known) else { return Ok(()) };
            self.answers.insert(number, (at, outputs));
            // It goes with its answer, in the order of the items.
            return Ok(());
        }
        self.end_item(at, parent, step)
    }

    pub(super) fn end_item(&mut self, at: usize, parent: usize, step: usize) -> Result<()> {
        let scope = self.frames[at].scope;
        for &(of, output, _) in &self.program.scopes[scope].gathers {
            let number = self.frames[at].number;
            let held = &self.frames[at].cells[of].values[output];
            let Some(tensor) = held.tensor.clone() else { continue };
            self.account.hold(tensor.data().len())?;
            let lists = &mut self.frames[parent].gathered;
            match lists.iter_mut().find(|list| (list.step, list.output) == (of, output)) {
                Some(list) => list.items.push((number, tensor)),
                None => {
                    let items = vec![(number, tensor)];
                    lists.push(GatheredItems { step: of, output, items, stacked: None });
                }
            }
        }
        self.frames.remove(at).let_go(self.account);
        let Some(stream) = self.stream(parent, step) else { return Ok(()) };
        stream.live -= 1;
        if let Some(items) = stream.items.take() {
            self.next_item(parent, step, items);
        }
        self.stream_over(parent, step)
    }

    /// Whether each item of a streaming step is a response.
    fn gives_answers(&self, step: usize) -> bool {
        self.program.answers_in != ROOT && self.program.answers_in == self.program.scope_of_outputs(step)
    }

    /// A streaming step is over once it has ended and its items are.
    pub(super) fn stream_over(&mut self, frame: usize, step: usize) -> Result<()> {
        let Some(at) = self.streams.iter().position(|stream| stream.frame == frame && stream.step == step)
        else {
            return Ok(());
        };
        if self.streams[at].live > 0 || self.streams[at].end.is_none() {
            return match &self.streams[at].end {
                // What fails the request waits for the items before only where they are its answers.
                Some(Err(error)) if !self.tolerates(step) && !self.gives_answers(step) => Err(error.clone()),
                _ => Ok(()),
            };
        }
        let stream = self.streams.swap_remove(at);
        let time = stream.started.elapsed();
        let end = stream.end.unwrap_or(Ok(()));
        let outcome = StepOutcome::of(&end);
        self.model.metrics[step].record(outcome, time, Duration::ZERO);
        self.frames[frame].cells[step].state = State::Over;
        let why = match &end {
            Ok(()) => format!("it gave {} items", stream.next),
            Err(error) => error.message().to_owned(),
        };
        self.note(frame, step, outcome, Some(why), Default::default(), (time, Duration::ZERO));
        let gathered = end.and_then(|()| self.gather(frame, step));
        if let Err(error) = gathered {
            self.failed(frame, step, error)?;
        }
        self.over(frame, step)
    }

    /// Makes one tensor of the items of each output that is to be stacked; of the others the last is kept.
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
                self.account.hold(stacked.data().len())?;
                list.stacked = Some(stacked);
            }
            let last = list.items.len().saturating_sub(1);
            let bytes = list.items.drain(..last).map(|(_, tensor)| tensor.data().len()).sum();
            self.account.let_go(bytes);
        }
        Ok(())
    }

    /// Sends the answers of items, in their order.
    pub(super) async fn flush(&mut self, sink: &mut dyn ResponseSink) -> Result<()> {
        loop {
            if let Some((_, error)) = self.failing.take_if(|(number, _)| *number <= self.answered) {
                return Err(error);
            }
            let Some((at, outputs)) = self.answers.remove(&self.answered) else { return Ok(()) };
            self.answered += 1;
            // An item of which nothing is there has no response.
            if !outputs.is_empty() {
                self.while_sending(sink.send(outputs)).await?;
            }
            let (parent, scope) = (self.frames[at].parent, self.frames[at].scope);
            let (parent, step) = (parent.unwrap_or(ROOT), self.program.scopes[scope].stream.unwrap_or(0));
            self.end_item(at, parent, step)?;
        }
    }

    /// One tensor of the items that were gathered; none of a stream that failed or did not run.
    pub(super) fn gathered(&self, frame: usize, of: &crate::graph::Gathered) -> Result<Option<Tensor>> {
        let cell = &self.frames[frame].cells[of.stream];
        if cell.error.is_some() || !cell.ran {
            return Ok(None);
        }
        let lists = &self.frames[frame].gathered;
        let list = lists.iter().find(|list| (list.step, list.output) == (of.step, of.output));
        if of.how == Gather::Last {
            return Ok(list.and_then(|list| Some(list.items.last()?.1.clone())));
        }
        match list.and_then(|list| list.stacked.clone()) {
            Some(stacked) => Ok(Some(stacked)),
            None => self.program.steps[of.step].outputs[of.output].without_rows().map(Some),
        }
    }
}

/// The items, one behind the other; a scalar is a row.
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
