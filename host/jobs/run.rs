//! The task of a slot: makes the attempts of a job that was claimed, ends the job, and goes on with
//! the next one.
//!
//! An attempt is recorded in the store before it starts. The next attempt starts when the work of
//! the previous one has released its worker, and the slot is held until then. So attempts of a job
//! never overlap, and the number of slots limits how many calls work for jobs.

use super::active::Active;
use super::job::{AttemptOutcome, End, Job, Status};
use super::registry::{ActiveClaim, JobRegistry};
use super::reply;
use super::slots::Slot;
use super::steps::{JobCheckpoints, JobSteps};
use super::store::{Change, Claimed, Update};
use crate::error::{Error, Kind, Result};
use crate::metrics::JobMetrics;
use crate::offload;
use crate::policy::route_input;
use crate::predict::{Payload, Responses};
use crate::router::{Authority, CallOptions, RequestScope};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

/// The first wait after an executor was overloaded, or the store unavailable. It doubles up to the
/// longest.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_LONGEST: Duration = Duration::from_secs(2);

/// With less time left than this, no further attempt is made.
const ATTEMPT_LEAST: Duration = Duration::from_millis(1);

/// Why the work on a job stops.
enum Stop {
    /// The job has ended, or is pending again.
    Settled,
    /// The store refused a change.
    Store(Error),
}

struct Run {
    registry: Arc<JobRegistry>,
    active: Arc<Active>,
    /// The job as the store has it: its revision and state, and what never changes.
    job: Job,
    /// The input, until it is used, if the claim had it at hand.
    input: Option<Payload>,
    /// The status in the store, with the changes since the last `save`.
    status: Status,
    slot: Option<Slot>,
    /// The job that the end of this one has claimed.
    next: Option<ActiveClaim>,
    /// The error of the job if this is dropped before its end. `None` once the job has ended.
    unfinished: Option<Error>,
}

/// Runs a job whose first attempt the claim has begun, and then those that were claimed for the
/// same slot.
pub(super) async fn run(registry: Arc<JobRegistry>, claim: ActiveClaim, slot: Slot) {
    let mut slot = Some(slot);
    let mut next = Some(claim);
    while let Some(claim) = next.take() {
        next = run_one(&registry, claim, &mut slot).await;
        // A job that fails at once, in a store that never waits, would keep the thread.
        tokio::task::coop::consume_budget().await;
    }
}

/// Runs a job, and returns the one that its end has claimed. If there is none, `slot` is free.
async fn run_one(
    registry: &Arc<JobRegistry>,
    claim: ActiveClaim,
    slot: &mut Option<Slot>,
) -> Option<ActiveClaim> {
    let ActiveClaim { active, claimed: Claimed { job, input } } = claim;
    let registry = Arc::clone(registry);
    let unfinished = Some(Error::failed("the job's task ended unexpectedly"));
    let status = job.status.clone();
    let mut run = Run { registry, active, job, input, status, slot: slot.take(), next: None, unfinished };
    let mut work = None;
    let stop = run.drive(&mut work).await;
    run.unfinished = match stop {
        Stop::Settled => None,
        Stop::Store(error) => Some(error.context("cannot update the job in the store")),
    };
    run.wait_for_release(work).await;
    let next = run.next.take();
    *slot = run.slot.take().filter(|_| next.is_some());
    if run.unfinished.is_none() {
        run.registry.forget_claim(&run.active);
    }
    next
}

impl Drop for Run {
    fn drop(&mut self) {
        if let Some(next) = self.next.take() {
            let why = Error::failed("the task that should have run the job ended unexpectedly");
            self.registry.abandon(Arc::clone(&next.active.id), why);
        }
        if let Some(why) = self.unfinished.take() {
            self.registry.abandon(Arc::clone(&self.active.id), why);
        }
    }
}

