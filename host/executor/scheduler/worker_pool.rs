//! Long-lived worker threads behind a bounded queue: the core of the `thread-pool` and `onnx`
//! executors.
//!
//! Admission is synchronous: a slot in the queue, or Overloaded. A batch takes one slot. Workers
//! take its items in turn with other work, one at a time or as many as share a run, so a batch of a
//! thousand items does not starve other requests. Work whose call was cancelled is never started.

use super::batch::{Batch, Member};
use super::guest_task::{GuestTask, PollOutcome, RunQueue};
use super::job::{Admission, Job, Work};
use super::metrics::PoolMetrics;
use super::queue::Eviction;
use super::state::{State, WAKE_DELAY};
use super::threads::WORKER_NICE;
use crate::error::{Error, Kind, Result};
use crate::executor::call::{Call, Precedence, STREAM_BUFFER, with_channels};
use crate::executor::status::Status;
use crate::lock::LockUnpoisoned;
use crate::metrics::Metrics;
use crate::predict::{Responses, channel};
use crate::tenants::Refused;
use std::cell::Cell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PoolConfig {
    pub workers: usize,
    /// How many admissions may wait for a worker.
    pub queue: usize,
}

pub(in crate::executor) struct WorkerPool {
    shared: Arc<Shared>,
}

struct Shared {
    name: Arc<str>,
    config: PoolConfig,
    state: Mutex<State>,
    /// One for each worker, to wake it.
    condvars: Box<[Condvar]>,
    metrics: PoolMetrics,
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
            state: Mutex::new(State::new(config.workers, crate::config::cores())),
            condvars: (0..config.workers).map(|_| Condvar::new()).collect(),
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
                    Error::io(&error).context(format!("executor \"{name}\": cannot start worker {index}"))
                })?;
        }
        Ok(pool)
    }

    pub fn name(&self) -> &str {
        &self.shared.name
    }

    pub fn submit(&self, call: Call) -> Result<Responses> {
        let (sender, responses) = channel(Arc::clone(&call.context), STREAM_BUFFER);
        let job = Job::call(call, sender, Instant::now());
        self.shared.admit(job.into()).map_err(|_| self.shared.refusal())?;
        Ok(responses)
    }

    /// See [`Executor::submit_guest`](crate::executor::Executor::submit_guest). A refused task can
    /// run elsewhere, so the refusal is not counted.
    pub fn submit_guest(&self, precedence: Precedence, task: GuestTask) -> Result<(), GuestTask> {
        let job = Job::guest(task, Instant::now()).with_precedence(precedence);
        self.shared.admit(job.into()).map_err(|mut refused| match refused.pop_front() {
            Some(Job { work: Work::Guest(task), .. }) => task,
            _ => unreachable!("what was to be admitted comes back"),
        })
    }

    /// Runs a task on this thread, a worker that the calling guest owns, until the task completes
    /// or waits.
    pub fn run_here(&self, task: GuestTask, worker: &tokio::runtime::Handle) {
        self.shared.begin(task, worker).settle();
    }

    /// Counts a refusal because the queue is full, and returns its error.
    pub fn refusal(&self) -> Error {
        self.shared.refusal()
    }

    /// Like `refusal`, for another reason than a full queue.
    pub fn overloaded(&self, reason: String) -> Error {
        self.shared.overloaded(reason)
    }

    pub fn config(&self) -> PoolConfig {
        self.shared.config
    }

    pub fn submit_batch(&self, calls: Vec<Call>) -> Result<Vec<Responses>> {
        let admitted = Instant::now();
        let (calls, responses) = with_channels(calls);
        let jobs = calls.into_iter().map(|(call, sender)| Job::call(call, sender, admitted));
        self.shared.admit(jobs.collect::<VecDeque<_>>().into()).map_err(|_| self.shared.refusal())?;
        Ok(responses)
    }

    pub fn status(&self) -> Status {
        let abandoned = self.shared.lock().queue.forget_abandoned();
        self.shared.forget(abandoned);
        let state = self.shared.lock();
        let busy = || state.running.iter().filter(|running| running.is_busy());
        Status {
            workers: self.shared.config.workers,
            busy: busy().count(),
            inflight: busy().map(|running| running.remaining).sum::<usize>() + state.queue.jobs(),
            overdue: busy().filter(|running| running.is_overdue()).count(),
            queue_length: state.queue.len(),
            queue_capacity: self.shared.config.queue,
        }
    }

    pub fn running(&self) -> Vec<String> {
        let state = self.shared.lock();
        let calls = state.running.iter().flat_map(|running| &running.calls);
        calls.flatten().map(|context| context.id.to_string()).collect()
    }
}

