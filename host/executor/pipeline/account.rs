//! The account of one request in a pipeline: its budget of runs and bytes, and the calls that it
//! has started.

use super::reusability::Reuse;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::lock::LockUnpoisoned;
use crate::predict::Release;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio::sync::{Semaphore, SemaphorePermit};

/// The number of tracked calls at which those that have ended are first removed.
const SWEEP_MIN: usize = 32;

/// The account of one run of a pipeline. A nested pipeline spends from its own account and from all
/// outer ones.
pub(super) struct RequestAccount {
    outer: Option<Arc<RequestAccount>>,
    /// The number of pipelines around this one.
    pub depth: usize,
    pipeline: Arc<str>,
    /// Set if steps are recorded and this pipeline is nested: the outermost pipeline, and the steps
    /// that lead here.
    pub path: Option<Box<str>>,
    /// When the request was admitted. Its calls are ordered by this time.
    pub since: Instant,
    /// Whether steps are counted by the routes of their models.
    pub counts: bool,
    /// Whether steps may run on the thread that polls the request.
    pub may_run_inline: bool,
    /// Whether the outputs of an earlier attempt can stand for runs of the first steps.
    pub reuse: Reuse,
    runs: AtomicUsize,
    runs_max: usize,
    bytes: AtomicUsize,
    bytes_max: usize,
    parallel: Option<Semaphore>,
    tracked: Mutex<TrackedCalls>,
}

#[derive(Default)]
struct TrackedCalls {
    releases: Vec<Release>,
    /// The number of calls at which those that have ended are removed next.
    sweep_at: usize,
}

impl Drop for RequestAccount {
    /// Returns the bytes that a nested pipeline still holds to the outer accounts.
    fn drop(&mut self) {
        let held = self.bytes.load(Ordering::Relaxed);
        for account in self.with_outer().skip(1) {
            account.bytes.fetch_sub(held, Ordering::Relaxed);
        }
    }
}

impl RequestAccount {
    pub fn new(graph: &Graph, since: Instant, counts: bool, may_run_inline: bool) -> Self {
        RequestAccount {
            outer: None,
            depth: 0,
            pipeline: Arc::clone(&graph.name),
            path: None,
            since,
            counts,
            may_run_inline,
            reuse: Reuse::Never,
            runs: AtomicUsize::new(0),
            runs_max: graph.max_visits as usize,
            bytes: AtomicUsize::new(0),
            bytes_max: graph.max_bytes,
            parallel: (graph.parallel > 0).then(|| Semaphore::new(graph.parallel)),
            tracked: Mutex::default(),
        }
    }

    /// Creates the account of a nested pipeline, which is a step of this one.
    pub fn nested(
        self: &Arc<Self>,
        graph: &Graph,
        may_run_inline: bool,
        reuse: Reuse,
        path: Option<Box<str>>,
    ) -> Arc<RequestAccount> {
        let mut own = RequestAccount::new(graph, self.since, self.counts, may_run_inline);
        (own.path, own.reuse) = (path, reuse);
        (own.outer, own.depth) = (Some(Arc::clone(self)), self.depth + 1);
        Arc::new(own)
    }

    /// Returns the name of a step as it is recorded: `pipeline.step`, or `pipeline.outer.step` in a
    /// nested pipeline.
    pub fn step_path(&self, step: &str) -> String {
        format!("{}.{step}", self.path.as_deref().unwrap_or(&self.pipeline))
    }

    /// This account and all outer ones, from the inside out.
    fn with_outer(&self) -> impl Iterator<Item = &RequestAccount> {
        std::iter::successors(Some(self), |account| account.outer.as_deref())
    }

    /// Counts one run of a step.
    ///
    /// # Errors
    /// `Failed` if the request has used up its runs.
    pub fn count_run(&self) -> Result<()> {
        for account in self.with_outer() {
            if account.runs.fetch_add(1, Ordering::Relaxed) >= account.runs_max {
                let (pipeline, most) = (&account.pipeline, account.runs_max);
                return Err(Error::failed(format!(
                    "pipeline \"{pipeline}\": the request ran more than {most} steps; raise max_visits if it needs them"
                )));
            }
        }
        Ok(())
    }

    /// Counts the bytes of a tensor that is kept.
    ///
    /// # Errors
    /// `TooLarge` if the request holds too much. The bytes are then not counted.
    pub fn hold_bytes(&self, bytes: usize) -> Result<()> {
        for account in self.with_outer() {
            if account.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > account.bytes_max {
                // Undo it in this account and in those within it.
                let outermost = std::ptr::from_ref(account);
                for undone in self.with_outer() {
                    undone.bytes.fetch_sub(bytes, Ordering::Relaxed);
                    if std::ptr::eq(undone, outermost) {
                        break;
                    }
                }
                let (pipeline, most) = (&account.pipeline, account.bytes_max >> 20);
                return Err(Error::too_large(format!(
                    "pipeline \"{pipeline}\": the request holds more than {most} MB of tensors; raise max_mb if it needs them"
                )));
            }
        }
        Ok(())
    }

    pub fn release_bytes(&self, bytes: usize) {
        for account in self.with_outer() {
            account.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// Fails if fewer than `runs` runs are left. Checked before a request is cut into that many
    /// parts, which `what` names.
    pub fn check_runs_left(&self, what: &str, runs: usize) -> Result<()> {
        for account in self.with_outer() {
            if runs > account.runs_max.saturating_sub(account.runs.load(Ordering::Relaxed)) {
                let (pipeline, most) = (&account.pipeline, account.runs_max);
                return Err(Error::too_large(format!(
                    "pipeline \"{pipeline}\": the request has {runs} {what}, and may run {most} steps; send fewer, or raise \
                     max_visits"
                )));
            }
        }
        Ok(())
    }

    /// Waits until another step may run, if the number of parallel steps is limited.
    pub async fn acquire_parallel(&self) -> Option<SemaphorePermit<'_>> {
        match &self.parallel {
            Some(parallel) => parallel.acquire().await.ok(),
            None => None,
        }
    }

    /// Remembers a call, so that `released` can wait for its end.
    pub fn track(&self, release: Release) {
        if let Some(outer) = &self.outer {
            return outer.track(release);
        }
        let mut tracked = self.tracked.lock_unpoisoned();
        if tracked.releases.len() >= tracked.sweep_at {
            tracked.releases.retain(|release| !release.is_released());
            tracked.sweep_at = SWEEP_MIN.max(2 * tracked.releases.len());
        }
        tracked.releases.push(release);
    }

    /// Returns true if no call of the request is still running.
    pub fn is_released(&self) -> bool {
        let tracked = self.tracked.lock_unpoisoned();
        tracked.releases.iter().all(Release::is_released)
    }

    /// Waits until no call of the request is still running. That may be after its answer, since
    /// ONNX Runtime stops a cancelled run only at the next node of the graph.
    pub async fn released(&self) {
        let tracked = std::mem::take(&mut *self.tracked.lock_unpoisoned());
        for release in tracked.releases {
            release.wait().await;
        }
    }
}