impl Run {
    /// Makes attempts until the job has ended or its executor is overloaded. The work of the last
    /// attempt, which may go on, is left in `work`.
    async fn drive(&mut self, work: &mut Option<Responses>) -> Stop {
        let input = match self.input.take() {
            Some(input) => Ok(Some(input)),
            None => self.registry.store().input(&self.job).await,
        };
        let input = match input {
            Ok(Some(input)) => input,
            Ok(None) => return Stop::Settled,
            Err(error) => {
                let end = End::Failed(error.context("cannot read the input of the job"));
                return self.end(end, false).await;
            }
        };
        let Err(stop) = self.attempts(&input, work).await;
        stop
    }

    async fn attempts(
        &mut self,
        input: &Payload,
        work: &mut Option<Responses>,
    ) -> Result<std::convert::Infallible, Stop> {
        loop {
            match self.attempt(input, work).await? {
                Ok(result) => return Err(self.end(End::Succeeded(result), self.may_claim(work)).await),
                Err(error) if error.kind() == Kind::Overloaded => {
                    self.metrics().refusals.inc();
                    self.status.refuse(&error, self.registry.store().now().after(self.backoff()));
                    self.save(None).await?;
                    return Err(Stop::Settled);
                }
                Err(error) if error.kind() == Kind::Deadline => self.timed_out(error, work).await?,
                Err(error) => return Err(self.end(End::Failed(error), self.may_claim(work)).await),
            }
            self.status.begin(&self.registry.attempt_start());
            self.save(None).await?;
        }
    }

    /// Whether the end of the job may claim the next one, if the slot takes one: the work of its
    /// last attempt has released its worker.
    fn may_claim(&self, work: &Option<Responses>) -> bool {
        work.as_ref().is_none_or(Responses::is_released)
    }

    /// Whether the slot takes another job.
    fn takes_next(&self) -> bool {
        self.slot.as_ref().is_some_and(Slot::is_wanted) && !*self.registry.closing.borrow()
    }

