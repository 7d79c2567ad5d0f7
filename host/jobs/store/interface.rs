//! The interface of a job store, and what each store must guarantee.
//!
//! A store is the only place that decides about a job. Several tasks, and for a store on a server
//! several hosts, call it concurrently:
//!
//! - A job is run by the host that claims it. A claim is a lease: it lapses unless it is renewed,
//!   and then the job is `abandoned`. Each claim raises the job's `fence`.
//! - A change names the revision that it is based on. Of two concurrent changes one wins, and the
//!   other is `Stale`. A claim is a change as well, so a result counts until somebody else has
//!   claimed the job, even if the lease has lapsed.
//! - The change that ends a job with a webhook also adds a delivery. Deliveries are claimed as jobs
//!   are, outlive their jobs, and count against the bytes of the store.
//! - When a change returns, it is as durable as the store can make it, and only then may anybody
//!   read it.

use crate::error::{Error, Result};
use crate::executor::BoxFuture;
use crate::jobs::job::{AttemptStart, Job, Spec, State, Status};
use crate::jobs::store_time::StoreTime;
use crate::jobs::webhooks::{Delivery, DeliveryClaim, Settlement};
use crate::policy::plan::ModelName;
use crate::predict::{Payload, StepKey};
use crate::tenants::TenantTable;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::watch;

pub trait JobStore: Send + Sync {
    /// Returns true if jobs survive the process.
    fn is_durable(&self) -> bool;

    fn now(&self) -> StoreTime;

    /// Stores these new jobs in order, all or none. May be repeated with the same ids.
    ///
    /// # Errors
    /// `Overloaded` if the store has no room now, `TooLarge` if it never has, `Unavailable` if the
    /// store cannot be written.
    fn create(&self, submission: Submission, bounds: Bounds) -> BoxFuture<'_, Result<Created>>;

    /// Returns what a submission with this key has created before: `Existing` or `Conflict`.
    fn created(&self, key: IdempotencyKey) -> BoxFuture<'_, Result<Option<Created>>>;

    /// Begins an attempt of up to `limit` pending jobs, the longest waiting first.
    fn claim(&self, claim: Claim) -> BoxFuture<'_, Result<Vec<Claimed>>>;

    /// Extends leases, in the order given.
    fn renew(&self, leases: Vec<Lease>, time: Duration) -> BoxFuture<'_, Result<Vec<Renewal>>>;

    /// Replaces the status of a job that still has this revision. Success drops the input, and
    /// so does every end if jobs do not outlive the process; every state but `running` drops the
    /// lease.
    ///
    /// # Errors
    /// `TooLarge` if the result does not fit into the bounds. Every other change fits, so that each
    /// job can end.
    fn update(&self, update: Update, bounds: Bounds) -> BoxFuture<'_, Result<Change>>;

    /// Makes an update and, if it is done, a claim, in one change: a job that ends makes room for
    /// the next one, and the disk is written once for both.
    ///
    /// # Errors
    /// As those of `update`. Then neither is done; if it is `Unavailable`, both may be done.
    fn update_and_claim(
        &self,
        update: Update,
        claim: Claim,
        bounds: Bounds,
    ) -> BoxFuture<'_, Result<(Change, Vec<Claimed>)>>;

    /// Keeps the outputs of a step of a job that runs, until the job ends, in place of those that
    /// are kept under the same key.
    ///
    /// # Errors
    /// `TooLarge` if the outputs do not fit into the bounds.
    fn keep_step(&self, lease: Lease, step: KeptStep, bounds: Bounds) -> BoxFuture<'_, Result<Change>>;

    /// Returns the outputs that are kept of a step of a job that runs.
    fn kept_step<'a>(&'a self, lease: &'a Lease, key: StepKey) -> BoxFuture<'a, Result<Option<Payload>>>;

    fn read<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<Job>>>;

    /// Returns the input of a job that has not succeeded.
    fn input<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, Result<Option<Payload>>>;

    /// Returns the result of a job that has succeeded.
    fn result<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, Result<Option<Payload>>>;

    /// Lists jobs from the newest to the oldest. New jobs do not shift the pages of a listing that
    /// has begun.
    fn list<'a>(&'a self, filter: &'a Filter) -> BoxFuture<'a, Result<Page>>;

    /// Removes jobs that have ended, in one change: those that fit the filter, up to its limit. If
    /// `is_dry_run`, counts them only.
    fn purge(&self, filter: Filter, is_dry_run: bool) -> BoxFuture<'_, Result<Purged>>;

    /// Removes a job that still has this revision.
    fn delete(&self, id: Arc<str>, revision: u64) -> BoxFuture<'_, Result<Change>>;

    /// Removes up to `limit` jobs and idempotency keys that have expired. Returns how many.
    fn expire(&self, limit: usize) -> BoxFuture<'_, Result<usize>>;

    /// Returns pending jobs whose deadline has passed.
    fn overdue(&self, limit: usize) -> BoxFuture<'_, Result<Vec<Job>>>;

    /// Returns running jobs whose lease has lapsed.
    fn abandoned(&self, limit: usize) -> BoxFuture<'_, Result<Vec<Job>>>;

    /// Claims deliveries that are due, those of the receiver first that was served the longest ago.
    fn claim_deliveries(&self, claim: DeliveryClaim) -> BoxFuture<'_, Result<Vec<Delivery>>>;

