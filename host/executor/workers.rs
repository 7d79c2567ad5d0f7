//! The workers of an executor with a queue, and the room of those of its calls that wait: each call goes where it
//! belongs.

use super::parked::ParkedCalls;
use super::worker_pool::WorkerPool;
use super::{Call, GuestTask, Priority, Status};
use crate::error::Result;
use crate::predict::Responses;
use std::sync::Arc;
use std::time::Instant;

pub(super) struct Workers {
    pool: Arc<WorkerPool>,
    parked: ParkedCalls,
}

impl Workers {
    pub fn new(pool: WorkerPool) -> Self {
        Workers { parked: ParkedCalls::new(pool.name()), pool: Arc::new(pool) }
    }

    pub fn name(&self) -> &str {
        self.pool.name()
    }

    pub fn submit(&self, call: Call) -> Result<Responses> {
        if call.callable.shared().is_some() {
            self.parked.submit(call)
        } else if call.waits() {
            self.parked.submit_suspending(call, &self.pool)
        } else {
            self.pool.submit(call)
        }
    }

    /// See [`Executor::submit_begun`](super::Executor::submit_begun).
    pub async fn submit_started(&self, call: Call, since: Instant) -> Result<Responses> {
        match call.callable.shared() {
            Some(_) => self.parked.submit_started(call, since).await,
            None => self.submit(call),
        }
    }

    pub fn submit_batch(&self, calls: Vec<Call>) -> Result<Vec<Responses>> {
        match calls.first() {
            Some(first) if first.callable.shared().is_some() => self.parked.submit_batch(calls),
            Some(first) if first.waits() => self.parked.submit_suspending_batch(calls, &self.pool),
            _ => self.pool.submit_batch(calls),
        }
    }

    pub fn submit_guest(&self, order: Priority, task: GuestTask) -> Result<(), GuestTask> {
        self.pool.submit_guest(order, task)
    }

    pub fn status(&self) -> Status {
        let status = self.pool.status();
        Status { inflight: status.inflight + self.parked.in_flight(), ..status }
    }

    pub fn running(&self) -> Vec<String> {
        [self.pool.running(), self.parked.running()].concat()
    }
}