    /// Returns how long a job waits that was refused. Half of it is chance.
    fn backoff(&self) -> Duration {
        let doublings = u32::try_from(self.status.refusals).unwrap_or(u32::MAX).min(16);
        let longest = (BACKOFF_FIRST * (1 << doublings)).min(BACKOFF_LONGEST);
        longest.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// Makes the attempt that has begun, as a separate request. The outer error means that the job
    /// has ended meanwhile.
    async fn attempt(
        &mut self,
        input: &Payload,
        work: &mut Option<Responses>,
    ) -> Result<Result<Payload>, Stop> {
        let (router, active) = (Arc::clone(&self.registry.config.router), Arc::clone(&self.active));
        active.forget_steps();
        let mut scope =
            router.begin(Arc::clone(&active.id), "job", Authority::work_of(&self.job.spec.tenant), &|_| None);
        // The policy may have changed since the attempt was recorded.
        self.status.use_policy(scope.generation(), scope.policy_digest());
        let first = self.status.attempts.len() == 1;
        let waited = self.job.submitted().until(self.registry.store().now());
        let answer = tokio::select! {
            biased;
            () = active.ended() => None,
            answer = self.call(&mut scope, input, work) => Some(answer),
        };
        self.status.steps = active.steps(true);
        let Some(answer) = answer else {
            let error = Error::cancelled("the job ended during the attempt");
            scope.end((self.registry.config.status_of)(&error), Some(&error));
            self.count(AttemptOutcome::Cancelled);
            return Err(Stop::Settled);
        };
        if work.as_ref().is_none_or(Responses::is_released) {
            self.status.release(SystemTime::now());
        }
        let refused = answer.as_ref().is_err_and(|error| error.kind() == Kind::Overloaded);
        if refused {
            scope.withdraw();
            return Ok(answer);
        }
        if first {
            self.metrics().queue_wait.observe(waited.as_secs_f64());
        }
        match &answer {
            Ok(_) => {
                self.count(AttemptOutcome::Succeeded);
                scope.end(200, None);
            }
            Err(error) => {
                let timeout = error.kind() == Kind::Deadline;
                self.count(if timeout { AttemptOutcome::Timeout } else { AttemptOutcome::Failed });
                scope.end((self.registry.config.status_of)(error), Some(error));
            }
        }
        Ok(answer)
    }

    /// Returns `Ok` if another attempt may be made; the work of this one has then ended.
    async fn timed_out(&mut self, error: Error, work: &mut Option<Responses>) -> Result<(), Stop> {
        self.status.answer(AttemptOutcome::Timeout, Some(&error));
        let (made, max) = (self.status.attempts_made(), self.active.budgets().max_attempts as usize);
        if self.active.time_left() < ATTEMPT_LEAST {
            return Err(self.out_of_time(&error).await);
        }
        if made >= max {
            if max > 1 {
                self.metrics().retries_exhausted.inc();
            }
            let end = End::Timeout(error.context(format!("attempt {made} of {max}")));
            return Err(self.end(end, false).await);
        }
        self.save(None).await?;
        if let Some(work) = work.as_ref().filter(|work| !work.is_released()) {
            let _overdue = Overdue::new(self.metrics());
            let active = Arc::clone(&self.active);
            let released = tokio::select! {
                biased;
                () = active.ended() => return Err(Stop::Settled),
                () = work.released() => true,
                () = tokio::time::sleep_until(active.deadline().into()) => false,
            };
            if !released {
                return Err(self.out_of_time(&error).await);
            }
        }
        self.status.release(SystemTime::now());
        self.metrics().retries.inc();
        Ok(())
    }

    async fn out_of_time(&mut self, error: &Error) -> Stop {
        let ms = self.active.budgets().max_total_runtime.as_millis();
        let made = self.status.attempts.len();
        let what = format!("max_total_runtime_ms ({ms}) passed in attempt {made}");
        self.end(End::Timeout(error.clone().context(what)), false).await
    }

    /// Waits until the work of the last attempt has released its worker, even if the job has ended.
    async fn wait_for_release(&mut self, work: Option<Responses>) {
        if let Some(work) = work {
            work.cancel();
            if !work.is_released() {
                let _overdue = Overdue::new(self.metrics());
                work.released().await;
            }
        }
        // If the job was ended from outside, the stopped work is not recorded yet.
        if self.status.is_held() || !self.job.status.state.is_final() {
            self.released().await;
        }
    }

    /// Records when the work of the last attempt ended, in a job that has ended before. If the job
    /// is gone or the store fails, only this timestamp is missing.
    async fn released(&self) {
        let (now, store) = (SystemTime::now(), self.registry.store());
        while let Ok(Some(job)) = store.read(&self.active.id).await {
            if !job.status.is_held() || job.fence != self.job.fence {
                return;
            }
            let mut status = job.status;
            status.release(now);
            let update =
                Update { id: job.id, number: job.number, revision: job.revision, status, result: None };
            match store.update(update, self.registry.bounds()).await {
                Ok(Change::Stale) => {}
                Ok(Change::Done) | Err(_) => return,
            }
        }
    }

    /// Ends the job, unless it was ended from outside first. Claims the next one if `claims_next`.
    async fn end(&mut self, end: End, claims_next: bool) -> Stop {
        let open = self.status.clone();
        self.status.end(&end, SystemTime::now(), self.registry.expiry());
        let result = match end {
            End::Succeeded(result) => Some(result),
            _ => None,
        };
        let mut saved = self.save_and(result, claims_next).await;
        if let Err(Stop::Store(error)) = &saved
            && error.kind() == Kind::TooLarge
        {
            // The store has no room for the result, but always has room for an error.
            let end = End::Failed(error.clone());
            self.status.clone_from(&open);
            self.status.end(&end, SystemTime::now(), self.registry.expiry());
            saved = self.save(None).await;
        }
        match saved {
            Ok(()) => Stop::Settled,
            Err(stop) => {
                self.status = open;
                stop
            }
        }
    }

    async fn save(&mut self, result: Option<Payload>) -> Result<(), Stop> {
        self.save_and(result, false).await
    }

    /// Saves the status, and claims the next job if `claims_next`. Others change a job that runs
    /// only to end it, or because its lease has lapsed; in both cases the task ends. While the
    /// store is unavailable, this waits for it.
    async fn save_and(&mut self, result: Option<Payload>, claims_next: bool) -> Result<(), Stop> {
        let mut backoff = BACKOFF_FIRST;
        loop {
            let (status, result) = (self.status.clone(), result.clone());
            let changed = if claims_next && self.takes_next() {
                let changed = self.registry.change_and_claim(&self.job, status, result).await;
                changed.map(|(change, next)| {
                    self.next = next;
                    change
                })
            } else {
                self.registry.change(&self.job, status, result, false).await
            };
            match changed {
                Ok(Change::Done) => {
                    self.job.revision += 1;
                    self.job.status.state = self.status.state;
                    return Ok(());
                }
                Ok(Change::Stale) => return Err(Stop::Settled),
                Err(error) if error.kind() == Kind::Unavailable => {}
                Err(error) => return Err(Stop::Store(error)),
            }
            tokio::select! {
                () = self.active.ended() => return Err(Stop::Settled),
                () = tokio::time::sleep(backoff) => backoff = (backoff * 2).min(BACKOFF_LONGEST),
            }
        }
    }

    /// Begins a call and returns its answer. The work of the call is left in `work`.
    async fn call(
        &self,
        scope: &mut RequestScope,
        input: &Payload,
        work: &mut Option<Responses>,
    ) -> Result<Payload> {
        *work = None;
        let (active, encoder) = (&self.active, &self.registry.config.encoder);
        let (spec, budgets) = (&active.spec, active.budgets());
        let route = scope.resolve(&spec.model.name, Some(&spec.model.version), &|_| None)?;
        let (checked, input, mut budget) = (Arc::clone(&route), input.clone(), scope.router().budget());
        let checking = move || route_input::stored_input(&checked, input, &mut budget);
        let input = offload::run(self.job.input_bytes, checking).await?;
        let timeout = scope.router().timeout(&route, budgets.max_runtime).min(active.time_left());
        let outputs =
            spec.reply.as_deref().map(|reply| encoder.outputs(&route, reply)).transpose()?.flatten();
        let steps = Arc::new(JobSteps::new(JobCheckpoints {
            store: Arc::clone(&self.registry.config.store),
            lease: active.lease.clone(),
            bounds: self.registry.bounds(),
            runtime: self.registry.config.runtime.clone(),
            own: Mutex::default(),
            reused: self.metrics().steps_reused.clone(),
        }));
        active.follow(Arc::clone(&steps));
        let options = CallOptions {
            parameters: spec.parameters.clone(),
            timeout: Some(timeout),
            outputs,
            priority: spec.priority,
            steps: Some(steps),
        };
        // The id of the job, so that rules that route by it choose alike in each attempt.
        let responses = work.insert(scope.submit(&route, options, input, Arc::clone(&active.id))?);
        let response = scope.answer(&route, responses).await?;
        reply::encode(Arc::clone(encoder), route, spec.reply.clone(), response).await
    }

    fn count(&self, outcome: AttemptOutcome) {
        self.metrics().attempts.with_label_values(&[outcome.as_str()]).inc();
    }

    fn metrics(&self) -> &JobMetrics {
        self.registry.metrics()
    }
}

/// Counts an attempt whose work holds a worker after its end.
struct Overdue(prometheus::IntGauge);

impl Overdue {
    fn new(metrics: &JobMetrics) -> Self {
        metrics.overdue.inc();
        Overdue(metrics.overdue.clone())
    }
}

impl Drop for Overdue {
    fn drop(&mut self) {
        self.0.dec();
    }
}
