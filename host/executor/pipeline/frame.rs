//! A frame: the values of one request, row or item, and the states of its steps.

use super::account::RequestAccount;
use super::reusability::Reuse;
use crate::error::{Kind, Result};
use crate::graph::{Program, Reader};
use crate::predict::Tensor;
use smallvec::SmallVec;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StepState {
    Waiting,
    Running,
    Over,
}

/// A tensor that is held until its last reader has taken it.
#[derive(Clone, Debug, Default)]
pub(super) struct HeldValue {
    pub tensor: Option<Tensor>,
    pub readers: u32,
}

/// The state of a step in a frame.
pub(super) struct StepCell {
    pub state: StepState,
    /// Whether the model was called.
    pub ran: bool,
    /// What its end, and all before it, mean for the steps that depend on it.
    pub reuse: Reuse,
    pub error: Option<Kind>,
    pub values: SmallVec<[HeldValue; 1]>,
    /// For a router: by candidate, whether it was chosen.
    pub chosen: SmallVec<[bool; 4]>,
}

pub(super) struct Frame {
    pub scope: usize,
    pub parent: Option<usize>,
    /// The number of the row or item within its request.
    pub number: u64,
    pub cells: Vec<StepCell>,
    pub inputs: Vec<HeldValue>,
    /// By output of the pipeline: `None` until it is known, `Some(None)` if it is absent.
    pub outputs: Vec<Option<Option<Tensor>>>,
    /// The number of active steps that are not over.
    pub unfinished: usize,
    /// The number of those that the answer waits for even if no output reads them.
    pub unfinished_always: usize,
    /// Outputs gathered from the items of streams, by step and output.
    pub gathered: Vec<GatheredItems>,
}

/// The gathered tensors of one output, with the numbers of their items.
pub(super) struct GatheredItems {
    pub step: usize,
    pub output: usize,
    pub items: Vec<(u64, Tensor)>,
    /// All items as one tensor, once the stream is over. `items` then holds only the last one.
    pub stacked: Option<Tensor>,
}

impl HeldValue {
    pub fn new(tensor: Option<Tensor>, readers: u32, account: &RequestAccount) -> Result<Self> {
        // A tensor without readers is not kept.
        let tensor = tensor.filter(|_| readers > 0);
        if let Some(tensor) = &tensor {
            account.hold_bytes(tensor.data().len())?;
        }
        Ok(HeldValue { tensor, readers })
    }

    /// Counts one reader as done, and drops the tensor after the last one.
    pub fn release(&mut self, account: &RequestAccount) {
        if self.readers == Reader::KEPT {
            return;
        }
        self.readers = self.readers.saturating_sub(1);
        if self.readers == 0
            && let Some(tensor) = self.tensor.take()
        {
            account.release_bytes(tensor.data().len());
        }
    }
}

impl Frame {
    pub fn new(program: &Program, scope: usize, parent: Option<usize>, number: u64) -> Self {
        let cell = |step: &crate::graph::StepProgram| StepCell {
            state: StepState::Waiting,
            ran: false,
            reuse: Reuse::Possible,
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
            unfinished: 0,
            unfinished_always: 0,
            gathered: Vec::new(),
        }
    }

    /// Drops the frame and releases the bytes that it holds.
    pub fn release_all(self, account: &RequestAccount) {
        let values = self.cells.into_iter().flat_map(|cell| cell.values).chain(self.inputs);
        let gathered = self
            .gathered
            .into_iter()
            .flat_map(|list| list.items.into_iter().map(|(_, tensor)| tensor).chain(list.stacked));
        let tensors = values.filter_map(|held| held.tensor).chain(gathered);
        account.release_bytes(tensors.map(|tensor| tensor.data().len()).sum());
    }
}
