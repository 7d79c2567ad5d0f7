//! The model on the inner executor, as the guest of one call of a custom executor sees it.

use crate::executor::scheduler::WorkerLease;
use crate::executor::target::ModelTarget;
use crate::error::Result;
use crate::predict::{CallContext, Outputs, Release, Responses, Target, Tensor};
use std::sync::atomic::{AtomicI32, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Calls of one guest that are remembered before those that have ended are forgotten.
const RELEASES_KEPT: usize = 64;

pub(super) struct InnerModel {
    target: ModelTarget,
    /// What the guest has called there.
    releases: Mutex<Vec<Release>>,
    /// Whether a call may run on the worker that polls the guest.
    lease: Option<Arc<WorkerLease>>,
    first_call: AtomicU8,
}

const NOTHING: u8 = 0;
const CALLED: u8 = 1;
const STARTED: u8 = 2;

impl InnerModel {
    pub fn new(target: ModelTarget, lease: Option<Arc<WorkerLease>>) -> Arc<Self> {
        Arc::new(InnerModel { target, releases: Mutex::default(), lease, first_call: AtomicU8::new(NOTHING) })
    }

    /// Whether the guest now has a worker to itself for its call, and so does not wait for it.
    pub fn has_worker(&self) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.is_held())
    }

    /// Returns once nothing works on the inner executor any more for a call that nobody waits for: its place
    /// here is held as long, and whoever watches for its end (a job) sees the real one.
    pub async fn released(&self, context: &CallContext) {
        if context.check().is_ok() {
            return;
        }
        let called = std::mem::take(&mut *self.releases.lock().expect("invariant: no panic under the lock"));
        for release in called {
            release.wait().await;
        }
    }

    fn record_first(&self, what: u8) {
        let _ = self.first_call.compare_exchange(NOTHING, what, Ordering::Relaxed, Ordering::Relaxed);
    }
}

impl Target for InnerModel {
    fn model(&self) -> &str {
        self.target.model()
    }

    fn version(&self) -> &str {
        self.target.version()
    }

    fn is_streaming(&self) -> bool {
        self.target.is_streaming()
    }

    fn start(&self, caller: &CallContext, inputs: Vec<Tensor>) -> Result<Responses> {
        self.record_first(STARTED);
        let responses = self.target.start(caller, inputs)?;
        let mut called = self.releases.lock().expect("invariant: no panic under the lock");
        if called.len() >= RELEASES_KEPT {
            called.retain(|release| !release.is_released());
        }
        called.push(responses.release());
        drop(called);
        Ok(responses)
    }

    fn call<'a>(&'a self, caller: &'a CallContext, inputs: Vec<Tensor>, until: Instant) -> Outputs<'a> {
        self.record_first(CALLED);
        let Some(lease) = self.lease.as_ref().filter(|lease| lease.is_held()) else {
            return Box::pin(async move { self.start(caller, inputs)?.one().await?.tensors() });
        };
        Box::pin(async move { self.target.run_here(lease, caller, inputs, until).await })
    }
}

/// Whether the guests of an executor mostly begin with a call that they wait for: these are lent workers.
/// Others would wait in the inner executor's queue for a turn that they do not use: a cache that has the
/// answer, a hedge that has started its call and waits for two things.
#[derive(Default)]
pub(super) struct InlineHeuristic(AtomicI32);

impl InlineHeuristic {
    const MAX: i32 = 16;
    /// One guest that had no use for its turn weighs as much as so many that had.
    const UNUSED: i32 = 4;

    pub fn runs_inline(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= 0
    }

    pub fn learn(&self, below: &InnerModel) {
        let step = if below.first_call.load(Ordering::Relaxed) == CALLED { 1 } else { -Self::UNUSED };
        let score = self.0.load(Ordering::Relaxed);
        let next = (score + step).clamp(-Self::MAX, Self::MAX);
        // A lost step does not matter, a shared cache line on each request would.
        if next != score {
            self.0.store(next, Ordering::Relaxed);
        }
    }
}
