//! A compiled graph: indices instead of names, with the dependencies between steps.

use super::condition::Condition;
use super::definition::{Gather, Graph};
use crate::predict::{Metadata, Tensor, TensorSpec};
use std::sync::Arc;

pub struct Program {
    pub graph: Arc<Graph>,
    /// What callers see.
    pub metadata: Metadata,
    pub inputs: Vec<InputProgram>,
    /// In the order of the graph.
    pub steps: Vec<StepProgram>,
    pub outputs: Vec<OutputProgram>,
    /// The request's scope is the first; each streaming step has a scope for its items.
    pub scopes: Vec<Scope>,
    /// The scope of the outputs: the request's, or that of the items of a streaming answer.
    pub answers_in: usize,
    /// By step, whether it runs even if no requested output needs it.
    pub is_always: Vec<bool>,
    pub has_detached: bool,
}

pub struct InputProgram {
    pub name: Arc<str>,
    /// Steps and outputs that read the input. It is freed after the last one.
    pub readers: u32,
}

/// Values that exist once for a request, or once for each item of a stream.
pub struct Scope {
    pub parent: Option<usize>,
    /// The streaming step that produces the items.
    pub stream: Option<usize>,
    pub steps: Vec<usize>,
    /// What the parent scope gathers from the items: step, output, and whether they are stacked.
    pub gathers: Vec<(usize, usize, bool)>,
}

pub struct StepProgram {
    pub name: Arc<str>,
    pub scope: usize,
    /// The scope of the step's items, if its model is a streaming model.
    pub items: Option<usize>,
    pub inputs: Vec<Arc<str>>,
    pub needs: Vec<Need>,
    /// The outputs of the step's model.
    pub outputs: Vec<TensorSpec>,
    pub may_omit: Vec<bool>,
    /// Steps and outputs that read each output; [`Reader::KEPT`] if the output is kept to the end.
    pub readers: Vec<u32>,
    pub after: Vec<usize>,
    pub chosen_by: Vec<usize>,
    pub when: Option<Condition>,
    /// Steps that must have ended before `when` and `loop.while` are evaluated.
    pub asks: Vec<usize>,
    pub again_while: Option<Condition>,
    pub choice: Option<Choice>,
    /// Inputs that are split into parts.
    pub split: Vec<usize>,
    /// Steps and outputs that are checked when the step has ended.
    pub dependents: Vec<Reader>,
    /// Values that the step releases once it is decided.
    pub reads: Vec<ValueRef>,
    /// The step is needed only by work that the answer does not wait for.
    pub is_detached: bool,
    /// The answer waits for the step, or for a step that must run for its items.
    pub always: bool,
}

/// Inputs that use the same alternative.
pub struct Need {
    /// Indices into `StepProgram::inputs`.
    pub inputs: Vec<usize>,
    /// For each alternative, a value for each input.
    pub members: Vec<Vec<ValueRef>>,
    pub optional: bool,
}

pub struct Choice {
    /// The output that names the steps.
    pub output: usize,
    pub among: Vec<usize>,
}

pub struct OutputProgram {
    pub name: Arc<str>,
    pub members: Vec<ValueRef>,
    pub optional: bool,
    /// By step, whether the output needs it.
    pub needs: Vec<bool>,
}

#[derive(Clone, Debug)]
pub enum ValueRef {
    Input(usize),
    Output(usize, usize),
    Const(Tensor),
    Gathered(Gathered),
}

/// All items of an output, as one tensor.
#[derive(Clone, Debug)]
pub struct Gathered {
    pub step: usize,
    pub output: usize,
    /// The streaming step that produces the items.
    pub stream: usize,
    pub how: Gather,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reader {
    Step(usize),
    Output(usize),
}

impl Reader {
    /// Marks a value that steps of another scope read, so that its readers cannot be counted.
    pub const KEPT: u32 = u32::MAX;
}

impl Program {
    /// Returns the scope of a step's outputs: for a streaming step, the scope of its items.
    pub fn scope_of_outputs(&self, step: usize) -> usize {
        self.steps[step].items.unwrap_or(self.steps[step].scope)
    }

    /// Returns true if `inner` is `outer` or lies within it.
    pub fn is_within(&self, inner: usize, outer: usize) -> bool {
        std::iter::successors(Some(inner), |scope| self.scopes[*scope].parent).any(|scope| scope == outer)
    }
}
