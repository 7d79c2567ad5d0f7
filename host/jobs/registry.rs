//! The jobs that have not ended in this process. Their tasks and their callers change the store
//! through it.

use super::active::Active;
use super::job::{AttemptStart, End, Job, State, Status};
use super::reply::ReplyEncoder;
use super::slots::Slots;
use super::store::{Bounds, Change, Claim, Claimed, JobStore, Update};
use super::store_time::StoreTime;
use super::webhooks::Receivers;
use crate::error::{Error, Kind, Result};
use crate::lock::LockUnpoisoned;
use crate::metrics::{JobMetrics, Metrics};
use crate::policy::plan::JobsPlan;
use crate::predict::Payload;
use crate::router::Router;
use prometheus::IntGauge;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};

/// How long a claim holds without being renewed. Long enough that a busy host renews in time, and
/// short enough that the jobs of a host that is gone do not wait for long.
pub(super) const LEASE: Duration = Duration::from_secs(30);

/// How many expired jobs are removed in one change of the store.
const EXPIRE_AT_ONCE: usize = 500;

/// The parts of the host that jobs use.
pub struct JobsConfig {
    pub store: Arc<dyn JobStore>,
    pub router: Arc<Router>,
    pub metrics: Arc<Metrics>,
    /// Runs the tasks of jobs, which compute nothing but JSON.
    pub runtime: Handle,
    /// Returns the HTTP status under which the outcome of an attempt is counted and logged.
    pub status_of: fn(&Error) -> u16,
    /// Encodes the results of jobs that have a `reply`.
    pub encoder: Arc<dyn ReplyEncoder>,
}

/// Shared by [`Jobs`](super::Jobs) and the tasks of its jobs.
pub(super) struct JobRegistry {
    pub config: JobsConfig,
    pub slots: Arc<Slots>,
    /// The receivers of webhooks that this process calls.
    pub receivers: Arc<Receivers>,
    /// Jobs that this process runs.
    active: Mutex<HashMap<Arc<str>, Arc<Active>>>,
    idle: Notify,
    pub closing: watch::Sender<bool>,
    /// Jobs whose task is lost, and whose end the store has not recorded yet.
    abandoned: Mutex<Vec<(Arc<str>, Error)>>,
    lost: LostJobs,
    /// The gauges of the jobs in the store, in the order of `State::ALL`.
    kept: [IntGauge; State::ALL.len()],
}

/// Counts the jobs that ended because the host stopped.
#[derive(Default)]
struct LostJobs {
    pending: AtomicUsize,
    running: AtomicUsize,
}

/// A job that was claimed, among those that this process runs.
pub(super) struct ActiveClaim {
    pub active: Arc<Active>,
    pub claimed: Claimed,
}

/// The result of a request to end or delete a job.
pub enum Settled {
    /// The job after the change.
    Now(Box<Job>),
    /// The state of the job does not allow the change.
    Refused(State),
}

impl JobRegistry {
    pub fn new(config: JobsConfig) -> Arc<Self> {
        let concurrency = config.router.policy().content.plan.jobs.concurrency;
        let metrics = &config.metrics.jobs;
        let kept = State::ALL.map(|state| metrics.kept.with_label_values(&[state.as_str()]));
        // There from the start, so that an alert sees the first one as an increase.
        for state in State::ALL.into_iter().filter(|state| state.is_final()) {
            metrics.ended.with_label_values(&[state.as_str()]);
        }
        for outcome in ["delivered", "failed"] {
            metrics.webhook_deliveries.with_label_values(&[outcome]);
        }
        Arc::new(JobRegistry {
            config,
            slots: Slots::new(concurrency),
            receivers: Arc::default(),
            active: Mutex::default(),
            idle: Notify::new(),
            closing: watch::Sender::new(false),
            abandoned: Mutex::default(),
            lost: LostJobs::default(),
            kept,
        })
    }

    pub fn store(&self) -> &dyn JobStore {
        &*self.config.store
    }

