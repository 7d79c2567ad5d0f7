//! Jobs: requests that run in the background. A client submits, watches, fetches and cancels them.
//!
//! Jobs are a layer over `Executor::submit`, not a method of `Executor`. What a job adds to a call
//! (states, budgets, retries, stored results) is the same for every kind of executor and must not
//! differ between them.
//!
//! - `job` defines a job; `store` has the interface of a store, and the stores.
//! - `claims` takes pending jobs while there are slots (`slots`), and starts their tasks.
//! - `run` is the task of a slot: it runs a job that was claimed, and the next one.
//! - `steps` follows the steps of pipelines, and keeps their outputs.
//! - `submission` is what a caller submits, and `ids` makes the ids of the jobs.
//! - `completion` brings a submission to its end without the caller.
//! - `sweep` does what happens to jobs by itself: leases, deadlines, expiry.
//! - `webhooks` reports the ends of jobs.
//! - `registry` holds the jobs that run in this process, and ends those whose task is lost.
//! - `Jobs`, here, is what callers use.
//!
//! The store decides how a job has ended: the first change to a final state wins, and everybody
//! else is informed. Every wait of a job is bounded by its total runtime, so each job ends.

mod active;
mod claims;
mod completion;
#[cfg(test)]
mod contract_tests;
#[cfg(test)]
mod delivery_tests;
mod durable;
#[cfg(test)]
mod examples;
mod ids;
mod job;
mod payload;
mod registry;
mod reply;
mod run;
mod slots;
mod step_summary;
mod steps;
mod store;
mod store_time;
mod submission;
mod sweep;
mod webhooks;

pub use durable::{Disk, DurableStore, Fault, FolderDisk};
pub use job::{Attempt, AttemptOutcome, AttemptStart, Budgets, End, Job, Spec, State, Status};
pub use registry::{JobsConfig, Settled, no_such_job};
pub use reply::ReplyEncoder;
pub use step_summary::{StepState, StepSummary};
pub use store::{
    Bounds, Change, Claim, Claimed, Created, Cursor, Filter, IdempotencyKey, JobStore, KeptStep, Lease,
    MemoryStore, NewJob, Page, Purged, Renewal, Submission, Update, Usage,
};
pub use store_time::StoreTime;
pub use submission::{Item, RequestedBudgets, Submitter};
pub use webhooks::{
    Delivery, DeliveryClaim, DeliveryOutcome, DeliveryState, DeliveryStatus, ReceiverCapacity, Settlement,
    Webhook,
};

use crate::error::{Error, Kind, Result};
use crate::policy::plan::ModelName;
use crate::predict::Payload;
use ids::JobIds;
use registry::JobRegistry;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use submission::budgets;

pub struct Jobs {
    registry: Arc<JobRegistry>,
    ids: JobIds,
}

/// The result of a request to run a job again.
pub enum Retried {
    Submitted(Submitted),
    /// The state of the job does not allow it.
    Refused(State),
}

/// The jobs of a submission.
pub enum Submitted {
    New(Vec<Job>),
    /// The ids of the jobs that an earlier submission with the same idempotency key has created.
    Existing(Vec<Arc<str>>),
}

/// For how long an idempotency key is remembered.
pub const IDEMPOTENCY_TIME: Duration = Duration::from_secs(24 * 60 * 60);

/// How many jobs are removed in one change of the store.
const PURGE_AT_ONCE: usize = 500;

/// How long one request purges.
const PURGE_TIME: Duration = Duration::from_secs(1);

impl Jobs {
    pub fn start(config: JobsConfig) -> Arc<Self> {
        let registry = JobRegistry::new(config);
        let (sweeping, claiming) = (Arc::downgrade(&registry), Arc::downgrade(&registry));
        let runtime = registry.config.runtime.clone();
        runtime.spawn(keep_running("sweep", move || sweep::sweep(sweeping.clone())));
        let delivering = Arc::downgrade(&registry);
        runtime.spawn(keep_running("webhooks", move || webhooks::deliver(delivering.clone())));
        runtime.spawn(keep_running("claims", move || claims::claim_jobs(claiming.clone())));
        Arc::new(Jobs { registry, ids: JobIds::default() })
    }

