//! What the workers of a pool are doing.

use super::queue::Job;
use crate::predict::CallContext;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A worker held for longer than this past the end of its call's time counts as overdue: guests stop
/// within it, ONNX Runtime only at the next node of its graph.
pub(super) const OVERDUE_AFTER: Duration = Duration::from_millis(10);

/// What a worker is doing: the calls that have no answer yet, each at its place.
#[derive(Default)]
pub(super) struct WorkerRun {
    pub calls: Vec<Option<Arc<CallContext>>>,
    pub left: usize,
    /// Until when none of them can be late.
    in_time: Option<Instant>,
}

impl WorkerRun {
    pub fn begin(&mut self, jobs: &[Job]) {
        self.calls.clear();
        self.calls.extend(jobs.iter().map(|job| Some(Arc::clone(job.context()))));
        self.left = jobs.len();
        let first = jobs.iter().filter_map(|job| job.context().deadline).min();
        self.in_time = first.map(|deadline| deadline + OVERDUE_AFTER);
    }

    /// Says how many of them had not ended before.
    pub fn end(&mut self, places: &[usize]) -> usize {
        let ended = places.iter().filter(|&&place| self.calls[place].take().is_some()).count();
        self.left -= ended;
        ended
    }

    pub fn is_busy(&self) -> bool {
        self.left > 0
    }

    /// Calls that share a run are late when the last of them is.
    pub fn is_overdue(&self) -> bool {
        let now = Instant::now();
        if self.in_time.is_none_or(|in_time| now <= in_time) {
            return false;
        }
        let latest = self.calls.iter().flatten().map(|context| context.deadline);
        let latest = latest.reduce(|a, b| Some(a?.max(b?))).flatten();
        latest.is_some_and(|deadline| now > deadline + OVERDUE_AFTER)
    }
}
