//! Requests of one route since it began and the time they took, for the protocols' statistics.
//!
//! A request costs a few relaxed increments and no lock. Unlike the guard's counters, which compare
//! generations, these survive a reload that leaves their route as it is.

use crate::executor::{Batching, Runs};
use crate::metrics::Count;
use crate::predict::{Response, Service};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Counters of one model and version. Queue, service and rows count answered requests only.
pub struct Statistics {
    pub runs: Arc<Runs>,
    success: Timed,
    fail: Timed,
    queue: Count,
    input: Count,
    infer: Count,
    output: Count,
    rows: Count,
    /// Milliseconds since 1970; 0 before the first request.
    last: Count,
}

#[derive(Default)]
struct Timed {
    count: Count,
    time: Count,
}

impl Timed {
    fn add(&self, took: Duration) {
        self.count.add(1);
        self.time.add_time(took);
    }

    fn get(&self) -> Total {
        Total { count: self.count.get(), time: self.time.time() }
    }
}

/// A number of events and their total time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    pub count: u64,
    pub time: Duration,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Totals {
    /// When the last request ended, in milliseconds since 1970; 0 if there was none.
    pub last_ms: u64,
    pub success: Total,
    pub fail: Total,
    pub queue: Duration,
    pub service: Service,
}

impl Statistics {
    pub fn new(batching: Option<Batching>) -> Self {
        Statistics {
            runs: Arc::new(Runs::new(batching)),
            success: Timed::default(),
            fail: Timed::default(),
            queue: Count::default(),
            input: Count::default(),
            infer: Count::default(),
            output: Count::default(),
            rows: Count::default(),
            last: Count::default(),
        }
    }

    /// Counts a request that was answered after `elapsed`.
    pub fn answered(&self, elapsed: Duration, queue_wait: Duration, service: Service, now: SystemTime) {
        self.success.add(elapsed);
        self.queue.add_time(queue_wait);
        self.input.add_time(service.input);
        self.infer.add_time(service.infer);
        self.output.add_time(service.output);
        // A stream without a response reports no rows.
        self.rows.add(service.rows.max(1) as u64);
        self.touch(now);
    }

    /// Counts one item of a batch request.
    pub fn answered_item(&self, response: &Response) {
        let elapsed = response.queue_wait + response.service.total();
        self.answered(elapsed, response.queue_wait, response.service, SystemTime::now());
    }

    pub fn failed(&self, elapsed: Duration, now: SystemTime) {
        self.fail.add(elapsed);
        self.touch(now);
    }

    fn touch(&self, now: SystemTime) {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last.set(since.as_millis() as u64);
    }

    pub fn totals(&self) -> Totals {
        let (input, infer, output) = (self.input.time(), self.infer.time(), self.output.time());
        Totals {
            last_ms: self.last.get(),
            success: self.success.get(),
            fail: self.fail.get(),
            queue: self.queue.time(),
            service: Service { input, infer, output, rows: self.rows.get() as usize, ..Service::default() },
        }
    }
}