    /// Submits one job for each item, all or none. Unlike a request, each attempt of a job uses the
    /// policy that is live when the attempt starts.
    pub async fn submit_background(
        &self,
        model: &ModelName,
        items: Vec<Item>,
        requested: RequestedBudgets,
        webhook: Option<&str>,
        submitter: Submitter<'_>,
        key: Option<IdempotencyKey>,
    ) -> Result<Submitted> {
        if *self.registry.closing.borrow() {
            return Err(Error::unavailable("the host is stopping and accepts no more jobs"));
        }
        let budgets = budgets(requested, &self.registry.settings())?;
        let webhook = webhook.map(|url| self.webhook(url)).transpose()?;
        let (created_at, mut jobs) = (SystemTime::now(), Vec::with_capacity(items.len()));
        for Item { input, parameters, rows: _, reply } in items {
            let spec = Spec {
                owner: Arc::clone(submitter.owner),
                tenant: Arc::clone(submitter.tenant),
                priority: submitter.priority,
                model: model.clone(),
                parameters,
                budgets,
                created_at,
                request_id: Arc::clone(submitter.request_id),
                retry_of: None,
                reply,
                webhook: webhook.clone(),
            };
            let spec = Arc::new(spec);
            jobs.push(NewJob { id: self.ids.make()?, spec, input, delay: requested.run_after });
        }
        self.admit(Submission { jobs, key }).await
    }

    /// Checks the URL of a webhook.
    fn webhook(&self, url: &str) -> Result<Webhook> {
        let allowed = match &self.registry.config.router.policy().content.webhooks {
            Some(webhooks) => webhooks.receiver(url),
            None => Err(Error::invalid(
                "this host calls no webhooks; leave the key out, or an operator can add [jobs.webhooks] to the manifest",
            )),
        };
        let receiver = allowed.map_err(|error| error.context("webhook").with_field("webhook".into()))?;
        Ok(Webhook { url: url.into(), receiver: receiver.into() })
    }

    /// Returns the jobs that an earlier submission with this key has created.
    ///
    /// # Errors
    /// `conflict` if the key belongs to another request.
    pub async fn submitted(&self, key: Option<&IdempotencyKey>) -> Result<Option<Submitted>> {
        let Some(key) = key else { return Ok(None) };
        let created = self.registry.store().created(key.clone()).await?;
        created.map(submitted).transpose()
    }

    /// Creates jobs. If the client disconnects meanwhile, a task of its own goes on, so that they
    /// are either created or not.
    async fn admit(&self, submission: Submission) -> Result<Submitted> {
        let admit = admit(Arc::clone(&self.registry), submission);
        completion::complete(admit, &self.registry.config.runtime).await
    }

    /// Submits the input of a job again that has ended without a result. The new job has the
    /// budgets of the old one, and starts from the beginning.
    pub async fn retry(
        &self,
        id: &str,
        submitter: Submitter<'_>,
        key: Option<IdempotencyKey>,
    ) -> Result<Retried> {
        if *self.registry.closing.borrow() {
            return Err(Error::unavailable("the host is stopping and accepts no more jobs"));
        }
        let job = self.get(id).await?;
        if !job.status.state.is_final() || job.status.state == State::Succeeded {
            return Ok(Retried::Refused(job.status.state));
        }
        let input = self.registry.store().input(&job).await?;
        let gone = || {
            Error::not_found(
                "the input of the job is not there any more; inputs are kept for this only in a store of [stores]",
            )
        };
        let spec = Spec {
            owner: Arc::clone(submitter.owner),
            tenant: Arc::clone(submitter.tenant),
            created_at: SystemTime::now(),
            request_id: Arc::clone(submitter.request_id),
            retry_of: Some(Arc::clone(&job.id)),
            ..(*job.spec).clone()
        };
        let new = NewJob {
            id: self.ids.make()?,
            spec: Arc::new(spec),
            input: input.ok_or_else(gone)?,
            delay: Duration::ZERO,
        };
        self.admit(Submission { jobs: vec![new], key }).await.map(Retried::Submitted)
    }

