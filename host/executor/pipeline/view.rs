//! The values that the conditions of steps are evaluated with.

use super::frame::StepCell;
use super::run_state::{ROOT, RunState};
use super::snapshot::Snapshot;
use crate::error::Kind;
use crate::graph::condition::{Environment, TensorRef};
use crate::predict::{Parameter, Tensor};
use std::sync::Arc;

/// The values of a request, as seen from a frame.
pub(super) struct View<'r, 'a> {
    pub run: &'r RunState<'a>,
    pub frame: usize,
}

impl View<'_, '_> {
    fn cell(&self, step: &str) -> Option<&StepCell> {
        let run = self.run;
        let step = run.program.graph.index(step)?;
        let at = run.enclosing_frame(self.frame, run.program.steps[step].scope)?;
        Some(&run.frames[at].cells[step])
    }
}

impl Environment for View<'_, '_> {
    fn tensor(&self, of: &TensorRef) -> Option<&Tensor> {
        let run = self.run;
        match of {
            TensorRef::Input(name) => {
                let input = run.program.inputs.iter().position(|input| input.name == *name)?;
                let root = run.enclosing_frame(self.frame, ROOT)?;
                run.frames[root].inputs.get(input)?.tensor.as_ref()
            }
            TensorRef::Output { step, output } => {
                let step = run.program.graph.index(step)?;
                let output = run.program.steps[step].outputs.iter().position(|spec| spec.name == *output)?;
                let at = run.enclosing_frame(self.frame, run.program.scope_of_outputs(step))?;
                run.frames[at].cells[step].values[output].tensor.as_ref()
            }
            TensorRef::Own(_) => None,
        }
    }

    fn parameter(&self, name: &str) -> Option<&Parameter> {
        self.run.context.parameter(name)
    }

    fn ran(&self, step: &str) -> bool {
        self.cell(step).is_some_and(|cell| cell.ran)
    }

    fn error(&self, step: &str) -> Option<Kind> {
        self.cell(step)?.error
    }

    fn bucket(&self) -> i64 {
        (self.run.model.bucket)(self.run.context).into()
    }
}

impl RunState<'_> {
    /// Copies the values that the condition of a loop refers to.
    pub(super) fn snapshot(&self, frame: usize, step: usize) -> Snapshot {
        let condition = self.program.steps[step].again_while.as_ref();
        let view = View { run: self, frame };
        let tensors = condition.iter().flat_map(|condition| condition.tensors());
        let steps = condition.iter().flat_map(|condition| condition.steps());
        Snapshot {
            context: Arc::clone(self.context),
            tensors: tensors.filter_map(|of| Some((of.clone(), view.tensor(of)?.clone()))).collect(),
            steps: steps.map(|step| (Arc::clone(step), view.ran(step), view.error(step))).collect(),
            bucket: (self.model.bucket)(self.context),
        }
    }
}
