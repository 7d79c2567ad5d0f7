//! Jobs: requests in the background, which are submitted, watched, fetched and cancelled.
//!
//! `submit_background` is not a method of `Executor`, but this layer over `Executor::submit`: what a job is
//! more than a call (states, budgets, retries, results that are kept) is the same for every kind of executor
//! and must not differ between them, so each kind has it by serving calls at all.
//!
//! - `job` says what a job is, `store` what keeps it, `memory` is the store that there is.
//! - `run` is the task of one job, from submission to its end; `slots` bounds how many have an attempt at once.
//! - Here is what callers do with jobs, and what ends those whose tasks cannot.
//!
//! The store alone knows how a job has ended: whoever changes it there first has ended it, and everybody else
//! is told. Every wait of a job ends with its total runtime, so no job stays without an end.

mod job;
mod memory;
mod run;
mod slots;
mod store;

pub use job::{Attempt, AttemptOutcome, Budgets, End, Job, Spec, State, Status};
pub use memory::MemoryStore;
pub use store::{Bounds, Change, Filter, JobStore, Page};

use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::policy::Route;
use crate::policy::plan::{JobsPlan, ModelName};
use crate::predict::{JsonText, MemoryBudget, Parameters};
use crate::router::Router;
use run::Active;
use slots::Slots;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant, SystemTime};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};

/// How often expired jobs are forgotten and changed limits are seen.
const SWEEP_EVERY: Duration = Duration::from_millis(250);

/// What the host is built of, as far as jobs need it.
pub struct JobsConfig {
    pub store: Arc<dyn JobStore>,
    pub router: Arc<Router>,
    pub metrics: Arc<Metrics>,
    /// Where the tasks of jobs run; they compute nothing but JSON.
    pub runtime: Handle,
    /// The status under which the outcome of an attempt is counted and logged.
    pub status_of: fn(&Error) -> u16,
}

pub struct Jobs {
    parts: JobsConfig,
    slots: Arc<Slots>,
    /// Jobs that have not ended, in this process.
    live: Mutex<HashMap<Arc<str>, Arc<Active>>>,
    idle: Notify,
    closing: watch::Sender<bool>,
    /// Jobs whose task is gone and whose end the store has not taken yet.
    stranded: Mutex<Vec<(Arc<str>, Error)>>,
    lost: AbandonedJob,
}

/// Jobs that ended because the host did.
#[derive(Default)]
struct AbandonedJob {
    pending: AtomicUsize,
    running: AtomicUsize,
}

/// One input of a submission, checked as that of a request is.
pub struct Item {
    input: JsonText,
    parameters: Parameters,
}

impl Item {
    /// Checks an input against the model as it is now; a reload may change it before the job runs.
    pub fn checked(
        route: &Route,
        input: JsonText,
        parameters: Parameters,
        mut budget: MemoryBudget,
    ) -> Result<Self> {
        crate::router::refuse_streaming(route)?;
        crate::router::input(route, input.clone(), &mut budget)?;
        Ok(Item { input, parameters })
    }
}

/// What a caller asks to be spent on each job.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestedBudgets {
    pub max_attempts: Option<u64>,
    pub max_runtime: Option<Duration>,
    pub max_total_runtime: Option<Duration>,
}

/// What has become of a wish to end or delete a job.
pub enum Settled {
    /// It was granted; the job as it is now.
    Now(Job),
    /// The state of the job does not allow it.
    Refused(State),
}

impl Jobs {
    pub fn start(parts: JobsConfig) -> Arc<Self> {
        let concurrency = parts.router.policy().content.plan.jobs.concurrency;
        let runtime = parts.runtime.clone();
        let jobs = Arc::new(Jobs {
            parts,
            slots: Slots::new(concurrency),
            live: Mutex::default(),
            idle: Notify::new(),
            closing: watch::Sender::new(false),
            stranded: Mutex::default(),
            lost: AbandonedJob::default(),
        });
        runtime.spawn(sweep(Arc::downgrade(&jobs)));
        jobs
    }

    /// Submits one job for each item, all or none. Unlike a request, each attempt of a job uses the policy
    /// that is live when it starts.
    pub async fn submit_background(
        self: &Arc<Self>,
        model: &ModelName,
        items: Vec<Item>,
        requested: RequestedBudgets,
        request_id: &Arc<str>,
    ) -> Result<Vec<Job>> {
        if *self.closing.borrow() {
            return Err(Error::unavailable("the host is stopping and takes no more jobs"));
        }
        let budgets = budgets(requested, &self.settings())?;
        let (now, mut jobs) = (SystemTime::now(), Vec::with_capacity(items.len()));
        for Item { input, parameters } in items {
            let (model, request_id) = (model.clone(), Arc::clone(request_id));
            let spec = Spec { model, parameters, budgets, created_at: now, request_id };
            jobs.push(Job::new(new_id()?, spec, input));
        }
        // In a task of its own: a client that leaves must not leave jobs behind that nobody drives.
        let admit = Arc::clone(self).admit(jobs);
        let admitted = self.parts.runtime.spawn(admit).await;
        admitted.unwrap_or_else(|error| Err(Error::failed(format!("cannot submit the jobs: {error}"))))
    }

