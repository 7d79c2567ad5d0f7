//! Limits of a step over all requests: concurrent runs, and runs per second. The counts are kept by
//! pipeline and step, and survive reloads.

use crate::lock::LockUnpoisoned;
use crate::wait_list::WaitList;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

/// The runs in flight of every limited step, of all policies.
#[derive(Default)]
pub struct PipelineLimits(Mutex<HashMap<StepName, Weak<StepFlow>>>);

/// The names of a pipeline and of one of its steps.
type StepName = (Arc<str>, Arc<str>);

/// The runs of one step.
#[derive(Default)]
pub struct StepFlow {
    in_flight: AtomicUsize,
    waiting: WaitList,
    /// When the latest run began. Runs that must wait hold the lock, so they wait one after
    /// another.
    latest: tokio::sync::Mutex<Option<Instant>>,
}

/// The limits of a step in one policy. They apply to the runs of all policies together.
pub struct StepLimit {
    flow: Arc<StepFlow>,
    in_flight_max: Option<usize>,
    between: Option<Duration>,
}

/// The permit of one run, released when dropped.
pub(super) struct Permit<'a>(Option<&'a StepFlow>);

impl PipelineLimits {
    /// Returns the limits of a step. `None` if it has none.
    pub fn of(
        &self,
        pipeline: &Arc<str>,
        step: &Arc<str>,
        in_flight_max: Option<usize>,
        per_s: Option<f64>,
    ) -> Option<StepLimit> {
        if in_flight_max.is_none() && per_s.is_none() {
            return None;
        }
        let mut flows = self.0.lock_unpoisoned();
        flows.retain(|_, flow| flow.strong_count() > 0);
        let key = (Arc::clone(pipeline), Arc::clone(step));
        let flow = flows.get(&key).and_then(Weak::upgrade).unwrap_or_default();
        flows.insert(key, Arc::downgrade(&flow));
        let between = per_s.map(|per_s| Duration::from_secs_f64(1.0 / per_s));
        Some(StepLimit { flow, in_flight_max, between })
    }
}

impl StepLimit {
    /// Waits until a run may begin. Runs are admitted in the order of `since`, when their requests
    /// were admitted.
    pub(super) async fn enter(&self, since: Instant) -> Permit<'_> {
        let permit = match self.in_flight_max {
            None => Permit(None),
            Some(most) => {
                let take = |running| (running < most).then_some(running + 1);
                let in_flight = &self.flow.in_flight;
                let attempt = || {
                    let taken = in_flight.fetch_update(Ordering::AcqRel, Ordering::Acquire, take);
                    taken.ok().map(|_| Permit(Some(&*self.flow)))
                };
                self.flow.waiting.wait(since, attempt).await
            }
        };
        if let Some(between) = self.between {
            let mut latest = self.flow.latest.lock().await;
            if let Some(at) = *latest {
                tokio::time::sleep_until((at + between).into()).await;
            }
            *latest = Some(Instant::now());
        }
        permit
    }

    /// Returns the number of runs in flight.
    pub fn in_flight(&self) -> usize {
        self.flow.in_flight.load(Ordering::Acquire)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if let Some(flow) = self.0 {
            flow.in_flight.fetch_sub(1, Ordering::AcqRel);
            flow.waiting.freed();
        }
    }
}
