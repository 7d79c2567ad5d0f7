//! The values of one request, or of one of its rows or items: which steps are over, and what they gave.

use super::account::RequestAccount;
use crate::error::{Kind, Result};
use crate::graph::{Program, Reader};
use crate::predict::Tensor;
use smallvec::SmallVec;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Waiting,
    Running,
    Over,
}

/// A tensor, until its last reader has taken it.
#[derive(Clone, Debug, Default)]
pub(super) struct HeldValue {
    pub tensor: Option<Tensor>,
    pub readers: u32,
}

/// A step in a frame.
pub(super) struct Cell {
    pub state: State,
    /// Whether its model was called.
    pub ran: bool,
    pub error: Option<Kind>,
    pub values: SmallVec<[HeldValue; 1]>,
    /// Of a router, which of those among which it chooses run.
    pub chosen: SmallVec<[bool; 4]>,
}

pub(super) struct Frame {
    pub scope: usize,
    pub parent: Option<usize>,
    /// Of a row or an item, in the order of its request.
    pub number: u64,
    pub cells: Vec<Cell>,
    pub inputs: Vec<HeldValue>,
    /// By output of the pipeline, once it is settled.
    pub outputs: Vec<Option<Option<Tensor>>>,
    /// Steps that are to run or be skipped, and are not over.
    pub left: usize,
    /// The same of those that the answer waits for by themselves.
    pub always_left: usize,
    /// What was gathered of the items of streams here: by step and output.
    pub gathered: Vec<GatheredItems>,
}

/// Items of one output, with their numbers.
pub(super) struct GatheredItems {
    pub step: usize,
    pub output: usize,
    pub items: Vec<(u64, Tensor)>,
    /// All of them, once the stream is over; then `items` has the last.
    pub stacked: Option<Tensor>,
}

impl HeldValue {
    pub fn new(tensor: Option<Tensor>, readers: u32, account: &RequestAccount) -> Result<Self> {
        // What nobody reads is not kept.
        let tensor = tensor.filter(|_| readers > 0);
        if let Some(tensor) = &tensor {
            account.hold(tensor.data().len())?;
        }
        Ok(HeldValue { tensor, readers })
    }

    /// One of its readers has what it wanted.
    pub fn release(&mut self, account: &RequestAccount) {
        if self.readers == Reader::KEPT {
            return;
        }
        self.readers = self.readers.saturating_sub(1);
        if self.readers == 0
            && let Some(tensor) = self.tensor.take()
        {
            account.let_go(tensor.data().len());
        }
    }
}

impl Frame {
    pub fn new(program: &Program, scope: usize, parent: Option<usize>, number: u64) -> Self {
        let cell = |step: &crate::graph::StepProgram| Cell {
            state: State::Waiting,
            ran: false,
            error: None,
            values: step.readers.iter().map(|&readers| HeldValue { tensor: None, readers }).collect(),
            chosen: SmallVec::new(),
        };
        Frame {
            scope,
            parent,
            number,
            cells: program.steps.iter().map(cell).collect(),
            inputs: Vec::new(),
            outputs: vec![None; program.outputs.len()],
            left: 0,
            always_left: 0,
            gathered: Vec::new(),
        }
    }

    /// Gives back what it holds.
    pub fn let_go(self, account: &RequestAccount) {
        let values = self.cells.into_iter().flat_map(|cell| cell.values).chain(self.inputs);
        let gathered = self
            .gathered
            .into_iter()
            .flat_map(|list| list.items.into_iter().map(|(_, tensor)| tensor).chain(list.stacked));
        let tensors = values.filter_map(|held| held.tensor).chain(gathered);
        account.let_go(tensors.map(|tensor| tensor.data().len()).sum());
    }
}
