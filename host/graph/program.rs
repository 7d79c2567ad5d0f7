//! A graph ready to run: names have become places in lists, and who waits for whom is known.

use super::{Gather, Graph};
use crate::graph::condition::Condition;
use crate::predict::{Metadata, Tensor, TensorSpec};
use std::sync::Arc;

pub struct Program {
    pub graph: Arc<Graph>,
    /// What callers see.
    pub metadata: Metadata,
    pub inputs: Vec<InputProgram>,
    /// As in the graph.
    pub steps: Vec<StepProgram>,
    pub outputs: Vec<OutputProgram>,
    /// The request's own comes first; each streaming step has one for its items.
    pub scopes: Vec<Scope>,
    /// Where the outputs are: that of the request, or of the items that it answers with.
    pub answers_in: usize,
    /// By step, whether it runs whatever the caller asks for.
    pub is_always: Vec<bool>,
    pub has_detached: bool,
}

pub struct InputProgram {
    pub name: Arc<str>,
    /// Steps and outputs that look at it; it is freed after the last.
    pub readers: u32,
}

/// Values that exist once for a request, or once for each item of a stream.
pub struct Scope {
    pub parent: Option<usize>,
    /// The step whose items these are.
    pub stream: Option<usize>,
    pub steps: Vec<usize>,
    /// What the scope around it gathers of its items: steps, their outputs, and whether these are stacked.
    pub gathers: Vec<(usize, usize, bool)>,
}

pub struct StepProgram {
    pub name: Arc<str>,
    pub scope: usize,
    /// The scope of its items, if its model gives any number of responses.
    pub items: Option<usize>,
    pub inputs: Vec<Arc<str>>,
    pub needs: Vec<Need>,
    /// What its model gives.
    pub outputs: Vec<TensorSpec>,
    pub may_omit: Vec<bool>,
    /// Steps and outputs that look at each output; [`Reader::KEPT`] where it is kept to the end.
    pub readers: Vec<u32>,
    pub after: Vec<usize>,
    pub chosen_by: Vec<usize>,
    pub when: Option<Condition>,
    /// Steps that must be over before `when` and `loop.while` are looked at.
    pub asks: Vec<usize>,
    pub again_while: Option<Condition>,
    pub choice: Option<Choice>,
    /// Inputs that are cut into parts.
    pub split: Vec<usize>,
    /// Who looks at it when it is over.
    pub dependents: Vec<Reader>,
    /// What it lets go of once it is decided.
    pub reads: Vec<ValueRef>,
    /// Only work that the answer does not wait for needs it.
    pub is_detached: bool,
    /// The answer waits for it, or for what has to run for its items.
    pub always: bool,
}

/// Inputs that take the same member of their alternatives.
pub struct Need {
    /// Places in `StepProgram::inputs`.
    pub inputs: Vec<usize>,
    /// Of each alternative, a value for each input.
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

/// All items of an output as one tensor.
#[derive(Clone, Debug)]
pub struct Gathered {
    pub step: usize,
    pub output: usize,
    /// The streaming step whose items they are.
    pub stream: usize,
    pub how: Gather,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reader {
    Step(usize),
    Output(usize),
}

impl Reader {
    /// Of a value that steps of another scope read, so that nobody can count them.
    pub const KEPT: u32 = u32::MAX;
}

impl Program {
    /// The scope in which a step's outputs are: for a streaming step that of its items.
    pub fn scope_of_outputs(&self, step: usize) -> usize {
        self.steps[step].items.unwrap_or(self.steps[step].scope)
    }

    /// Whether `inner` is `outer` or lies within it.
    pub fn is_within(&self, inner: usize, outer: usize) -> bool {
        std::iter::successors(Some(inner), |scope| self.scopes[*scope].parent).any(|scope| scope == outer)
    }
}
