//! The state of a compilation: the graph, what is derived from it, and the faults found so far.

use crate::graph::condition::Condition;
use crate::graph::definition::{Graph, StepModel};
use crate::graph::fault::Fault;
use crate::graph::program::Scope;
use crate::graph::wiring::Wiring;
use crate::predict::{Metadata, Tensor, TensorSpec};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The scope of the request.
pub(super) const ROOT: usize = 0;

pub(super) struct Compiler<'a> {
    pub graph: &'a Arc<Graph>,
    pub wiring: &'a Wiring,
    pub models: &'a [StepModel],
    /// By step, what the model takes and returns in every version.
    pub metadata: Vec<Metadata>,
    pub scopes: Vec<Scope>,
    pub scope_of: Vec<usize>,
    pub items_of: Vec<Option<usize>>,
    /// By step, the streams that must have ended before it.
    pub ends: Vec<BTreeSet<usize>>,
    /// As the steps see them.
    pub inputs: Vec<TensorSpec>,
    /// As callers see them.
    pub outputs: Vec<TensorSpec>,
    pub constants: BTreeMap<(String, usize), Tensor>,
    pub when: Vec<Option<Condition>>,
    pub again_while: Vec<Option<Condition>>,
    pub faults: Vec<Fault>,
}

impl<'a> Compiler<'a> {
    pub fn new(graph: &'a Arc<Graph>, wiring: &'a Wiring, models: &'a [StepModel]) -> Self {
        let count = graph.steps.len();
        Compiler {
            graph,
            wiring,
            models,
            metadata: Vec::with_capacity(count),
            scopes: vec![Scope { parent: None, stream: None, steps: Vec::new(), gathers: Vec::new() }],
            scope_of: vec![ROOT; count],
            items_of: vec![None; count],
            ends: vec![BTreeSet::new(); count],
            inputs: Vec::new(),
            outputs: Vec::new(),
            constants: BTreeMap::new(),
            when: Vec::new(),
            again_while: Vec::new(),
            faults: Vec::new(),
        }
    }

    pub fn done(&mut self) -> Result<(), Vec<Fault>> {
        if self.faults.is_empty() { Ok(()) } else { Err(std::mem::take(&mut self.faults)) }
    }

    pub fn fault(&mut self, place: impl Into<String>, message: impl Into<String>) -> &mut Fault {
        self.faults.push(Fault::new(place, message));
        self.faults.last_mut().expect("invariant: just pushed")
    }

    pub fn hinted(&mut self, place: impl Into<String>, message: impl Into<String>, hint: impl Into<String>) {
        self.fault(place, message).hint = Some(hint.into());
    }

    pub fn scope_of_outputs(&self, step: usize) -> usize {
        self.items_of[step].unwrap_or(self.scope_of[step])
    }

    pub fn is_within(&self, inner: usize, outer: usize) -> bool {
        std::iter::successors(Some(inner), |scope| self.scopes[*scope].parent).any(|scope| scope == outer)
    }
}
