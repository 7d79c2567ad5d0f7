//! Long-lived worker threads behind a bounded queue: what the thread-pool and onnx executors are made of.
//!
//! Admission is synchronous: a place in the queue, or Overloaded. A batch takes one place; its items are
//! handed out one at a time, in turn with other work, so a batch of a thousand starves nobody. Work that
//! nobody waits for is never started.

use super::{Call, Sink, Status};
use crate::error::{Error, Kind, Result};
use crate::metrics::Metrics;
use crate::predict::{Responses, Sender, channel};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// A worker held for longer than this past the end of its call's time counts as overdue: guests stop
/// within it, ONNX Runtime only at the next node of its graph.
pub(super) const OVERDUE_AFTER: Duration = Duration::from_millis(10);

/// Responses of a stream that may wait for a slow reader.
pub(super) const STREAM_BUFFER: usize = 16;

/// Workers yield to I/O: on a machine whose cores are all busy computing, accepting and answering go first.
pub(super) const WORKER_NICE: i32 = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PoolConfig {
    pub workers: usize,
    /// Admissions that may wait for a worker.
    pub queue: usize,
}

pub(super) struct WorkerPool {
    shared: Arc<Shared>,
}

struct Shared {
    name: Arc<str>,
    config: PoolConfig,
    state: Mutex<State>,
    available: Condvar,
    metrics: PoolMetrics,
}

struct State {
    queue: VecDeque<Admission>,
    running: Vec<Option<Running>>,
    idle: usize,
    closed: bool,
}

/// One place in the queue.
struct Admission {
    jobs: VecDeque<Job>,
}

struct Job {
    call: Call,
    sender: Sender,
    admitted: Instant,
}

/// What a worker is doing.
struct Running {
    context: Arc<crate::predict::Context>,
}

impl Running {
    fn is_overdue(&self) -> bool {
        self.context.deadline.is_some_and(|deadline| Instant::now() > deadline + OVERDUE_AFTER)
    }
}

/// Prepared series of one executor.
pub(super) struct PoolMetrics {
    pub queue_wait: prometheus::Histogram,
    pub timeouts: prometheus::IntCounter,
    pub overloaded: prometheus::IntCounter,
    pub overdue: prometheus::IntCounter,
}

impl PoolMetrics {
    pub fn new(metrics: &Metrics, executor: &str) -> Self {
        let label = [executor];
        PoolMetrics {
            queue_wait: metrics.executor_queue_wait.with_label_values(&label),
            timeouts: metrics.executor_timeouts.with_label_values(&label),
            overloaded: metrics.executor_overloaded.with_label_values(&label),
            overdue: metrics.executor_overdue.with_label_values(&label),
        }
    }
}

impl WorkerPool {
    /// Starts the workers. They end when the pool is dropped and its queue is empty.
    pub fn start(
        name: &str,
        config: PoolConfig,
        runtime: &tokio::runtime::Handle,
        metrics: &Metrics,
    ) -> Result<Self> {
        let shared = Arc::new(Shared {
            name: name.into(),
            config,
            state: Mutex::new(State {
                queue: VecDeque::new(),
                running: (0..config.workers).map(|_| None).collect(),
                idle: 0,
                closed: false,
            }),
            available: Condvar::new(),
            metrics: PoolMetrics::new(metrics, name),
        });
        let pool = WorkerPool { shared };
        for index in 0..config.workers {
            let shared = Arc::clone(&pool.shared);
            let runtime = runtime.clone();
            std::thread::Builder::new()
                .name(format!("{name}-{index}"))
                .spawn(move || {
                    crate::config::lower_priority(WORKER_NICE);
                    shared.work(index, &runtime);
                })
                .map_err(|error| {
                    Error::failed(format!("executor \"{name}\": cannot start worker {index}: {error}"))
                })?;
        }
        Ok(pool)
    }

    pub fn name(&self) -> &str {
        &self.shared.name
    }

    pub fn submit(&self, call: Call) -> Result<Responses> {
        let (sender, responses) = channel(Arc::clone(&call.context), STREAM_BUFFER);
        let job = Job { call, sender, admitted: Instant::now() };
        self.shared.admit(VecDeque::from([job]))?;
        Ok(responses)
    }

    pub fn submit_batch(&self, calls: Vec<Call>) -> Result<Vec<Responses>> {
        let admitted = Instant::now();
        let (jobs, responses) = calls
            .into_iter()
            .map(|call| {
                let (sender, responses) = channel(Arc::clone(&call.context), STREAM_BUFFER);
                (Job { call, sender, admitted }, responses)
            })
            .unzip();
        self.shared.admit(jobs)?;
        Ok(responses)
    }

