//! What was asked of one route since it began, and what that took, for who watches from outside.
//!
//! A few relaxed increments a request and no lock. Unlike a tally these counters survive a reload that leaves
//! their route as it is; the guard, which compares generations, has its own.

use crate::executor::{Batching, Runs};
use crate::metrics::Count;
use crate::predict::{Response, Service};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Counters of one model and version. Queue, service and rows are of requests that had their answer.
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

/// How often, and how long all of them together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    pub count: u64,
    pub time: Duration,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Totals {
    /// Milliseconds since 1970 of the last request; 0 if there was none.
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

    /// A request that has its answer after so long.
    pub fn answered(&self, elapsed: Duration, queue_wait: Duration, service: Service, now: SystemTime) {
        self.success.add(elapsed);
        self.queue.add_time(queue_wait);
        self.input.add_time(service.input);
        self.infer.add_time(service.infer);
        self.output.add_time(service.output);
        // Of a stream without a response nobody has said it.
        self.rows.add(service.rows.max(1) as u64);
        self.touch(now);
    }

    /// One of several that came as one request.
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
            service: Service { input, infer, output, rows: self.rows.get() as usize },
        }
    }
}
