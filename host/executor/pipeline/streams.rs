//! Items: the responses of a streaming step, each of which has a frame of its own for the steps behind it.

use super::frame::{Frame, GatheredItems, Held, State};
use super::items::Items;
use super::metrics::StepOutcome;
use super::model::Answers;
use super::run::{Event, ROOT, Run};
use crate::error::{Error, Result};
use crate::graph::Gather;
use crate::predict::Tensor;
use std::sync::Arc;
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
        let window = self.program.graph.window;
        let Some(stream) = self.stream(frame, step) else { return };
        if stream.live >= window {
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
        stream.next += 1;
        stream.live += 1;
        let scope = self.program.scope_of_outputs(step);
        let mut inner = Frame::new(self.program, scope, Some(frame), number);
        let program = &self.program.steps[step];
        for (place, spec) in program.outputs.iter().enumerate() {
            let tensor = outputs.iter().find(|tensor| *tensor.name() == *spec.name);
            if tensor.is_none() && !program.may_omit[place] {
                let message = format!("item {number} lacks the output \"{}\"; see may_omit", spec.name);
                return Err(self.named(step, Error::failed(message)));
            }
            inner.cells[step].values[place] =
                Held::new(tensor.cloned(), program.readers[place].max(1), self.account)?;
        }
        inner.cells[step].state = State::Over;
        inner.cells[step].ran = true;
        self.next_item(frame, step, items);
        let at = self.begin_frame(inner)?;
        self.finish_frame(at)
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
            if self.outputs_of(frame).is_none() {
                return Ok(());
            }
            let outputs = self.outputs_of(frame).unwrap_or_default();
            self.answers.insert(number, (at, outputs));
            // It goes with its answer, in the order of the items.
            return Ok(());
        }
        self.end_item(at, parent, step)
    }

    pub(super) fn end_item(&mut self, at: usize, parent: usize, step: usize) -> Result<()> {
        let scope = self.frames[at].scope;
        for &(of, output) in &self.program.scopes[scope].gathers {
            let number = self.frames[at].number;
            let held = &self.frames[at].cells[of].values[output];
            let Some(tensor) = held.tensor.clone() else { continue };
            self.account.hold(tensor.data().len())?;
            let lists = &mut self.frames[parent].gathered;
            match lists.iter_mut().find(|list| (list.step, list.output) == (of, output)) {
                Some(list) => list.items.push((number, tensor)),
                None => lists.push(GatheredItems { step: of, output, items: vec![(number, tensor)] }),
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

    /// A streaming step is over once it has ended and its items are.
    pub(super) fn stream_over(&mut self, frame: usize, step: usize) -> Result<()> {
        let Some(at) = self.streams.iter().position(|stream| stream.frame == frame && stream.step == step)
        else {
            return Ok(());
        };
        if self.streams[at].live > 0 || self.streams[at].end.is_none() {
            return match &self.streams[at].end {
                // What fails the request does not wait for the items before.
                Some(Err(error)) if !self.program.graph.steps[step].skips_on_error => Err(error.clone()),
                _ => Ok(()),
            };
        }
        let stream = self.streams.swap_remove(at);
        let time = stream.started.elapsed();
        let end = stream.end.unwrap_or(Ok(()));
        let outcome = if end.is_ok() { StepOutcome::Ok } else { StepOutcome::Error };
        self.model.metrics[step].record(outcome, time, Duration::ZERO);
        if let Err(error) = end {
            self.failed(frame, step, error)?;
        }
        for list in &mut self.frames[frame].gathered {
            list.items.sort_by_key(|(number, _)| *number);
        }
        self.over(frame, step)
    }

    /// Sends the answers of items, in their order.
    pub(super) async fn flush(&mut self, sink: &mut dyn Answers) -> Result<()> {
        while let Some((at, outputs)) = self.answers.remove(&self.answered) {
            self.answered += 1;
            // An item of which nothing is there has no response.
            if !outputs.is_empty() {
                sink.send(outputs).await?;
            }
            let (parent, scope) = (self.frames[at].parent, self.frames[at].scope);
            let (parent, step) = (parent.unwrap_or(ROOT), self.program.scopes[scope].stream.unwrap_or(0));
            self.end_item(at, parent, step)?;
        }
        Ok(())
    }

    /// One tensor of the items that were gathered.
    pub(super) fn gathered(&self, frame: usize, of: &crate::graph::Gathered) -> Result<Option<Tensor>> {
        let lists = &self.frames[frame].gathered;
        let list = lists.iter().find(|list| (list.step, list.output) == (of.step, of.output));
        let items = list.map_or(&[][..], |list| &list.items);
        if of.how == Gather::Last {
            return Ok(items.last().map(|(_, tensor)| tensor.clone()));
        }
        let spec = &self.program.steps[of.step].outputs[of.output];
        if items.is_empty() {
            let rest = spec.shape.iter().skip(1).map(|&dimension| dimension.max(0));
            let shape = std::iter::once(0).chain(rest).collect();
            return Tensor::new(Arc::clone(&spec.name), spec.datatype, shape, bytes::Bytes::new()).map(Some);
        }
        // A scalar is a row.
        let rows: Result<Vec<Tensor>> = items
            .iter()
            .map(|(_, tensor)| match tensor.shape().is_empty() {
                true => tensor.reshaped(smallvec::smallvec![1]),
                false => Ok(tensor.clone()),
            })
            .collect();
        Tensor::stacked(rows?.iter()).map(Some)
    }
}
