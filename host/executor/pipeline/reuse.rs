//! Keeps the outputs of steps that have ended, and reuses them in the next attempt at the same job.
//!
//! Outputs are reused only if nothing before the step has run again, so what is behind a step that
//! runs again runs again too.

use super::frame::StepCell;
use super::run_state::{ROOT, RunState};
use super::step::{StepEnd, StepRun};
use crate::graph::ValueRef;
use crate::offload;
use crate::predict::{Parameter, StepKey, StepObserver, Tensor};
use sha2::{Digest, Sha256};
use std::time::Duration;

/// Changes when keys are made of other parts.
const KEY_VERSION: &[u8] = b"step 1";

impl RunState<'_> {
    /// Returns true if something before a step has run in this attempt, or cannot be compared with
    /// an earlier one.
    pub(super) fn is_behind_fresh(&self, frame: usize, step: usize) -> bool {
        let program = &self.program.steps[step];
        if program.scope != ROOT {
            return true;
        }
        let read = program.needs.iter().flat_map(|need| need.members.iter().flatten());
        let read = read.filter_map(|value| match value {
            ValueRef::Output(step, _) => Some(*step),
            ValueRef::Gathered(gathered) => Some(gathered.stream),
            ValueRef::Input(_) | ValueRef::Const(_) => None,
        });
        let waited = program.chosen_by.iter().chain(&program.after).chain(&program.asks).copied();
        let is_fresh = |step: usize| {
            let at = self.enclosing_frame(frame, self.program.steps[step].scope);
            at.is_none_or(|at| {
                let cell: &StepCell = &self.frames[at].cells[step];
                cell.is_fresh
            })
        };
        read.chain(waited).any(is_fresh)
    }
}

impl StepRun<'_> {
    /// Runs the step, unless its outputs are kept from an earlier attempt.
    pub async fn run_or_reuse(self, inputs: Vec<Tensor>) -> StepEnd {
        match self.context.steps.clone() {
            Some(observer) if self.model.program.graph.keeps_steps => {
                // Boxed, because it is rare and must not add to the future of every step.
                Box::pin(self.run_kept(&*observer, inputs)).await
            }
            _ => self.run(inputs).await,
        }
    }

    async fn run_kept(self, observer: &dyn StepObserver, inputs: Vec<Tensor>) -> StepEnd {
        let Some(checkpoints) = observer.checkpoints() else { return self.run(inputs).await };
        let Some(key) = self.key(&inputs).await else { return self.run(inputs).await };
        let step = self.step().name.clone();
        if self.may_reuse {
            match checkpoints.find(key).await {
                Ok(Some(outputs)) => {
                    let (outputs, zero) = (Ok(outputs), Duration::ZERO);
                    return StepEnd { outputs, ran: true, is_reused: true, queue: zero, time: zero };
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(%step, "outputs of a step not read: {error}"),
            }
        }
        let end = self.run(inputs).await;
        if let Ok(outputs) = &end.outputs
            && let Err(error) = checkpoints.keep(key, outputs.clone()).await
        {
            tracing::warn!(%step, "outputs of a step not kept: {error}");
        }
        end
    }

    /// Returns the key of the outputs; `None` if they are not kept. Those of a loop depend on
    /// values that the key lacks, and nobody waits for those of a detached step.
    async fn key(&self, inputs: &[Tensor]) -> Option<StepKey> {
        let (step, target) = (self.step(), self.target());
        if step.looped.is_some() || self.is_detached {
            return None;
        }
        let mut hash = Sha256::new_with_prefix(KEY_VERSION);
        add(&mut hash, &target.key?);
        add(&mut hash, &self.model.graph_digest);
        add(&mut hash, self.account.step_path(&step.name).as_bytes());
        let (what, number) = self.number.unwrap_or_default();
        add(&mut hash, what.as_bytes());
        hash.update(number.to_le_bytes());
        add(&mut hash, target.target.model.as_bytes());
        add(&mut hash, target.target.version.as_bytes());
        let parameters = self.context.parameters.iter();
        hash.update((parameters.len() as u64).to_le_bytes());
        for (name, value) in parameters {
            add(&mut hash, name.as_bytes());
            add(&mut hash, text(value).as_bytes());
        }
        let bytes = inputs.iter().map(|tensor| tensor.data().len()).sum();
        let inputs = inputs.to_vec();
        let key = offload::run(bytes, move || {
            for tensor in &inputs {
                add(&mut hash, tensor.name().as_bytes());
                add(&mut hash, tensor.datatype().as_str().as_bytes());
                hash.update((tensor.shape().len() as u64).to_le_bytes());
                tensor.shape().iter().for_each(|size| hash.update(size.to_le_bytes()));
                add(&mut hash, tensor.data());
            }
            hash.finalize().into()
        });
        Some(key.await)
    }
}

/// Adds a part with its length, so that different parts never make the same text.
fn add(hash: &mut Sha256, part: &[u8]) {
    hash.update((part.len() as u64).to_le_bytes());
    hash.update(part);
}

/// Returns a text that is different for different values, also of different types.
fn text(value: &Parameter) -> String {
    match value {
        Parameter::Boolean(value) => format!("b{value}"),
        Parameter::Integer(value) => format!("i{value}"),
        Parameter::Number(value) => format!("n{:x}", value.to_bits()),
        Parameter::Text(value) => format!("t{value}"),
    }
}