    /// Records the outcome of a delivery, for its job as well. `Stale` if its claim has lapsed and
    /// another one was made.
    fn settle_delivery(&self, settlement: Settlement) -> BoxFuture<'_, Result<Change>>;

    /// Returns the first time after `after` at which a delivery is due; of all times, if that is
    /// `None`.
    fn next_delivery(&self, after: Option<StoreTime>) -> Option<StoreTime>;

    /// Returns when `expire`, `overdue`, `abandoned` or a job that waits for its time next has
    /// something to do; `None` if nothing is known.
    fn next_event(&self) -> Option<StoreTime>;

    /// Changes whenever there may be a job or a delivery to claim, or `next_event` or
    /// `next_delivery` is earlier.
    fn ready(&self) -> watch::Receiver<u64>;

    /// Returns when the job has another revision than this one, or does not exist.
    fn changed<'a>(&'a self, id: &'a str, revision: u64) -> BoxFuture<'a, Result<()>>;

    fn usage(&self) -> Usage;

    /// Sets the files of a damaged store aside, and begins with an empty one. Returns where they
    /// are.
    fn reset(&self) -> BoxFuture<'_, Result<String>> {
        Box::pin(async { Err(Error::unsupported("jobs are kept in memory; there is nothing to reset")) })
    }

    /// Closes the store. What follows is `Unavailable`.
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

/// Jobs that are submitted together.
#[derive(Clone, Debug)]
pub struct Submission {
    pub jobs: Vec<NewJob>,
    pub key: Option<IdempotencyKey>,
}

#[derive(Clone, Debug)]
pub struct NewJob {
    pub id: Arc<str>,
    pub spec: Arc<Spec>,
    pub input: Payload,
    /// How long after its submission the job may first run.
    pub delay: Duration,
}

/// Makes a repeated submission find the jobs of the first one.
#[derive(Clone, Debug)]
pub struct IdempotencyKey {
    /// The key that the client chose, with what separates it from the keys of others.
    pub name: Arc<str>,
    /// A hash of what was submitted.
    pub request: [u8; 32],
    /// For how long the store remembers the key, even if its jobs expire or are deleted earlier.
    pub time: Duration,
}

#[derive(Clone, Debug)]
pub enum Created {
    New(Vec<Job>),
    /// The ids of the jobs that the key, or these ids, belong to since an earlier submission.
    Existing(Vec<Arc<str>>),
    /// The key belongs to another request.
    Conflict,
}

/// Whether a host serves a model.
pub type ServedModels = Arc<dyn Fn(&ModelName) -> bool + Send + Sync>;

/// What a host can run now.
pub struct Claim {
    pub limit: usize,
    pub lease: Duration,
    /// The models that the host serves. `None` for any.
    pub models: Option<ServedModels>,
    /// Has the weights of tenants. `None` if all are equal.
    pub tenants: Option<Arc<TenantTable>>,
    pub start: AttemptStart,
}

/// A job that was claimed.
#[derive(Clone, Debug)]
pub struct Claimed {
    pub job: Job,
    /// The input, if the store had it at hand.
    pub input: Option<Payload>,
}

/// A claim that is held.
#[derive(Clone, Debug)]
pub struct Lease {
    pub id: Arc<str>,
    pub number: u64,
    pub fence: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    Held,
    /// The job has ended or was deleted.
    Ended,
    /// The lease had lapsed, and the job is pending again or claimed by another host.
    Lost,
}

pub struct Update {
    pub id: Arc<str>,
    pub number: u64,
    pub revision: u64,
    pub status: Status,
    pub result: Option<Payload>,
}

/// The outputs of a step of a pipeline.
#[derive(Clone, Debug)]
pub struct KeptStep {
    pub key: StepKey,
    pub outputs: Payload,
}

/// The limits of a store.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Jobs in all states.
    pub jobs: usize,
    /// Bytes of inputs and results, and of what else a job takes.
    pub bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Done,
    /// The job has another revision by now, or does not exist.
    Stale,
}

/// Which jobs a list has.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Empty for any.
    pub states: Vec<State>,
    pub model: Option<String>,
    /// A version of the model.
    pub version: Option<String>,
    /// Jobs that were created then or later.
    pub created_after: Option<SystemTime>,
    pub created_before: Option<SystemTime>,
    /// Jobs that have ended before.
    pub ended_before: Option<SystemTime>,
    /// The `next` of the previous page.
    pub after: Option<Cursor>,
    pub limit: usize,
}

/// Where a page begins. Only the store that made it can read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor(pub String);

/// A part of a list. It may have fewer jobs than the limit, because the work for one page is
/// bounded.
pub struct Page {
    pub jobs: Vec<Job>,
    /// `None` on the last page.
    pub next: Option<Cursor>,
}

/// The result of a purge of one page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purged {
    pub jobs: usize,
    /// `None` if the rest of the list has nothing to purge.
    pub next: Option<Cursor>,
}

/// What a store holds.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    /// Jobs in the order of `State::ALL`.
    pub jobs: [usize; State::ALL.len()],
    /// Bytes that count against `Bounds::bytes`.
    pub bytes: usize,
    /// Deliveries that are not settled.
    pub deliveries: usize,
    /// Whether changes are possible now.
    pub is_open: bool,
    /// Records that could not be read, since the process started.
    pub damaged: usize,
}