    async fn admit(self: Arc<Self>, jobs: Vec<Job>) -> Result<Vec<Job>> {
        let submitted = Instant::now();
        let actives: Vec<_> = jobs.iter().map(|job| Arc::new(Active::new(job, submitted))).collect();
        self.live().extend(actives.iter().map(|active| (Arc::clone(&active.id), Arc::clone(active))));
        self.expire().await;
        if let Err(error) = self.parts.store.create(jobs.clone(), self.bounds()).await {
            jobs.iter().for_each(|job| self.forget_active(&job.id));
            return Err(error);
        }
        for active in actives {
            self.moved(None, Some(State::Created));
            let place = self.slots.queue();
            self.parts.runtime.spawn(run::run(Arc::clone(&self), active, place));
        }
        Ok(jobs)
    }

    pub async fn get(&self, id: &str) -> Result<Job> {
        self.parts.store.read(id).await?.ok_or_else(|| no_such_job(id))
    }

    /// As `get`, but waits for the end of the job for at most this time.
    pub async fn wait(&self, id: &str, time: Duration) -> Result<Job> {
        let active = self.live().get(id).cloned();
        if let Some(active) = active {
            let _ = tokio::time::timeout(time, active.ended()).await;
        }
        self.get(id).await
    }

    pub async fn list(&self, filter: &Filter) -> Result<Page> {
        self.parts.store.list(filter).await
    }

    /// Ends a job that has not ended. Its work is told to stop; the slot is free once it has.
    pub async fn cancel(&self, id: &str) -> Result<Settled> {
        self.end(id, End::Cancelled(Error::cancelled("the job was cancelled"))).await
    }

    /// Forgets a job that has ended.
    pub async fn delete(&self, id: &str) -> Result<Settled> {
        loop {
            let job = self.get(id).await?;
            if !job.status.state.is_final() {
                return Ok(Settled::Refused(job.status.state));
            }
            if self.parts.store.delete(id, job.revision).await? == Change::Done {
                self.moved(Some(job.status.state), None);
                return Ok(Settled::Now(job));
            }
        }
    }

    /// From here on no job is taken and none starts: those that wait end as cancelled, those that run may
    /// finish. Returns when none is left, or after `grace`.
    pub async fn drain(&self, grace: Duration) {
        self.closing.send_replace(true);
        let drained = async {
            loop {
                let mut idle = std::pin::pin!(self.idle.notified());
                idle.as_mut().enable();
                if self.live().is_empty() {
                    return;
                }
                idle.await;
            }
        };
        let _ = tokio::time::timeout(grace, drained).await;
    }

    /// Ends what has not ended, and says how much that was. A memory store does not outlive its process, so
    /// jobs that wait are lost as well.
    pub async fn close(&self) -> usize {
        self.closing.send_replace(true);
        let left: Vec<Arc<str>> = self.live().keys().cloned().collect();
        for id in left {
            if let Err(error) = self.end(&id, stopping()).await {
                tracing::warn!(job = &*id, "cannot end the job: {error}");
            }
        }
        let (pending, running) = self.lost.get();
        if pending + running > 0 {
            tracing::warn!(pending, running, "jobs were lost: they had not ended when the host did");
        }
        let kept: i64 = State::ALL
            .iter()
            .filter(|state| state.is_final())
            .map(|state| self.metrics().kept.with_label_values(&[state.as_str()]).get())
            .sum();
        if kept > 0 {
            tracing::info!(kept, "ended jobs and their results are gone with the process");
        }
        pending + running
    }

    /// Ends a job from outside of its task.
    async fn end(&self, id: &str, end: End) -> Result<Settled> {
        loop {
            let mut job = self.get(id).await?;
            let before = job.status.state;
            if before.is_final() {
                return Ok(Settled::Refused(before));
            }
            let settings = self.settings();
            job.status.end(end.clone(), SystemTime::now(), settings.result_ttl);
            let change = self.parts.store.update(id, job.revision, job.status.clone(), self.bounds()).await?;
            if change == Change::Done {
                job.revision += 1;
                self.settle(&job, before, matches!(end, End::Stopped(_)));
                return Ok(Settled::Now(job));
            }
        }
    }

