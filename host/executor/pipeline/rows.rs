//! Rows: with `rows = "each"`, each row of a request has its own frame, and the outputs of all rows
//! are stacked.

use super::run_state::{Rows, RunState};
use crate::error::{Error, Result};
use crate::predict::{Tensor, format_shape};

/// The maximum number of rows that are in progress concurrently.
const ROWS_AT_ONCE: usize = 64;

impl RunState<'_> {
    /// Splits the inputs of a request into rows.
    pub(super) fn cut_rows(&mut self, inputs: Vec<Tensor>) -> Result<()> {
        let mut rows = None;
        for tensor in &inputs {
            let Some(count) = tensor.rows() else {
                let message = format!(
                    "input \"{}\" is a scalar, which has no rows; with rows = \"each\" its first dimension counts them",
                    tensor.name()
                );
                return Err(Error::invalid(message).field(tensor.name()));
            };
            if let Some((first, rows)) = rows
                && rows != count
            {
                let message = format!(
                    "input \"{}\" has {count} rows, but input \"{first}\" has {rows}; with rows = \"each\" all must have the same number",
                    tensor.name()
                );
                return Err(Error::invalid(message).field(tensor.name()));
            }
            rows = Some((tensor.name(), count));
        }
        let count = rows.map_or(0, |(_, rows)| rows);
        self.account.check_runs_left("rows", count)?;
        let mut all: Vec<Vec<Tensor>> = vec![Vec::with_capacity(inputs.len()); count];
        for tensor in &inputs {
            for (row, part) in all.iter_mut().zip(tensor.cut(&vec![1; count])?) {
                row.push(part);
            }
        }
        self.rows = Rows { inputs: all, next: 0, done: vec![None; count], unfinished: count };
        Ok(())
    }

    /// Opens frames for the next rows.
    pub(super) fn begin_rows(&mut self) -> Result<()> {
        while self.rows.next < self.rows.inputs.len() && self.frames.len() < ROWS_AT_ONCE {
            let row = self.rows.next;
            self.rows.next += 1;
            let inputs = std::mem::take(&mut self.rows.inputs[row]);
            let at = self.open_root(inputs, row as u64)?;
            // A row is already done if no step has to run for it.
            if self.frames[at].unfinished == 0 {
                self.end_row(at)?;
            }
        }
        Ok(())
    }

    /// Ends a row, and opens frames for the next ones.
    pub(super) fn finish_row(&mut self, at: usize) -> Result<()> {
        self.end_row(at)?;
        self.begin_rows()
    }

    /// Keeps the outputs of a row, and removes its frame.
    fn end_row(&mut self, at: usize) -> Result<()> {
        let Some(outputs) = self.outputs_of(&self.frames[at]) else { return Ok(()) };
        if let Some(output) = outputs.iter().find(|output| output.rows() != Some(1)) {
            let (number, name) = (self.frames[at].number, output.name());
            let shape = format_shape(output.shape());
            let pipeline = &self.program.graph.name;
            let message = format!("row {number}: the output \"{name}\" has shape {shape}, not one row");
            return Err(Error::failed(message).context(format!("pipeline \"{pipeline}\"")));
        }
        self.account.hold_bytes(outputs.iter().map(|tensor| tensor.data().len()).sum())?;
        let frame = self.frames.remove(at);
        self.rows.done[frame.number as usize] = Some(outputs);
        self.rows.unfinished -= 1;
        frame.release_all(self.account);
        Ok(())
    }

    /// Returns the outputs of all rows, stacked.
    pub(super) fn stacked_rows(&self) -> Result<Vec<Tensor>> {
        let wanted = self.program.metadata.outputs.iter().zip(&self.is_wanted).filter(|(_, wanted)| **wanted);
        wanted
            .map(|(spec, _)| {
                let rows = self.rows.done.iter().flatten();
                let mut parts =
                    rows.filter_map(|row| row.iter().find(|tensor| *tensor.name() == *spec.name)).peekable();
                if parts.peek().is_some() {
                    let parts: Vec<&Tensor> = parts.collect();
                    return Tensor::stacked(parts.into_iter());
                }
                spec.without_rows()
            })
            .collect()
    }
}
