//! Keeps the outputs of steps that have ended, and reuses them in the next attempt at the same job.
//!
//! Outputs are reused only if nothing before the step has run again, so the steps that depend on
//! one that runs again run again too.

use super::model::StepTarget;
use super::reusability::Reuse;
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
    /// Returns whether the outputs of an earlier attempt can stand for a run of the step, and
    /// whether those of this one are kept.
    pub(super) fn reuse_of(&self, frame: usize, step: usize) -> Reuse {
        if self.account.reuse == Reuse::Never {
            return Reuse::Never;
        }
        let program = &self.program.steps[step];
        let graph = &self.program.graph;
        // The outputs of a loop depend on values that the key lacks, and nobody waits for those of
        // a detached step. Items of a stream are as many as the stream likes.
        let is_kept = program.scope == ROOT
            && program.items.is_none()
            && !program.is_detached
            && graph.steps[step].looped.is_none()
            && self.target_of(step).key.is_some();
        if is_kept { self.reuse_before(frame, step) } else { Reuse::Never }
    }

    /// Returns what the steps before this one mean for it.
    pub(super) fn reuse_before(&self, frame: usize, step: usize) -> Reuse {
        if self.account.reuse == Reuse::Never {
            return Reuse::Never;
        }
        let program = &self.program.steps[step];
        let read = program.needs.iter().flat_map(|need| need.members.iter().flatten());
        let read = read.filter_map(|value| match value {
            ValueRef::Output(step, _) => Some(*step),
            ValueRef::Gathered(gathered) => Some(gathered.stream),
            ValueRef::Input(_) | ValueRef::Const(_) => None,
        });
        let waited = program.chosen_by.iter().chain(&program.after).chain(&program.asks).copied();
        let of_step = |step: usize| {
            let at = self.enclosing_frame(frame, self.program.steps[step].scope);
            at.map_or(Reuse::Never, |at| self.frames[at].cells[step].reuse)
        };
        read.chain(waited).map(of_step).fold(self.account.reuse, Ord::max)
    }

    fn target_of(&self, step: usize) -> &StepTarget {
        self.model.bindings[step].target(self.context)
    }
}

impl StepRun<'_> {
    /// Runs the step, unless its outputs are kept from an earlier attempt.
    pub async fn run_or_reuse(self, inputs: Vec<Tensor>) -> StepEnd {
        match self.context.steps.clone() {
            Some(observer) if self.model.program.graph.keeps_steps && self.reuse != Reuse::Never => {
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
        if self.reuse == Reuse::Possible {
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
        // Without rows, the model was not called: the step is decided again.
        if let Ok(outputs) = &end.outputs
            && end.ran
            && let Err(error) = checkpoints.keep(key, outputs.clone()).await
        {
            tracing::warn!(%step, "outputs of a step not kept: {error}");
        }
        end
    }

    /// Returns the key of the outputs; `None` if the model has none.
    async fn key(&self, inputs: &[Tensor]) -> Option<StepKey> {
        let (step, target) = (self.step(), self.target());
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
