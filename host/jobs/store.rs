//! The interface of a job store, and what each store must guarantee.
//!
//! A store knows no executor, no clock and no policy: times and bounds are passed in. Several tasks
//! call it concurrently. Every change names the revision that it is based on, so of two concurrent
//! changes one wins and the other is refused. A key-value store with revisions, or a table with
//! transactions, can do that.

use super::job::{Job, State, Status};
use crate::error::Result;
use crate::executor::BoxFuture;
use std::time::SystemTime;

pub trait JobStore: Send + Sync {
    /// Stores these new jobs in order, all or none. Returns `Overloaded` if they do not fit.
    fn create(&self, jobs: Vec<Job>, bounds: Bounds) -> BoxFuture<'_, Result<()>>;

    fn read<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<Job>>>;

    /// Replaces the status of a job that still has this revision, and drops the input if the new
    /// state is final. Returns `TooLarge` if a result does not fit into the bounds; any other
    /// change fits, so that every job can end.
    fn update<'a>(
        &'a self,
        id: &'a str,
        revision: u64,
        status: Status,
        bounds: Bounds,
    ) -> BoxFuture<'a, Result<Change>>;

    /// Lists jobs from the newest to the oldest. New jobs do not shift the pages of a listing that
    /// has begun. A store that outlives the process finds its unfinished jobs this way after a
    /// restart.
    fn list<'a>(&'a self, filter: &'a Filter) -> BoxFuture<'a, Result<Page>>;

    /// Removes a job that still has this revision.
    fn delete<'a>(&'a self, id: &'a str, revision: u64) -> BoxFuture<'a, Result<Change>>;

    /// Removes the jobs that have expired by `now`, and returns their states.
    fn expire(&self, now: SystemTime) -> BoxFuture<'_, Result<Vec<State>>>;
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

#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub state: Option<State>,
    pub model: Option<String>,
    /// The `next` of the previous page.
    pub after: Option<u64>,
    pub limit: usize,
}

pub struct Page {
    pub jobs: Vec<Job>,
    /// Where the next page begins. `None` on the last page.
    pub next: Option<u64>,
}
