//! The task of one job: waits for a slot, makes the attempts, and ends the job.
//!
//! An attempt is recorded in the store before it starts. The next attempt starts when the work of
//! the previous one has released its worker, and the slot is held until then. So attempts of a job
//! never overlap, and the number of slots limits how many calls work for jobs.

use super::active::Active;
use super::job::{AttemptOutcome, End, Job, State, Status};
use super::registry::JobRegistry;
use super::slots::Slot;
use super::store::Change;
use crate::error::{Error, Kind, Result};
use crate::metrics::JobMetrics;
use crate::offload;
use crate::predict::{self, Responses};
use crate::router::{self, CallOptions, RequestScope};
use bytes::Bytes;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::oneshot;

/// The first wait after an executor was overloaded. It doubles up to the longest.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_LONGEST: Duration = Duration::from_secs(2);

/// With less time left than this, no further attempt is made.
const ATTEMPT_LEAST: Duration = Duration::from_millis(1);

/// Why the task ends.
enum Stop {
    /// The job has ended.
    Ended,
    /// The store refused a change.
    Store(Error),
}

struct Run {
    registry: Arc<JobRegistry>,
    active: Arc<Active>,
    /// The status in the store at `revision`, with the changes since the last `save`.
    status: Status,
    saved: State,
    revision: u64,
    /// The error of the job if this is dropped before its end. `None` once the job has ended.
    unfinished: Option<Error>,
}

pub(super) async fn run(registry: Arc<JobRegistry>, active: Arc<Active>, queued: oneshot::Receiver<Slot>) {
    let unfinished = Some(Error::failed("the job's task ended unexpectedly"));
    let status = Status::new();
    let saved = status.state;
    let mut run = Run { registry, active, status, saved, revision: 1, unfinished };
    run.unfinished = match run.drive(queued).await {
        Stop::Ended => None,
        Stop::Store(error) => Some(error.context("cannot update the job in the store")),
    };
    if run.unfinished.is_none() {
        run.registry.forget_active(&run.active.id);
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if let Some(why) = self.unfinished.take() {
            self.registry.abandon(Arc::clone(&self.active.id), why);
        }
    }
}

impl Run {
    async fn drive(&mut self, queued: oneshot::Receiver<Slot>) -> Stop {
        let Err(stop) = self.alternate(queued).await;
        stop
    }

    /// Each turn takes a slot, and releases it when the job has ended or its executor is
    /// overloaded.
    async fn alternate(
        &mut self,
        mut queued: oneshot::Receiver<Slot>,
    ) -> Result<std::convert::Infallible, Stop> {
        self.status.queue();
        self.save().await?;
        let mut backoff = BACKOFF_FIRST;
        loop {
            let slot = async { queued.await.expect("invariant: slots outlive those who wait for them") };
            let slot = self.pending(slot).await?;
            let mut work = None;
            let outcome = self.attempts(&mut work).await;
            self.wait_for_release(work).await;
            drop(slot);
            outcome?;
            self.pending(tokio::time::sleep(backoff.mul_f64(0.5 + fastrand::f64() / 2.0))).await?;
            backoff = (backoff * 2).min(BACKOFF_LONGEST);
            queued = self.registry.slots.queue();
        }
    }

    /// Waits for what a pending job needs. Ends the job at its deadline, or when the host stops.
    async fn pending<T>(&mut self, what: impl Future<Output = T>) -> Result<T, Stop> {
        let active = Arc::clone(&self.active);
        let mut closing = self.registry.closing.subscribe();
        let end = tokio::select! {
            biased;
            () = active.ended() => return Err(Stop::Ended),
            () = tokio::time::sleep_until(active.deadline().into()) => End::Timeout(self.never_admitted()),
            _ = closing.wait_for(|closing| *closing) => End::stopping(),
            value = what => return Ok(value),
        };
        Err(self.end(end).await)
    }

    /// Makes attempts until the job has ended. Returns `Ok` if the executor is overloaded; the job
    /// is then pending again. The work of the last attempt, which may go on, is left in `work`.
    async fn attempts(&mut self, work: &mut Option<Responses>) -> Result<(), Stop> {
        loop {
            match self.attempt(work).await? {
                Ok(result) => return Err(self.end(End::Succeeded(result)).await),
                Err(error) if error.kind() == Kind::Overloaded => {
                    self.metrics().refusals.inc();
                    self.status.refuse(&error);
                    return self.save().await;
                }
                Err(error) if error.kind() == Kind::Deadline => self.timed_out(error, work).await?,
                Err(error) => return Err(self.end(End::Failed(error)).await),
            }
        }
    }

