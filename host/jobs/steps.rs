//! The steps of a pipeline that runs as a job: their progress, and the outputs that are kept for
//! the next attempt.

use super::step_summary::{StepState, StepSummary};
use super::store::{Bounds, JobStore, KeptStep, Lease};
use crate::error::Error;
use crate::lock::LockUnpoisoned;
use crate::predict::{CheckpointFuture, Checkpoints, Payload, StepKey, StepObserver, StepRecord, Tensor};
use prometheus::IntCounter;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::Handle;

/// The most steps of one attempt that are shown.
const STEPS_MAX: usize = 500;

/// Follows the steps of one attempt, and keeps what they compute.
pub(super) struct JobSteps {
    progress: Mutex<Progress>,
    checkpoints: JobCheckpoints,
}

#[derive(Default)]
struct Progress {
    /// In the order in which they became known.
    steps: Vec<StepProgress>,
    places: HashMap<String, usize>,
}

struct StepProgress {
    summary: StepSummary,
    running: u64,
}

impl JobSteps {
    pub fn new(checkpoints: JobCheckpoints) -> Self {
        JobSteps { progress: Mutex::default(), checkpoints }
    }

    /// Returns the steps as they are now. If the attempt has ended, no step runs any more.
    pub fn summaries(&self, has_ended: bool) -> Vec<StepSummary> {
        let progress = self.progress.lock_unpoisoned();
        let summary = |step: &StepProgress| {
            let mut summary = step.summary.clone();
            if step.running > 0 {
                summary.state = if has_ended { StepState::Cancelled } else { StepState::Running };
            }
            summary
        };
        progress.steps.iter().map(summary).collect()
    }

    fn change(&self, path: &str, change: impl FnOnce(&mut StepProgress)) {
        let mut progress = self.progress.lock_unpoisoned();
        let place = match progress.places.get(path) {
            Some(place) => *place,
            None if progress.steps.len() == STEPS_MAX => return,
            None => {
                let summary = StepSummary {
                    step: path.to_owned(),
                    state: StepState::Pending,
                    runs: 0,
                    reused: 0,
                    time: Duration::ZERO,
                    queue: Duration::ZERO,
                };
                let place = progress.steps.len();
                progress.steps.push(StepProgress { summary, running: 0 });
                progress.places.insert(path.to_owned(), place);
                place
            }
        };
        change(&mut progress.steps[place]);
    }
}

impl StepObserver for JobSteps {
    fn expected(&self, path: &str) {
        self.change(path, |_| {});
    }

    fn begun(&self, path: &str) {
        self.change(path, |step| step.running += 1);
    }

    fn ended(&self, path: &str, record: StepRecord) {
        self.change(path, |step| {
            let summary = &mut step.summary;
            summary.state = match record.outcome {
                "ok" | "reused" => StepState::Succeeded,
                "skipped" => StepState::Skipped,
                "cancelled" => StepState::Cancelled,
                _ => StepState::Failed,
            };
            match record.outcome {
                "skipped" => return,
                "reused" => {
                    summary.reused += 1;
                    self.checkpoints.reused.inc();
                }
                _ => summary.runs += 1,
            }
            step.running = step.running.saturating_sub(1);
            summary.time += record.time;
            summary.queue += record.queue;
        });
    }

    fn wants_tensors(&self) -> bool {
        false
    }

    fn checkpoints(&self) -> Option<&dyn Checkpoints> {
        Some(&self.checkpoints)
    }
}

/// Keeps the outputs of steps in the store of the job.
pub(super) struct JobCheckpoints {
    pub store: Arc<dyn JobStore>,
    pub lease: Lease,
    pub bounds: Bounds,
    pub runtime: Handle,
    /// Counts the outputs that were used again.
    pub reused: IntCounter,
    /// The keys of what this attempt has kept. It is for the next one: in this one, a nested
    /// pipeline may be asked for the same again, to get another answer.
    pub own: Mutex<HashSet<StepKey>>,
}

impl Checkpoints for JobCheckpoints {
    fn find(&self, key: StepKey) -> CheckpointFuture<'_, Option<Vec<Tensor>>> {
        Box::pin(async move {
            if self.own.lock_unpoisoned().contains(&key) {
                return Ok(None);
            }
            Ok(match self.store.kept_step(&self.lease, key).await? {
                Some(Payload::Tensors(outputs)) => Some(outputs),
                _ => None,
            })
        })
    }

    fn keep(&self, key: StepKey, outputs: Vec<Tensor>) -> CheckpointFuture<'_, ()> {
        Box::pin(async move {
            let outputs = outputs.into_iter().map(|tensor| tensor.detached().unwrap_or(tensor)).collect();
            self.own.lock_unpoisoned().insert(key);
            let step = KeptStep { key, outputs: Payload::Tensors(outputs) };
            let (store, lease, bounds) = (Arc::clone(&self.store), self.lease.clone(), self.bounds);
            // In a task of its own: if the attempt ends meanwhile, the outputs are kept or not, but
            // never a part of them.
            let kept = self.runtime.spawn(async move { store.keep_step(lease, step, bounds).await });
            let kept = kept.await.map_err(|error| Error::failed(format!("the task ended: {error}")))?;
            // A job that was claimed by another host keeps nothing for this one.
            kept.map(drop)
        })
    }
}
