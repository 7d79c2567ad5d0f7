//! Scheduling of calls: the queue and the workers of an executor, guest tasks, batches, and the
//! slots of calls in flight.

mod batch;
mod guest_task;
#[cfg(test)]
mod guest_task_tests;
mod in_flight;
mod job;
mod metrics;
mod parked;
mod phase;
mod queue;
#[cfg(test)]
mod queue_tests;
mod state;
mod tenant_queue;
mod threads;
mod worker_pool;

pub use batch::check_batching;
pub use guest_task::GuestTask;
pub(super) use guest_task::{Completion, InlineCall, RunMode, WorkerLease, inline_lease, owned_worker};
pub(super) use in_flight::{CallContexts, InFlight, InFlightGuard};
pub(super) use metrics::PoolMetrics;
pub(super) use parked::Workers;
pub(super) use threads::{BATCH_AT_ONCE, Threads, some_at_once};
pub use worker_pool::PoolConfig;
pub(super) use worker_pool::WorkerPool;