    pub async fn get(&self, id: &str) -> Result<Job> {
        self.registry.get(id).await
    }

    /// Returns the result of a job that has succeeded.
    pub async fn result(&self, job: &Job) -> Result<Option<Payload>> {
        self.registry.store().result(job).await
    }

    /// Returns the steps of a pipeline: those of the attempt that runs here, or of the last one
    /// that has ended.
    pub fn steps(&self, job: &Job) -> Vec<StepSummary> {
        let active = self.registry.active().get(&job.id).cloned();
        match active {
            Some(active) if !job.status.state.is_final() => active.steps(false),
            _ => job.status.steps.clone(),
        }
    }

    /// Returns the time of the wall clock at which a job that has ended may be forgotten.
    pub fn expires_at(&self, job: &Job) -> Option<SystemTime> {
        Some(SystemTime::now() + self.registry.store().now().until(job.status.expires?))
    }

    /// Like `get`, but waits up to `time` for the end of the job.
    pub async fn wait(&self, id: &str, time: Duration) -> Result<Job> {
        let until = Instant::now() + time;
        loop {
            let job = self.get(id).await?;
            if job.status.state.is_final() {
                return Ok(job);
            }
            let changed = self.registry.store().changed(id, job.revision);
            match tokio::time::timeout_at(until.into(), changed).await {
                Ok(changed) => changed?,
                Err(_) => return Ok(job),
            }
        }
    }

    pub async fn list(&self, filter: &Filter) -> Result<Page> {
        self.registry.store().list(filter).await
    }

    /// Ends a job that has not ended. Its work is told to stop, and the slot is free once it has.
    pub async fn cancel(&self, id: &str) -> Result<Settled> {
        self.registry.end(id, End::Cancelled(Error::cancelled("the job was cancelled"))).await
    }

    /// Sets the files of a damaged store aside, and begins with an empty one. Returns where they
    /// are.
    pub async fn reset(&self) -> Result<String> {
        let place = self.registry.store().reset().await?;
        self.registry.publish_usage();
        tracing::warn!(place, "job store reset: it is empty now");
        Ok(place)
    }

    /// Forgets the jobs that have ended and fit the filter; if `is_dry_run`, counts them only.
    /// Stops after a while: `next` says where to go on.
    pub async fn purge(&self, mut filter: Filter, is_dry_run: bool) -> Result<Purged> {
        let (until, mut jobs) = (Instant::now() + PURGE_TIME, 0);
        filter.limit = PURGE_AT_ONCE;
        loop {
            let purged = match self.registry.store().purge(filter.clone(), is_dry_run).await {
                Ok(purged) => purged,
                // This request says what was done; the next one says why it did not go on.
                Err(_) if jobs > 0 => break,
                Err(error) => return Err(error),
            };
            jobs += purged.jobs;
            filter.after = purged.next;
            if filter.after.is_none() || Instant::now() >= until {
                break;
            }
            // A store in memory never waits.
            tokio::task::yield_now().await;
        }
        self.registry.publish_usage();
        Ok(Purged { jobs, next: filter.after })
    }

    /// Forgets a job that has ended.
    pub async fn delete(&self, id: &str) -> Result<Settled> {
        loop {
            let job = self.get(id).await?;
            if !job.status.state.is_final() {
                return Ok(Settled::Refused(job.status.state));
            }
            if self.registry.store().delete(Arc::clone(&job.id), job.revision).await? == Change::Done {
                self.registry.publish_usage();
                return Ok(Settled::Now(Box::new(job)));
            }
        }
    }

