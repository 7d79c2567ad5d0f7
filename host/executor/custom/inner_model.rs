//! The model on the inner executor, as the guest of one call of a custom executor sees it, and the
//! heuristic that decides where guests start.

use crate::error::Result;
use crate::executor::scheduler::WorkerLease;
use crate::executor::target::ModelTarget;
use crate::lock::LockUnpoisoned;
use crate::predict::{CallContext, Outputs, Release, Responses, Target, Tensor};
use std::sync::atomic::{AtomicI32, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// The number of remembered calls of one guest from which those that have ended are removed.
const RELEASES_KEPT: usize = 64;

pub(super) struct InnerModel {
    target: ModelTarget,
    /// The calls that the guest has started on the inner executor.
    releases: Mutex<Vec<Release>>,
    /// Present if a call may run on the worker that polls the guest.
    lease: Option<Arc<WorkerLease>>,
    /// How the guest made its first call: `NOTHING`, `CALLED` or `STARTED`.
    first_call: AtomicU8,
}

const NOTHING: u8 = 0;
const CALLED: u8 = 1;
const STARTED: u8 = 2;

impl InnerModel {
    pub fn new(target: ModelTarget, lease: Option<Arc<WorkerLease>>) -> Arc<Self> {
        Arc::new(InnerModel { target, releases: Mutex::default(), lease, first_call: AtomicU8::new(NOTHING) })
    }

    /// Returns true if the guest holds a worker now, so that its call needs no other one.
    pub fn has_worker(&self) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.is_held())
    }

    /// If the call was cancelled or its deadline passed, waits until its calls on the inner
    /// executor have ended. The slot of the call is held until then, so that those that wait for
    /// its end, such as jobs, see the real one.
    pub async fn released(&self, context: &CallContext) {
        if context.check().is_ok() {
            return;
        }
        let called = std::mem::take(&mut *self.releases.lock_unpoisoned());
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
        let mut called = self.releases.lock_unpoisoned();
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

/// Tracks whether the guests of an executor mostly begin with a call that they wait for. If so,
/// they start on a worker of the inner executor. Other guests would wait in the inner executor's
/// queue for a worker that they do not use: a cache that has the answer, or a hedge that starts its
/// call without waiting for it alone.
#[derive(Default)]
pub(super) struct InlineHeuristic(AtomicI32);

impl InlineHeuristic {
    const MAX: i32 = 16;
    /// The weight of a guest that did not use its worker. One that did has the weight 1.
    const UNUSED: i32 = 4;

    pub fn runs_inline(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= 0
    }

    pub fn learn(&self, inner: &InnerModel) {
        let step = if inner.first_call.load(Ordering::Relaxed) == CALLED { 1 } else { -Self::UNUSED };
        let score = self.0.load(Ordering::Relaxed);
        let next = (score + step).clamp(-Self::MAX, Self::MAX);
        // A lost update does not matter. A write to a shared cache line on each request would.
        if next != score {
            self.0.store(next, Ordering::Relaxed);
        }
    }
}