impl RunQueue for WorkerPool {
    /// Queues a guest task that was woken, before all admissions.
    fn requeue(&self, task: GuestTask) {
        let (wake, runtime) = {
            let mut state = self.shared.lock();
            state.queue.push_requeued(Job::guest(task, Instant::now()));
            (state.next_to_wake(), state.start_rescue())
        };
        self.shared.wake(wake);
        self.shared.rescue(runtime);
    }
}

impl Drop for WorkerPool {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.condvars.iter().for_each(Condvar::notify_one);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock_unpoisoned()
    }

    fn refusal(&self) -> Error {
        let (workers, queue) = (self.config.workers, self.config.queue);
        self.overloaded(format!("all {workers} workers are busy and the queue of {queue} is full"))
    }

    fn overloaded(&self, reason: String) -> Error {
        self.metrics.overloaded.inc();
        Error::overloaded(format!("executor \"{}\": {reason}", self.name))
    }

    /// Queues the jobs, or returns them if the queue is full.
    fn admit(self: &Arc<Self>, jobs: Admission) -> Result<(), Box<Admission>> {
        let (mut abandoned, mut evicted) = (Vec::new(), None);
        let (wake, runtime) = {
            let mut state = self.lock();
            // An idle worker takes work immediately, so that work needs no slot in the queue.
            let free = self.config.workers.saturating_sub(state.busy() + state.queue.started_len());
            let is_new = jobs.precedence() == Precedence::New;
            let full = |state: &State| is_new && state.queue.len() >= self.config.queue + free;
            if full(&state) {
                abandoned = state.queue.forget_abandoned();
            }
            if full(&state) {
                match state.queue.evict_for(jobs) {
                    Eviction::Of(admission) => evicted = Some(admission),
                    Eviction::Refused(refused) => {
                        drop(state);
                        self.forget(abandoned);
                        return Err(Box::new(refused));
                    }
                }
            } else {
                state.queue.push(jobs);
            }
            (state.next_to_wake(), state.start_rescue())
        };
        self.forget(abandoned);
        self.evict(evicted);
        self.wake(wake);
        self.rescue(runtime);
        Ok(())
    }

    /// Answers an admission that lost its slot. Must be called without the lock.
    fn evict(&self, evicted: Option<Admission>) {
        let Some(evicted) = evicted else { return };
        self.metrics.overloaded.inc();
        if let Some(job) = evicted.front() {
            job.context().tenant.count(Refused::Evicted);
        }
        for job in evicted.into_jobs() {
            job.context().cancellation.evict();
            self.refuse_stopped(job);
        }
    }

    /// Counts and drops abandoned jobs. Must be called without the lock.
    fn forget(&self, abandoned: Vec<Job>) {
        let is_late =
            |job: &&Job| job.context().stopped().is_some_and(|reason| reason.kind() == Kind::Deadline);
        self.metrics.timeouts.inc_by(abandoned.iter().filter(is_late).count() as u64);
        drop(abandoned);
    }

    fn wake(&self, worker: Option<usize>) {
        if let Some(worker) = worker {
            self.condvars[worker].notify_one();
        }
    }

    /// Spawns the rescue task on `runtime`, if there is one. While started work is queued, the task
    /// detaches what no worker takes in time.
    fn rescue(self: &Arc<Self>, runtime: Option<tokio::runtime::Handle>) {
        let Some(runtime) = runtime else { return };
        let shared = Arc::clone(self);
        runtime.spawn(async move {
            let mut is_done = false;
            while !is_done {
                tokio::time::sleep(WAKE_DELAY).await;
                let late;
                (late, is_done) = shared.lock().take_late();
                for job in late {
                    if let Work::Guest(task) = job.work {
                        task.detach();
                    }
                }
            }
        });
    }

    fn work(self: &Arc<Self>, index: usize, runtime: &tokio::runtime::Handle) {
        let mut jobs = Vec::new();
        while let Some(now) = self.take(index, &mut jobs) {
            if jobs.len() == 1 {
                let job = jobs.pop().expect("invariant: one job");
                self.run(index, job, now, runtime);
            } else {
                self.run_batch(index, &mut jobs, now, runtime);
            }
        }
    }

    fn run(&self, index: usize, job: Job, now: Instant, runtime: &tokio::runtime::Handle) {
        if job.batching().is_some() {
            self.metrics.batches.size.observe(1.0);
        }
        // The wait of a task that was parked was counted when it started.
        let queue_wait = if job.was_parked() { Duration::ZERO } else { self.waited(&job, now) };
        let (call, sender) = match job.work {
            Work::Call(call, sender) => (call, sender),
            Work::Guest(task) => return self.run_guest(index, task, runtime),
        };
        let mut sink = call.sink(sender, queue_wait, now);
        // A panic in one call must not end the worker: only that call fails.
        let run = AssertUnwindSafe(|| runtime.block_on(call.run(&mut sink)));
        let last = catch_unwind(run).unwrap_or_else(|_| Err(panicked()));
        self.count_timeout(last.as_ref().err());
        // The slot is freed before the answer is sent, so that a client that has its answer sees it
        // free.
        self.release(index, &[0]);
        sink.finish(last);
    }

    fn run_guest(&self, index: usize, task: GuestTask, runtime: &tokio::runtime::Handle) {
        let begin = AssertUnwindSafe(|| self.begin(task, runtime));
        let mut begun = catch_unwind(begin);
        if let Ok(PollOutcome::Pending(task)) = &mut begun {
            task.count_parked();
        }
        // As in `run`: the slot is freed before the answer is sent, or before the task continues.
        self.release(index, &[0]);
        // If the task panicked, its sender was dropped, which sends an error to the caller.
        if let Ok(begun) = begun {
            begun.settle();
        }
    }

    fn begin(&self, task: GuestTask, runtime: &tokio::runtime::Handle) -> PollOutcome {
        let (context, rows) = (Arc::clone(&task.context), Cell::new(0));
        let failed = |error: &Error| self.count_timeout(Some(error));
        let outcome = task.run(&self.name, runtime, failed, |more| rows.set(rows.get() + more));
        // The task itself was charged as one row.
        if rows.get() > 1 && context.tenant.name().is_some() {
            self.lock().queue.charge(&context, rows.get() - 1);
        }
        outcome
    }

    fn run_batch(&self, index: usize, jobs: &mut Vec<Job>, now: Instant, runtime: &tokio::runtime::Handle) {
        let rows_max = jobs[0].batching().map_or(1, |batching| batching.max_size);
        let mut callable = None;
        let mut members = Vec::with_capacity(jobs.len());
        for job in jobs.drain(..) {
            let queue_wait = self.waited(&job, now);
            let Work::Call(call, sender) = job.work else { unreachable!("only calls share a run") };
            let sink = call.sink(sender, queue_wait, now);
            callable.get_or_insert_with(|| Arc::clone(&call.callable));
            members.push(Member::new(call, sink));
        }
        let mut batch = Batch {
            members,
            callable: callable.expect("invariant: a batch has members"),
            rows_max,
            workers: self.config.workers,
            metrics: &self.metrics.batches,
            release: &|members| self.release(index, members),
            failed: &|error| self.count_timeout(Some(error)),
        };
        let run = AssertUnwindSafe(|| runtime.block_on(batch.run()));
        if catch_unwind(run).is_err() {
            batch.fail_rest(panicked);
        }
    }

    fn waited(&self, job: &Job, now: Instant) -> Duration {
        let queue_wait = now.saturating_duration_since(job.admitted);
        self.metrics.queue_wait.observe(queue_wait.as_secs_f64());
        queue_wait
    }

    fn release(&self, index: usize, members: &[usize]) {
        let (is_overdue, ended) = {
            let running = &mut self.lock().running[index];
            (running.is_overdue(), running.end(members))
        };
        if is_overdue {
            self.metrics.overdue.inc_by(ended as u64);
        }
    }

    fn count_timeout(&self, error: Option<&Error>) {
        if error.is_some_and(|error| error.kind() == Kind::Deadline) {
            self.metrics.timeouts.inc();
        }
    }

    /// Puts the next job into `jobs`, with those that share its run, and returns the current time.
    /// Returns `None` once the pool is closed and its queue is empty.
    fn take(self: &Arc<Self>, index: usize, jobs: &mut Vec<Job>) -> Option<Instant> {
        let mut state = self.lock();
        loop {
            let closed = state.closed;
            let next = match state.delayed_until(0) {
                Some(until) if Instant::now() < until => Err(Some(until)),
                _ => state.queue.next(closed),
            };
            match next {
                Ok(job) => {
                    let batching = job.batching();
                    jobs.push(job);
                    if let Some(batching) = batching {
                        let idle_workers = state.idle_workers();
                        state.queue.join(jobs, batching, idle_workers);
                    }
                    let now = Instant::now();
                    let abandoned: Vec<Job> = jobs.extract_if(.., |job| job.is_abandoned(now)).collect();
                    state.running[index].begin(jobs);
                    let (wake, runtime) = (state.next_to_wake(), state.start_rescue());
                    drop(state);
                    self.wake(wake);
                    self.rescue(runtime);
                    // Without the lock: this wakes a task.
                    for job in abandoned {
                        self.refuse_stopped(job);
                    }
                    if !jobs.is_empty() {
                        return Some(now);
                    }
                    state = self.lock();
                }
                Err(_) if closed => return None,
                Err(None) if state.busy() == 0 => {
                    state.queue.reset();
                    state = self.wait(index, state, None);
                }
                Err(until) => state = self.wait(index, state, until),
            }
        }
    }

    /// Answers a job whose call was cancelled or evicted before it started.
    fn refuse_stopped(&self, job: Job) {
        let reason = job.context().check().expect_err("invariant: cancelled for good");
        self.count_timeout(Some(&reason));
        match job.work {
            Work::Call(_, sender) => sender.finish(Err(reason)),
            // The task checks its context first, and sends the error itself.
            Work::Guest(task) => task.detach(),
        }
    }

    /// Sleeps until the worker is woken. One idle worker at a time also watches `until`.
    fn wait<'a>(
        &'a self,
        index: usize,
        mut state: MutexGuard<'a, State>,
        until: Option<Instant>,
    ) -> MutexGuard<'a, State> {
        let watch = until.filter(|until| state.watched.is_none_or(|watched| watched > *until));
        state.idle.sleeps(index);
        let condvar = &self.condvars[index];
        if let Some(until) = watch {
            state.watched = Some(until);
            let timeout = until.saturating_duration_since(Instant::now());
            state = condvar.wait_timeout(state, timeout).unwrap_or_else(PoisonError::into_inner).0;
            if state.watched == Some(until) {
                state.watched = None;
            }
        } else {
            state = condvar.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.idle.woke(index);
        state
    }
}

fn panicked() -> Error {
    Error::failed("the host panicked while it ran this call")
}
