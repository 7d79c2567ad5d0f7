//! The jobs that have not ended in this process. Their tasks and their callers change the store
//! through it.

use super::active::Active;
use super::job::{End, Job, State};
use super::slots::Slots;
use super::store::{Bounds, Change, JobStore};
use crate::error::{Error, Result};
use crate::lock::LockUnpoisoned;
use crate::metrics::{JobMetrics, Metrics};
use crate::policy::plan::JobsPlan;
use crate::router::Router;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, SystemTime};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};

/// How often expired jobs are removed and changed limits take effect.
const SWEEP_EVERY: Duration = Duration::from_millis(250);

/// The parts of the host that jobs use.
pub struct JobsConfig {
    pub store: Arc<dyn JobStore>,
    pub router: Arc<Router>,
    pub metrics: Arc<Metrics>,
    /// Runs the tasks of jobs, which compute nothing but JSON.
    pub runtime: Handle,
    /// Returns the HTTP status under which the outcome of an attempt is counted and logged.
    pub status_of: fn(&Error) -> u16,
}

/// Shared by [`Jobs`](super::Jobs) and the tasks of its jobs.
pub(super) struct JobRegistry {
    pub config: JobsConfig,
    pub slots: Arc<Slots>,
    /// Jobs of this process that have not ended.
    active: Mutex<HashMap<Arc<str>, Arc<Active>>>,
    idle: Notify,
    pub closing: watch::Sender<bool>,
    /// Jobs whose task is lost, and whose end the store has not recorded yet.
    abandoned: Mutex<Vec<(Arc<str>, Error)>>,
    lost: LostJobs,
}

/// Counts the jobs that ended because the host stopped.
#[derive(Default)]
struct LostJobs {
    pending: AtomicUsize,
    running: AtomicUsize,
}

/// The result of a request to end or delete a job.
pub enum Settled {
    /// The job after the change.
    Now(Job),
    /// The state of the job does not allow the change.
    Refused(State),
}

impl JobRegistry {
    pub fn start(config: JobsConfig) -> Arc<Self> {
        let concurrency = config.router.policy().content.plan.jobs.concurrency;
        let runtime = config.runtime.clone();
        let jobs = Arc::new(JobRegistry {
            config,
            slots: Slots::new(concurrency),
            active: Mutex::default(),
            idle: Notify::new(),
            closing: watch::Sender::new(false),
            abandoned: Mutex::default(),
            lost: LostJobs::default(),
        });
        runtime.spawn(sweep(Arc::downgrade(&jobs)));
        jobs
    }

    pub async fn get(&self, id: &str) -> Result<Job> {
        self.config.store.read(id).await?.ok_or_else(|| no_such_job(id))
    }

    /// Admits and starts no more jobs. Returns when no job is left, or after `grace`.
    pub async fn drain(&self, grace: Duration) {
        self.closing.send_replace(true);
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
            let mut job = self.get(id).await?;
            let before = job.status.state;
            if before.is_final() {
                return Ok(Settled::Refused(before));
            }
            let settings = self.settings();
            job.status.end(end.clone(), SystemTime::now(), settings.result_ttl);
            let change =
                self.config.store.update(id, job.revision, job.status.clone(), self.bounds()).await?;
            if change == Change::Done {
                job.revision += 1;
                self.settle(&job, before, matches!(end, End::Stopped(_)));
                return Ok(Settled::Now(job));
            }
        }
    }

    /// Called when the store has recorded the end of a job: counts it, and informs its task and all
    /// waiters.
    pub fn settle(&self, job: &Job, before: State, lost: bool) {
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

    /// Fails a job whose task is lost, by a panic or because the store refused a change.
    pub fn abandon(self: &Arc<Self>, id: Arc<str>, why: Error) {
        tracing::error!(job = &*id, "{why}");
        let jobs = Arc::clone(self);
        self.config.runtime.spawn(async move { jobs.fail(id, why).await });
    }

    async fn fail(&self, id: Arc<str>, why: Error) {
        let unknown = |error: &Error| error.kind() == crate::error::Kind::NotFound;
        match self.end(&id, End::Failed(why.clone())).await {
            Err(error) if unknown(&error) => self.forget_active(&id),
            // The store is unavailable: the sweep tries again.
            Err(_) => self.abandoned().push((id, why)),
            Ok(_) => self.forget_active(&id),
        }
    }

    pub async fn expire(&self) {
        match self.config.store.expire(SystemTime::now()).await {
            Ok(states) => states.into_iter().for_each(|state| self.moved(Some(state), None)),
            Err(error) => tracing::warn!("cannot expire jobs: {error}"),
        }
    }

    /// Updates the gauge of jobs by state.
    pub fn moved(&self, from: Option<State>, to: Option<State>) {
        let gauge = |state: State| self.metrics().kept.with_label_values(&[state.as_str()]);
        from.into_iter().for_each(|state| gauge(state).dec());
        to.into_iter().for_each(|state| gauge(state).inc());
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

    fn abandoned(&self) -> MutexGuard<'_, Vec<(Arc<str>, Error)>> {
        self.abandoned.lock_unpoisoned()
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

/// Runs until the registry is dropped.
async fn sweep(jobs: Weak<JobRegistry>) {
    let mut ticks = tokio::time::interval(SWEEP_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(jobs) = jobs.upgrade() else { return };
        jobs.slots.resize(jobs.settings().concurrency);
        jobs.expire().await;
        let abandoned = std::mem::take(&mut *jobs.abandoned());
        for (id, why) in abandoned {
            jobs.fail(id, why).await;
        }
    }
}

fn no_such_job(id: &str) -> Error {
    let id: String = id.chars().take(80).collect();
    Error::not_found(format!("no job \"{id}\"; it may have expired, or was deleted"))
}
