//! Limits of a step over all requests: runs at once and runs a second. They survive reloads, by pipeline and step.

use crate::wait_list::WaitList;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// What is in flight of every limited step, whichever policy started it.
#[derive(Default)]
pub struct PipelineLimits(Mutex<HashMap<StepName, Weak<Flow>>>);

/// A pipeline and a step of it.
type StepName = (Arc<str>, Arc<str>);

/// The runs of one step.
#[derive(Default)]
pub struct Flow {
    in_flight: AtomicUsize,
    waiting: WaitList,
    /// When the latest run began. Those that wait for their time do so in turn.
    latest: tokio::sync::Mutex<Option<Instant>>,
}

/// The numbers of one policy, held against the runs of all.
pub struct StepLimit {
    flow: Arc<Flow>,
    in_flight_max: Option<usize>,
    between: Option<Duration>,
}

/// One run of a limited step.
pub(super) struct Permit<'a>(Option<&'a Flow>);

impl PipelineLimits {
    /// The limit of a step, or none if it has no numbers.
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
        let mut flows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        flows.retain(|_, flow| flow.strong_count() > 0);
        let key = (Arc::clone(pipeline), Arc::clone(step));
        let flow = flows.get(&key).and_then(Weak::upgrade).unwrap_or_default();
        flows.insert(key, Arc::downgrade(&flow));
        let between = per_s.map(|per_s| Duration::from_secs_f64(1.0 / per_s));
        Some(StepLimit { flow, in_flight_max, between })
    }
}

impl StepLimit {
    /// Waits until a run may begin; `since` is when its request began.
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

    /// Runs in flight now.
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
