//! Opens frames, and marks steps as over: their readers are decided again, and a frame whose steps
//! are all over is finished.

use super::frame::{Frame, HeldValue, StepState};
use super::run_state::{ROOT, RunState};
use crate::error::Result;
use crate::graph::{Reader, ValueRef};
use crate::predict::Tensor;

impl RunState<'_> {
    /// Opens the frame of a request or of a row.
    pub(super) fn open_root(&mut self, inputs: Vec<Tensor>, number: u64) -> Result<usize> {
        let mut frame = Frame::new(self.program, ROOT, None, number);
        for input in &self.program.inputs {
            let tensor = inputs.iter().find(|tensor| *tensor.name() == *input.name).cloned();
            frame.inputs.push(HeldValue::new(tensor, input.readers, self.account)?);
        }
        drop(inputs);
        self.open_frame(frame)
    }

    /// Adds a frame, and opens all of its steps.
    pub(super) fn open_frame(&mut self, mut frame: Frame) -> Result<usize> {
        let program = self.program;
        let steps = &program.scopes[frame.scope].steps;
        let active: Vec<usize> = steps.iter().copied().filter(|step| self.is_active[*step]).collect();
        frame.unfinished = active.len();
        frame.unfinished_always = active.iter().filter(|step| program.steps[**step].always).count();
        let at = self.frames.insert(frame);
        self.open.extend(active.into_iter().map(|step| (at, step)));
        // Steps that do not run read nothing.
        for &step in steps {
            if !self.is_active[step] {
                self.release_reads(at, step);
            }
        }
        self.resolve_all(at)?;
        Ok(at)
    }

    /// Releases the values that a step reads. Called once it is decided, since it then has its
    /// inputs.
    pub(super) fn release_reads(&mut self, frame: usize, step: usize) {
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

    /// Marks a step as over, and opens the steps and outputs that depend on it.
    pub(super) fn finish_step(&mut self, frame: usize, step: usize) -> Result<()> {
        let known = &mut self.frames[frame];
        known.cells[step].state = StepState::Over;
        known.unfinished -= 1;
        known.unfinished_always -= usize::from(self.program.steps[step].always);
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
                        // All steps of the frame may be over, with only this output missing.
                        if within != frame && self.frames[within].unfinished == 0 {
                            self.finish_frame(within)?;
                        }
                    }
                }
            }
        }
        self.finish_frame(frame)
    }

    /// Ends a frame if all its steps are over. For an item, its gathered outputs move to the frame
    /// around it, or its answer waits for its turn.
    pub(super) fn finish_frame(&mut self, at: usize) -> Result<()> {
        let frame = &self.frames[at];
        if frame.unfinished > 0 {
            return Ok(());
        }
        if self.program.graph.each_row && frame.parent.is_none() {
            return self.finish_row(at);
        }
        let (Some(parent), number, scope) = (frame.parent, frame.number, frame.scope) else { return Ok(()) };
        let step = self.program.scopes[scope].stream.expect("invariant: an item is of a stream");
        if self.program.answers_in == scope {
            let is_known = number < self.next_answer || self.answers.contains_key(&number);
            let has_failed = self.failing.as_ref().is_some_and(|(first, _)| number >= *first);
            let is_known = is_known || has_failed;
            let Some(outputs) = self.outputs_of(frame).filter(|_| !is_known) else { return Ok(()) };
            self.answers.insert(number, (at, outputs));
            // The frame is removed when the answer is sent, in the order of the items.
            return Ok(());
        }
        self.end_item(at, parent, step)
    }
}