    /// Admits and starts no more jobs. Those that run may finish, and their webhooks are called;
    /// returns when nothing runs any more, or after `grace`. If jobs do not outlive the process,
    /// those that wait end as cancelled.
    pub async fn drain(&self, grace: Duration) {
        let until = Instant::now() + grace;
        self.registry.closing.send_replace(true);
        if !self.registry.store().is_durable() {
            self.cancel_pending().await;
        }
        self.registry.drained(grace).await;
        let _ = tokio::time::timeout_at(until.into(), webhooks::drained(&self.registry)).await;
    }

    async fn cancel_pending(&self) {
        let mut filter = Filter { states: vec![State::Pending], limit: 100, ..Filter::default() };
        while let Ok(page) = self.registry.store().list(&filter).await {
            for job in &page.jobs {
                if let Err(error) = self.registry.end(&job.id, End::stopping()).await {
                    tracing::warn!(job = &*job.id, "cannot end the job: {error}");
                }
            }
            filter.after = page.next;
            if filter.after.is_none() {
                return;
            }
        }
    }

    /// Stops the jobs that still run, and returns how many jobs are lost. With a store that
    /// outlives the process none is: a job that ran is pending again, and its attempt costs it
    /// nothing.
    pub async fn close(&self) -> usize {
        self.registry.closing.send_replace(true);
        let left: Vec<Arc<str>> = self.registry.active().keys().cloned().collect();
        let is_durable = self.registry.store().is_durable();
        for id in left {
            let stopped = match is_durable {
                true => self.give_back(&id).await,
                false => self.registry.end(&id, End::stopping()).await.map(drop),
            };
            if let Err(error) = stopped {
                tracing::warn!(job = &*id, "cannot stop the job: {error}");
            }
        }
        if is_durable {
            self.registry.store().close().await;
            return 0;
        }
        let (pending, running) = self.registry.lost();
        if pending + running > 0 {
            tracing::warn!(pending, running, "jobs were lost: they had not ended when the host stopped");
        }
        let usage = self.registry.store().usage();
        let kept: usize = State::ALL
            .into_iter()
            .zip(usage.jobs)
            .filter(|(state, _)| state.is_final())
            .map(|(_, count)| count)
            .sum();
        if kept > 0 {
            tracing::info!(kept, "ended jobs and their results were discarded");
        }
        if usage.deliveries > 0 {
            let lost = usage.deliveries;
            tracing::warn!(lost, "webhooks were lost: they were not delivered when the host stopped");
        }
        pending + running
    }

    /// Makes a running job pending again, for the next process.
    async fn give_back(&self, id: &str) -> Result<()> {
        loop {
            let job = match self.get(id).await {
                Ok(job) if job.status.state == State::Running => job,
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == Kind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            };
            let mut status = job.status.clone();
            let why = Error::cancelled("the host stopped during the attempt");
            status.interrupt(&why, SystemTime::now(), self.registry.store().now());
            if self.registry.change(&job, status, None, false).await? == Change::Done {
                tracing::info!(job = id, "job given back: it runs again when the host starts");
                self.registry.forget_active(id);
                return Ok(());
            }
        }
    }
}

/// Runs a task to its end, and starts it again if it panics: without it, no job would run.
async fn keep_running<F: Future<Output = ()> + Send + 'static>(name: &str, task: impl Fn() -> F) {
    while let Err(error) = tokio::spawn(task()).await {
        tracing::error!("task of jobs ended unexpectedly: {name}: {error}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn admit(registry: Arc<JobRegistry>, submission: Submission) -> Result<Submitted> {
    registry.expire().await?;
    let created = registry.store().create(submission, registry.bounds()).await?;
    registry.publish_usage();
    submitted(created)
}

fn submitted(created: Created) -> Result<Submitted> {
    match created {
        Created::New(jobs) => Ok(Submitted::New(jobs)),
        Created::Existing(ids) => Ok(Submitted::Existing(ids)),
        Created::Conflict => Err(Error::new(
            Kind::Conflict,
            "the idempotency key belongs to another request; use a new key for each request",
        )
        .field("Idempotency-Key")),
    }
}