    pub fn status(&self) -> Status {
        let mut state = self.shared.lock();
        self.shared.metrics.timeouts.inc_by(state.forget_abandoned());
        Status {
            workers: self.shared.config.workers,
            busy: state.running.iter().flatten().count(),
            inflight: state.running.iter().flatten().count()
                + state.queue.iter().map(|admission| admission.jobs.len()).sum::<usize>(),
            overdue: state.running.iter().flatten().filter(|running| running.is_overdue()).count(),
            queue_length: state.queue.len(),
            queue_capacity: self.shared.config.queue,
        }
    }

    pub fn running(&self) -> Vec<String> {
        let state = self.shared.lock();
        state.running.iter().flatten().map(|running| running.context.id.to_string()).collect()
    }
}

impl Drop for WorkerPool {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.available.notify_all();
    }
}

impl State {
    /// Work that nobody waits for any more gives its place free. Returns how much of it ran out of time.
    fn forget_abandoned(&mut self) -> u64 {
        let mut expired = 0;
        for admission in &mut self.queue {
            admission.jobs.retain(|job| {
                let reason = job.call.context.stopped();
                expired += u64::from(reason.as_ref().is_some_and(|reason| reason.kind() == Kind::Deadline));
                reason.is_none()
            });
        }
        self.queue.retain(|admission| !admission.jobs.is_empty());
        expired
    }

    /// The next job. What is left of a batch goes to the end of the queue.
    fn next(&mut self) -> Option<Job> {
        loop {
            let mut admission = self.queue.pop_front()?;
            let job = admission.jobs.pop_front();
            if !admission.jobs.is_empty() {
                self.queue.push_back(admission);
            }
            if job.is_some() {
                return job;
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("invariant: no panic under the queue's lock")
    }

    fn admit(&self, jobs: VecDeque<Job>) -> Result<()> {
        let count = jobs.len();
        let wake = {
            let mut state = self.lock();
            // A worker that runs nothing takes work at once, so that does not wait in the queue.
            let free = state.running.iter().filter(|running| running.is_none()).count();
            let full = |state: &State| state.queue.len() >= self.config.queue + free;
            if full(&state) {
                self.metrics.timeouts.inc_by(state.forget_abandoned());
            }
            if full(&state) {
                drop(state);
                self.metrics.overloaded.inc();
                return Err(Error::overloaded(format!(
                    "executor \"{}\": all {} workers are busy and the queue of {} is full",
                    self.name, self.config.workers, self.config.queue
                )));
            }
            if count > 0 {
                state.queue.push_back(Admission { jobs });
            }
            state.idle.min(count)
        };
        match wake {
            0 => {}
            1 => self.available.notify_one(),
            _ => self.available.notify_all(),
        }
        Ok(())
    }

    fn work(&self, index: usize, runtime: &tokio::runtime::Handle) {
        while let Some(job) = self.take(index) {
            let queue_wait = job.admitted.elapsed();
            self.metrics.queue_wait.observe(queue_wait.as_secs_f64());
            let mut sink = Sink::new(job.sender, &job.call, queue_wait);
            // A panic in one call must not cost a worker: it is that call's failure.
            let run = std::panic::AssertUnwindSafe(|| runtime.block_on(job.call.run(&mut sink)));
            let last = std::panic::catch_unwind(run)
                .unwrap_or_else(|_| Err(Error::failed("the host panicked while it ran this call")));
            if let Err(error) = &last
                && error.kind() == Kind::Deadline
            {
                self.metrics.timeouts.inc();
            }
            // The slot is free before the caller knows: whoever asks after its answer sees it free.
            let ended = self.lock().running[index].take();
            if ended.is_some_and(|running| running.is_overdue()) {
                self.metrics.overdue.inc();
            }
            sink.finish(last);
        }
    }

    fn take(&self, index: usize) -> Option<Job> {
        let mut state = self.lock();
        loop {
            match state.next() {
                Some(job) if job.call.context.check().is_err() => {
                    // Nobody waits for it. Finished outside the lock: it wakes a task.
                    drop(state);
                    let reason = job.call.context.check().expect_err("invariant: cancelled for good");
                    if reason.kind() == Kind::Deadline {
                        self.metrics.timeouts.inc();
                    }
                    job.sender.finish(Err(reason));
                    state = self.lock();
                }
                Some(job) => {
                    state.running[index] = Some(Running { context: Arc::clone(&job.call.context) });
                    return Some(job);
                }
                None if state.closed => return None,
                None => {
                    state.idle += 1;
                    state = self.available.wait(state).expect("invariant: no panic under the queue's lock");
                    state.idle -= 1;
                }
            }
        }
    }
}
