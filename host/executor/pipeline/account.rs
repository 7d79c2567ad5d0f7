//! What one request may spend in a pipeline, and what it has begun there.

use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::predict::Release;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Calls that are remembered before those that have ended are forgotten.
const CALLED_KEPT: usize = 32;

/// Of one run of a pipeline. That of a pipeline within another one spends from both.
pub(super) struct RequestAccount {
    above: Option<Arc<RequestAccount>>,
    /// Pipelines around this one.
    pub depth: usize,
    pipeline: Arc<str>,
    /// Set where the steps are shown: the outermost pipeline, and the steps that lead here.
    pub path: Option<Box<str>>,
    /// When the request was admitted: what it goes on with is ordered by that.
    pub since: Instant,
    /// Whether its steps count for the routes of their models.
    pub counts: bool,
    /// Whether it may run steps on the thread that polls it.
    pub may_run_here: bool,
    visits: AtomicUsize,
    visits_max: usize,
    bytes: AtomicUsize,
    bytes_max: usize,
    parallel: Option<Semaphore>,
    called: Mutex<StartedCall>,
}

#[derive(Default)]
struct StartedCall {
    releases: Vec<Release>,
    /// As many as there may be before those that have ended are looked for.
    next_look: usize,
}

impl Drop for RequestAccount {
    /// What a pipeline within another one still holds is not held any more.
    fn drop(&mut self) {
        let held = self.bytes.load(Ordering::Relaxed);
        for account in self.up().skip(1) {
            account.bytes.fetch_sub(held, Ordering::Relaxed);
        }
    }
}

impl RequestAccount {
    pub fn new(graph: &Graph, since: Instant, counts: bool, may_run_here: bool) -> Self {
        RequestAccount {
            above: None,
            depth: 0,
            pipeline: Arc::clone(&graph.name),
            path: None,
            since,
            counts,
            may_run_here,
            visits: AtomicUsize::new(0),
            visits_max: graph.max_visits as usize,
            bytes: AtomicUsize::new(0),
            bytes_max: graph.max_bytes,
            parallel: (graph.parallel > 0).then(|| Semaphore::new(graph.parallel)),
            called: Mutex::default(),
        }
    }

    /// For a step that is a pipeline itself.
    pub fn below(
        self: &Arc<Self>,
        graph: &Graph,
        may_run_here: bool,
        path: Option<Box<str>>,
    ) -> Arc<RequestAccount> {
        let mut own = RequestAccount::new(graph, self.since, self.counts, may_run_here);
        own.path = path;
        (own.above, own.depth) = (Some(Arc::clone(self)), self.depth + 1);
        Arc::new(own)
    }

    /// The name of a step where the steps are shown: `pipeline.step`, or `pipeline.outer.step` within another one.
    pub fn shown(&self, step: &str) -> String {
        format!("{}.{step}", self.path.as_deref().unwrap_or(&self.pipeline))
    }

    fn up(&self) -> impl Iterator<Item = &RequestAccount> {
        std::iter::successors(Some(self), |account| account.above.as_deref())
    }

    /// Counts one run of a step.
    pub fn session(&self) -> Result<()> {
        for account in self.up() {
            if account.visits.fetch_add(1, Ordering::Relaxed) >= account.visits_max {
                let (pipeline, most) = (&account.pipeline, account.visits_max);
                return Err(Error::failed(format!(
                    "pipeline \"{pipeline}\": the request ran more than {most} steps; raise max_visits if it needs them"
                )));
            }
        }
        Ok(())
    }

    /// Counts bytes of a tensor that is kept.
    pub fn hold(&self, bytes: usize) -> Result<()> {
        for account in self.up() {
            if account.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > account.bytes_max {
                // It is not held: neither here nor below.
                let outermost = std::ptr::from_ref(account);
                for undone in self.up() {
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

    pub fn let_go(&self, bytes: usize) {
        for account in self.up() {
            account.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// Whether so many runs of steps are left, for what is about to be cut into as many parts.
    pub fn expect(&self, what: &str, runs: usize) -> Result<()> {
        for account in self.up() {
            if runs > account.visits_max.saturating_sub(account.visits.load(Ordering::Relaxed)) {
                let (pipeline, most) = (&account.pipeline, account.visits_max);
                return Err(Error::too_large(format!(
                    "pipeline \"{pipeline}\": the request has {runs} {what}, and may run {most} steps; send fewer, or raise \
                     max_visits"
                )));
            }
        }
        Ok(())
    }

    /// Waits until one more step may run at once.
    pub async fn parallel(&self) -> Option<SemaphorePermit<'_>> {
        match &self.parallel {
            Some(parallel) => parallel.acquire().await.ok(),
            None => None,
        }
    }

    /// Remembers a call, so that its end can be waited for.
    pub fn called(&self, release: Release) {
        if let Some(above) = &self.above {
            return above.called(release);
        }
        let mut called = self.called.lock().unwrap_or_else(PoisonError::into_inner);
        if called.releases.len() >= called.next_look {
            called.releases.retain(|release| !release.is_released());
            called.next_look = CALLED_KEPT.max(2 * called.releases.len());
        }
        called.releases.push(release);
    }

    /// Whether nothing works for the request any more.
    pub fn is_released(&self) -> bool {
        let called = self.called.lock().unwrap_or_else(PoisonError::into_inner);
        called.releases.iter().all(Release::is_released)
    }

    /// Returns once nothing works for the request any more, which may be after its answer: ONNX Runtime stops at the
    /// next node of its graph.
    pub async fn released(&self) {
        let called = std::mem::take(&mut *self.called.lock().unwrap_or_else(PoisonError::into_inner));
        for release in called.releases {
            release.wait().await;
        }
    }
}