    pub async fn get(&self, id: &str) -> Result<Job> {
        let job = self.store().read(id).await?;
        // Who has seen a job in a state finds it counted there.
        self.publish_usage();
        job.ok_or_else(|| no_such_job(id))
    }

    /// Returns when no job runs here, or after `grace`.
    pub async fn drained(&self, grace: Duration) {
        let drained = async {
            loop {
                let mut idle = std::pin::pin!(self.idle.notified());
                idle.as_mut().enable();
                if self.active().is_empty() {
                    return;
                }
                idle.await;
            }
        };
        let _ = tokio::time::timeout(grace, drained).await;
    }

    /// Ends a job from outside its task.
    pub async fn end(&self, id: &str, end: End) -> Result<Settled> {
        loop {
            let job = self.get(id).await?;
            if job.status.state.is_final() {
                return Ok(Settled::Refused(job.status.state));
            }
            let mut status = job.status.clone();
            if let Some(active) = self.active().get(id) {
                status.steps = active.steps(true);
            }
            status.end(&end, SystemTime::now(), self.expiry());
            let lost = matches!(end, End::Stopped(_));
            if self.change(&job, status, None, lost).await? == Change::Done {
                let job = self.get(id).await?;
                return Ok(Settled::Now(Box::new(job)));
            }
        }
    }

    /// Changes the status of a job, unless it has another revision by now. Counts the end of a job
    /// and tells its task; `lost` is whether the job ends because the host does.
    pub async fn change(
        &self,
        job: &Job,
        status: Status,
        result: Option<Payload>,
        lost: bool,
    ) -> Result<Change> {
        let state = status.state;
        let change = self.store().update(update_of(job, status, result), self.bounds()).await?;
        if change == Change::Done {
            self.changed(job, state, lost);
        }
        Ok(change)
    }

    /// Changes the status of a job that runs, and claims the job that waits longest in the same
    /// change. The caller must run the job that this returns.
    pub async fn change_and_claim(
        &self,
        job: &Job,
        status: Status,
        result: Option<Payload>,
    ) -> Result<(Change, Option<ActiveClaim>)> {
        let (state, update) = (status.state, update_of(job, status, result));
        let claim = self.claim_up_to(1);
        let (change, claimed) = self.store().update_and_claim(update, claim, self.bounds()).await?;
        let claimed = claimed.into_iter().next().map(|claimed| self.activate(claimed));
        if change == Change::Done {
            self.changed(job, state, false);
        }
        Ok((change, claimed))
    }

    /// Called when the store has changed the status of a job.
    fn changed(&self, job: &Job, state: State, lost: bool) {
        self.publish_usage();
        if state.is_final() {
            self.settle(job, state, lost);
        }
    }

    /// Returns a claim of up to `limit` jobs.
    pub fn claim_up_to(&self, limit: usize) -> Claim {
        let tenants = Some(Arc::clone(&self.config.router.policy().content.tenants));
        Claim { limit, lease: LEASE, models: None, tenants, start: self.attempt_start() }
    }

    /// Adds a job that was claimed to those that this process runs.
    pub fn activate(&self, claimed: Claimed) -> ActiveClaim {
        let active = Arc::new(Active::new(&claimed.job, self.store().now()));
        self.active().insert(Arc::clone(&active.id), Arc::clone(&active));
        ActiveClaim { active, claimed }
    }

    /// Called when the store has recorded the end of a job.
    fn settle(&self, job: &Job, state: State, lost: bool) {
        self.metrics().ended.with_label_values(&[state.as_str()]).inc();
        self.metrics().duration.observe(job.submitted().until(self.store().now()).as_secs_f64());
        if lost {
            self.lost.count(job.status.state);
        }
        self.forget_active(&job.id);
    }

    /// Forgets a claim whose task has ended. Another claim of the same job stays.
    pub fn forget_claim(&self, claim: &Arc<Active>) {
        let is_latest = self.active().get(&claim.id).is_some_and(|known| Arc::ptr_eq(known, claim));
        if is_latest {
            self.forget_active(&claim.id);
        }
    }