    /// The store has a job's end: counts it and tells its task and those who wait.
    fn settle(&self, job: &Job, before: State, lost: bool) {
        let state = job.status.state;
        self.moved(Some(before), Some(state));
        self.metrics().ended.with_label_values(&[state.as_str()]).inc();
        let lived = SystemTime::now().duration_since(job.spec.created_at).unwrap_or_default();
        self.metrics().duration.observe(lived.as_secs_f64());
        if lost {
            self.lost.count(before);
        }
        self.forget_active(&job.id);
    }

    fn forget_active(&self, id: &str) {
        let (active, empty) = {
            let mut live = self.live();
            (live.remove(id), live.is_empty())
        };
        if let Some(active) = active {
            active.end();
        }
        if empty {
            self.idle.notify_waiters();
        }
    }

    /// The task of a job is gone, by a panic or because the store refused it: the job fails.
    fn abandon(self: &Arc<Self>, id: Arc<str>, why: Error) {
        tracing::error!(job = &*id, "{why}");
        let jobs = Arc::clone(self);
        self.parts.runtime.spawn(async move { jobs.fail(id, why).await });
    }

    async fn fail(&self, id: Arc<str>, why: Error) {
        let unknown = |error: &Error| error.kind() == crate::error::Kind::NotFound;
        match self.end(&id, End::Failed(why.clone())).await {
            Err(error) if unknown(&error) => self.forget_active(&id),
            // The store is away: the sweep tries again.
            Err(_) => self.abandoned().push((id, why)),
            Ok(_) => self.forget_active(&id),
        }
    }

    async fn expire(&self) {
        match self.parts.store.expire(SystemTime::now()).await {
            Ok(states) => states.into_iter().for_each(|state| self.moved(Some(state), None)),
            Err(error) => tracing::warn!("cannot expire jobs: {error}"),
        }
    }

    /// Keeps the gauge of jobs by state.
    fn moved(&self, from: Option<State>, to: Option<State>) {
        let gauge = |state: State| self.metrics().kept.with_label_values(&[state.as_str()]);
        from.into_iter().for_each(|state| gauge(state).dec());
        to.into_iter().for_each(|state| gauge(state).inc());
    }

    fn settings(&self) -> JobsPlan {
        self.parts.router.policy().content.plan.jobs
    }

    fn bounds(&self) -> Bounds {
        let settings = self.settings();
        Bounds { jobs: settings.capacity, bytes: settings.store_bytes }
    }

    fn metrics(&self) -> &crate::metrics::JobMetrics {
        &self.parts.metrics.jobs
    }

    fn live(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Active>>> {
        self.live.lock().expect("invariant: no panic under the lock")
    }

    fn abandoned(&self) -> MutexGuard<'_, Vec<(Arc<str>, Error)>> {
        self.stranded.lock().expect("invariant: no panic under the lock")
    }
}

impl AbandonedJob {
    fn count(&self, state: State) {
        let counter = if state == State::Running { &self.running } else { &self.pending };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> (usize, usize) {
        (self.pending.load(Ordering::Relaxed), self.running.load(Ordering::Relaxed))
    }
}

/// Ends with the last handle of `jobs`.
async fn sweep(jobs: Weak<Jobs>) {
    let mut ticks = tokio::time::interval(SWEEP_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(jobs) = jobs.upgrade() else { return };
        jobs.slots.resize(jobs.settings().concurrency);
        jobs.expire().await;
        let stranded = std::mem::take(&mut *jobs.abandoned());
        for (id, why) in stranded {
            jobs.fail(id, why).await;
        }
    }
}

/// Why jobs end when the host does.
fn stopping() -> End {
    End::Stopped(Error::cancelled("the host stopped before the job had ended"))
}

fn budgets(requested: RequestedBudgets, limits: &JobsPlan) -> Result<Budgets> {
    let max_attempts = requested.max_attempts.unwrap_or(1);
    if max_attempts > u64::from(limits.max_attempts) {
        let message =
            format!("max_attempts is {max_attempts}; this host makes at most {}", limits.max_attempts);
        return Err(Error::invalid(message).field("max_attempts"));
    }
    let max_total_runtime = requested.max_total_runtime.unwrap_or(limits.total_runtime);
    if max_total_runtime > limits.max_total_runtime {
        let message = format!(
            "max_total_runtime_ms is {}; this host allows at most {}",
            max_total_runtime.as_millis(),
            limits.max_total_runtime.as_millis()
        );
        return Err(Error::invalid(message).field("max_total_runtime_ms"));
    }
    Ok(Budgets { max_attempts: max_attempts as u32, max_runtime: requested.max_runtime, max_total_runtime })
}

fn no_such_job(id: &str) -> Error {
    let id: String = id.chars().take(80).collect();
    Error::not_found(format!("no job \"{id}\"; it may have expired, or was deleted"))
}

/// 128 bits that nobody can guess: whoever knows a job's id can fetch and cancel it.
fn new_id() -> Result<Arc<str>> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| Error::failed(format!("no random numbers: {error}")))?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)).into())
}
