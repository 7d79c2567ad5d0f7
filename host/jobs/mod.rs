//! Jobs: requests that run in the background. A client submits, watches, fetches and cancels them.
//!
//! Jobs are a layer over `Executor::submit`, not a method of `Executor`. What a job adds to a call
//! (states, budgets, retries, stored results) is the same for every kind of executor and must not
//! differ between them.
//!
//! - `job` defines a job, `store` the interface of a store, and `memory` the only store.
//! - `run` is the task of one job, from submission to its end. `slots` limits how many jobs have an
//!   attempt at once.
//! - `registry` holds the jobs that have not ended, and ends those whose task is lost.
//! - `Jobs`, here, is what callers use.
//!
//! The store decides how a job has ended: the first change to a final state wins, and everybody
//! else is informed. Every wait of a job is bounded by its total runtime, so each job ends.

mod active;
mod job;
mod memory;
mod registry;
mod run;
mod slots;
mod store;

pub use job::{Attempt, AttemptOutcome, Budgets, End, Job, Spec, State, Status};
pub use memory::MemoryStore;
pub use registry::{JobsConfig, Settled};
pub use store::{Bounds, Change, Filter, JobStore, Page};

use crate::error::{Error, Result};
use crate::policy::Route;
use crate::policy::plan::{JobsPlan, ModelName};
use crate::predict::{JsonText, MemoryBudget, Parameters};
use active::Active;
use registry::JobRegistry;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

pub struct Jobs {
    registry: Arc<JobRegistry>,
}

/// One input of a submission, checked like the input of a request.
pub struct Item {
    input: JsonText,
    parameters: Parameters,
}

impl Item {
    /// Checks an input against the current model. A reload may change the model before the job
    /// runs.
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

/// The budgets that a caller requests for each job.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestedBudgets {
    pub max_attempts: Option<u64>,
    pub max_runtime: Option<Duration>,
    pub max_total_runtime: Option<Duration>,
}

impl Jobs {
    pub fn start(config: JobsConfig) -> Arc<Self> {
        Arc::new(Jobs { registry: JobRegistry::start(config) })
    }

    /// Submits one job for each item, all or none. Unlike a request, each attempt of a job uses the
    /// policy that is live when the attempt starts.
    pub async fn submit_background(
        &self,
        model: &ModelName,
        items: Vec<Item>,
        requested: RequestedBudgets,
        request_id: &Arc<str>,
    ) -> Result<Vec<Job>> {
        if *self.registry.closing.borrow() {
            return Err(Error::unavailable("the host is stopping and accepts no more jobs"));
        }
        let budgets = budgets(requested, &self.registry.settings())?;
        let (now, mut jobs) = (SystemTime::now(), Vec::with_capacity(items.len()));
        for Item { input, parameters } in items {
            let (model, request_id) = (model.clone(), Arc::clone(request_id));
            let spec = Spec { model, parameters, budgets, created_at: now, request_id };
            jobs.push(Job::new(new_id()?, spec, input));
        }
        // Runs in its own task: if the client disconnects, no job may be left in the store without
        // a task.
        let admit = admit(Arc::clone(&self.registry), jobs);
        let admitted = self.registry.config.runtime.spawn(admit).await;
        admitted.unwrap_or_else(|error| Err(Error::failed(format!("cannot submit the jobs: {error}"))))
    }

    pub async fn get(&self, id: &str) -> Result<Job> {
        self.registry.get(id).await
    }

    /// Like `get`, but waits up to `time` for the end of the job.
    pub async fn wait(&self, id: &str, time: Duration) -> Result<Job> {
        let active = self.registry.active().get(id).cloned();
        if let Some(active) = active {
            let _ = tokio::time::timeout(time, active.ended()).await;
        }
        self.get(id).await
    }

    pub async fn list(&self, filter: &Filter) -> Result<Page> {
        self.registry.config.store.list(filter).await
    }

    /// Ends a job that has not ended. Its work is told to stop, and the slot is free once it has.
    pub async fn cancel(&self, id: &str) -> Result<Settled> {
        self.registry.end(id, End::Cancelled(Error::cancelled("the job was cancelled"))).await
    }

    /// Forgets a job that has ended.
    pub async fn delete(&self, id: &str) -> Result<Settled> {
        loop {
            let job = self.get(id).await?;
            if !job.status.state.is_final() {
                return Ok(Settled::Refused(job.status.state));
            }
            if self.registry.config.store.delete(id, job.revision).await? == Change::Done {
                self.registry.moved(Some(job.status.state), None);
                return Ok(Settled::Now(job));
            }
        }
    }

    /// Admits and starts no more jobs: pending jobs end as cancelled, running ones may finish.
    /// Returns when no job is left, or after `grace`.
    pub async fn drain(&self, grace: Duration) {
        self.registry.drain(grace).await;
    }

    /// Ends the jobs that have not ended, and returns how many there were. A memory store does not
    /// outlive its process, so pending jobs are lost as well.
    pub async fn close(&self) -> usize {
        self.registry.closing.send_replace(true);
        let left: Vec<Arc<str>> = self.registry.active().keys().cloned().collect();
        for id in left {
            if let Err(error) = self.registry.end(&id, End::stopping()).await {
                tracing::warn!(job = &*id, "cannot end the job: {error}");
            }
        }
        let (pending, running) = self.registry.lost();
        if pending + running > 0 {
            tracing::warn!(pending, running, "jobs were lost: they had not ended when the host stopped");
        }
        let kept: i64 = State::ALL
            .iter()
            .filter(|state| state.is_final())
            .map(|state| self.registry.metrics().kept.with_label_values(&[state.as_str()]).get())
            .sum();
        if kept > 0 {
            tracing::info!(kept, "ended jobs and their results were discarded");
        }
        pending + running
    }
}

async fn admit(registry: Arc<JobRegistry>, jobs: Vec<Job>) -> Result<Vec<Job>> {
    let submitted = Instant::now();
    let actives: Vec<_> = jobs.iter().map(|job| Arc::new(Active::new(job, submitted))).collect();
    registry.active().extend(actives.iter().map(|active| (Arc::clone(&active.id), Arc::clone(active))));
    registry.expire().await;
    if let Err(error) = registry.config.store.create(jobs.clone(), registry.bounds()).await {
        jobs.iter().for_each(|job| registry.forget_active(&job.id));
        return Err(error);
    }
    for active in actives {
        registry.moved(None, Some(State::Created));
        let queued = registry.slots.queue();
        registry.config.runtime.spawn(run::run(Arc::clone(&registry), active, queued));
    }
    Ok(jobs)
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

/// Returns 128 random bits: anybody who knows a job's id can fetch and cancel the job.
fn new_id() -> Result<Arc<str>> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::failed(format!("cannot create a job id: no random numbers: {error}")))?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)).into())
}