    /// Tells the task of a job that there is nothing more to do.
    pub fn forget_active(&self, id: &str) {
        let (active, empty) = {
            let mut active = self.active();
            (active.remove(id), active.is_empty())
        };
        if let Some(active) = active {
            active.end();
        }
        if empty {
            self.idle.notify_waiters();
        }
    }

    /// Returns what an attempt records that begins now.
    pub fn attempt_start(&self) -> AttemptStart {
        let policy = self.config.router.policy();
        let digest = policy.content.plan.digest.as_str().into();
        AttemptStart { generation: policy.generation, policy: digest, now: SystemTime::now() }
    }

    /// Fails a job whose task is lost, by a panic or because the store refused a change.
    pub fn abandon(self: &Arc<Self>, id: Arc<str>, why: Error) {
        tracing::error!(job = &*id, "{why}");
        let jobs = Arc::clone(self);
        self.config.runtime.spawn(async move { jobs.fail(id, why).await });
    }

    async fn fail(&self, id: Arc<str>, why: Error) {
        let unknown = |error: &Error| error.kind() == Kind::NotFound;
        match self.end(&id, End::Failed(why.clone())).await {
            Err(error) if unknown(&error) => self.forget_active(&id),
            // The store is unavailable: the sweep tries again.
            Err(_) => self.abandoned.lock_unpoisoned().push((id, why)),
            Ok(_) => self.forget_active(&id),
        }
    }

    /// Removes jobs that have expired. Returns whether there may be more.
    pub async fn expire(&self) -> Result<bool> {
        let expired = self.store().expire(EXPIRE_AT_ONCE).await?;
        if expired > 0 {
            self.publish_usage();
        }
        Ok(expired == EXPIRE_AT_ONCE)
    }

    /// Returns when a job that ends now may be forgotten.
    pub fn expiry(&self) -> StoreTime {
        self.store().now().after(self.settings().result_ttl)
    }

    /// Updates the gauges of what the store holds.
    pub fn publish_usage(&self) {
        let usage = self.store().usage();
        for (gauge, count) in self.kept.iter().zip(usage.jobs) {
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.metrics().store_up.set(i64::from(usage.is_open));
        let known = self.metrics().damaged_records.get();
        self.metrics().damaged_records.inc_by((usage.damaged as u64).saturating_sub(known));
        self.metrics().webhooks_pending.set(i64::try_from(usage.deliveries).unwrap_or(i64::MAX));
        self.metrics().store_bytes.set(i64::try_from(usage.bytes).unwrap_or(i64::MAX));
    }

    pub fn settings(&self) -> JobsPlan {
        self.config.router.policy().content.plan.jobs
    }

    pub fn bounds(&self) -> Bounds {
        let settings = self.settings();
        Bounds { jobs: settings.capacity, bytes: settings.store_bytes }
    }

    pub fn metrics(&self) -> &JobMetrics {
        &self.config.metrics.jobs
    }

    /// Returns how many jobs ended because the host stopped: pending ones and running ones.
    pub fn lost(&self) -> (usize, usize) {
        self.lost.get()
    }

    pub fn active(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Active>>> {
        self.active.lock_unpoisoned()
    }

    /// Ends the jobs whose task was lost while the store was unavailable.
    pub async fn fail_abandoned(&self) {
        let abandoned = std::mem::take(&mut *self.abandoned.lock_unpoisoned());
        for (id, why) in abandoned {
            self.fail(id, why).await;
        }
    }
}

impl LostJobs {
    fn count(&self, state: State) {
        let counter = if state == State::Running { &self.running } else { &self.pending };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> (usize, usize) {
        (self.pending.load(Ordering::Relaxed), self.running.load(Ordering::Relaxed))
    }
}

fn update_of(job: &Job, status: Status, result: Option<Payload>) -> Update {
    Update { id: Arc::clone(&job.id), number: job.number, revision: job.revision, status, result }
}

/// Returns the error for a job that does not exist, or is not the caller's.
pub fn no_such_job(id: &str) -> Error {
    let id: String = id.chars().take(80).collect();
    Error::not_found(format!("no job \"{id}\"; it may have expired, or was deleted"))
}