    /// Makes one attempt, as a separate request. The outer error means that the job has ended
    /// meanwhile.
    async fn attempt(&mut self, work: &mut Option<Responses>) -> Result<Result<Bytes>, Stop> {
        let (router, active) = (Arc::clone(&self.registry.config.router), Arc::clone(&self.active));
        let mut scope = router.begin(Arc::clone(&active.id), "job", &|_| None);
        let first = self.status.attempts.is_empty();
        self.status.begin(scope.generation(), SystemTime::now());
        if let Err(stop) = self.save().await {
            scope.withdraw();
            return Err(stop);
        }
        let waited = active.submitted.elapsed();
        let number = self.status.attempts.len();
        let answer = tokio::select! {
            biased;
            () = active.ended() => None,
            answer = call(&active, number, &mut scope, work) => Some(answer),
        };
        let Some(answer) = answer else {
            let error = Error::cancelled("the job ended during the attempt");
            scope.end((self.registry.config.status_of)(&error), Some(&error));
            self.count(AttemptOutcome::Cancelled);
            return Err(Stop::Ended);
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
        let (made, max) = (self.status.attempts.len(), self.active.budgets().max_attempts as usize);
        if self.active.time_left() < ATTEMPT_LEAST {
            return Err(self.out_of_time(&error).await);
        }
        if made >= max {
            if max > 1 {
                self.metrics().retries_exhausted.inc();
            }
            return Err(self.end(End::Timeout(error.context(format!("attempt {made} of {max}")))).await);
        }
        self.save().await?;
        if let Some(work) = work.as_ref().filter(|work| !work.is_released()) {
            let _overdue = Overdue::new(self.metrics());
            let active = Arc::clone(&self.active);
            let released = tokio::select! {
                biased;
                () = active.ended() => return Err(Stop::Ended),
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
        self.end(End::Timeout(error.clone().context(what))).await
    }

    /// Returns the error of a pending job whose total runtime has passed.
    fn never_admitted(&self) -> Error {
        let ms = self.active.budgets().max_total_runtime.as_millis();
        let made = self.status.attempts.len();
        let why = match &self.status.last_refusal {
            Some(refusal) => refusal.message().to_owned(),
            None => "all slots for jobs were taken (concurrency under [jobs])".into(),
        };
        let what = match made {
            0 => "no attempt was ever admitted".to_owned(),
            made => format!("attempt {} was never admitted", made + 1),
        };
        let error = Error::deadline(format!("max_total_runtime_ms ({ms}) passed and {what}: {why}"));
        error.model(self.active.spec.model.to_string())
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
        if self.status.is_held() || !self.saved.is_final() {
            self.released().await;
        }
    }

    /// Records when the work of the last attempt ended, in a job that has ended before. If the job
    /// is gone or the store fails, only this timestamp is missing.
    async fn released(&self) {
        let (now, store) = (SystemTime::now(), &self.registry.config.store);
        while let Ok(Some(mut job)) = store.read(&self.active.id).await {
            if !job.status.is_held() {
                return;
            }
            job.status.release(now);
            match store.update(&job.id, job.revision, job.status, self.registry.bounds()).await {
                Ok(Change::Stale) => {}
                Ok(Change::Done) | Err(_) => return,
            }
        }
    }

    /// Ends the job, unless it was ended from outside first.
    async fn end(&mut self, end: End) -> Stop {
        let (before, open) = (self.saved, self.status.clone());
        let lost = matches!(end, End::Stopped(_));
        let ttl = self.registry.settings().result_ttl;
        self.status.end(end, SystemTime::now(), ttl);
        let mut saved = self.save().await;
        if let Err(Stop::Store(error)) = &saved
            && error.kind() == Kind::TooLarge
        {
            // The store has no room for the result, but always has room for an error.
            let error = error.clone();
            self.status = open.clone();
            self.status.end(End::Failed(error), SystemTime::now(), ttl);
            saved = self.save().await;
        }
        match saved {
            Ok(()) => {
                self.registry.settle(&self.job(), before, lost);
                Stop::Ended
            }
            Err(stop) => {
                self.status = open;
                stop
            }
        }
    }

    fn job(&self) -> Job {
        let (id, spec) = (Arc::clone(&self.active.id), Arc::clone(&self.active.spec));
        Job { id, revision: self.revision, spec, input: None, status: self.status.clone() }
    }

    /// Saves the status. Others change a job only to end it, so a stale revision means that the job
    /// has ended.
    async fn save(&mut self) -> Result<(), Stop> {
        let (status, bounds) = (self.status.clone(), self.registry.bounds());
        let state = status.state;
        let update = self.registry.config.store.update(&self.active.id, self.revision, status, bounds);
        match update.await {
            Ok(Change::Done) => {
                self.revision += 1;
                let before = std::mem::replace(&mut self.saved, state);
                if !state.is_final() {
                    self.registry.moved(Some(before), Some(state));
                }
                Ok(())
            }
            Ok(Change::Stale) => Err(Stop::Ended),
            Err(error) => Err(Stop::Store(error)),
        }
    }

    fn count(&self, outcome: AttemptOutcome) {
        self.metrics().attempts.with_label_values(&[outcome.as_str()]).inc();
    }

    fn metrics(&self) -> &JobMetrics {
        self.registry.metrics()
    }
}

/// Begins a call and returns its answer as JSON text. The work of the call is left in `work`.
async fn call(
    active: &Active,
    number: usize,
    scope: &mut RequestScope,
    work: &mut Option<Responses>,
) -> Result<Bytes> {
    *work = None;
    let (model, budgets) = (&active.spec.model, active.budgets());
    let route = scope.resolve(&model.name, Some(&model.version), &|_| None)?;
    let (text, checked, mut budget) = (active.input.clone(), Arc::clone(&route), scope.router().budget());
    let length = text.as_bytes().len();
    let input = offload::run(length, move || router::input(&checked, text, &mut budget)).await?;
    let timeout = scope.router().timeout(&route, budgets.max_runtime).min(active.time_left());
    let options =
        CallOptions { parameters: active.spec.parameters.clone(), timeout: Some(timeout), outputs: None };
    let id = format!("{}/{number}", active.id).into();
    let responses = work.insert(scope.submit(&route, options, input, id)?);
    let response = scope.answer(&route, responses).await?;
    let encoded = offload::run(response.payload.json_bytes(), move || {
        let mut result = Vec::new();
        predict::encode_result(&response.payload, &mut result).map(|()| result.into())
    });
    encoded.await.map_err(|error| error.model(route.name.to_string()))
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
