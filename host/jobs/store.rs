//! Where jobs are kept: what the rest of `jobs` needs of a store, and what each store must promise.
//!
//! A store knows no executor, no clock and no policy: times and bounds come with the calls. Several tasks call
//! it at once. Every change of a job names the revision that it was made from, so of two that race one wins
//! and the other is told; a key-value store with revisions, or a table in a transaction, can do that.

use super::job::{Job, State, Status};
use crate::error::Result;
use crate::executor::BoxFuture;
use std::time::SystemTime;

pub trait JobStore: Send + Sync {
    /// Keeps all of these new jobs, in their order, or none. Overloaded if there is no room for them.
    fn create(&self, jobs: Vec<Job>, bounds: Bounds) -> BoxFuture<'_, Result<()>>;

    fn read<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<Job>>>;

    /// Replaces the status of a job that still has this revision. With a final state its input is dropped.
    /// Too-large if a result does not fit into the bounds; everything else has room, so that every job can
    /// end.
    fn update<'a>(
        &'a self,
        id: &'a str,
        revision: u64,
        status: Status,
        bounds: Bounds,
    ) -> BoxFuture<'a, Result<Change>>;

    /// Jobs from the newest to the oldest. New ones do not move a page that was begun. After a restart,
    /// the jobs that have not ended are found by it.
    fn list<'a>(&'a self, filter: &'a Filter) -> BoxFuture<'a, Result<Page>>;

    /// Forgets a job that still has this revision.
    fn delete<'a>(&'a self, id: &'a str, revision: u64) -> BoxFuture<'a, Result<Change>>;

    /// Forgets what has expired by `now`, and says which states those jobs had.
    fn expire(&self, now: SystemTime) -> BoxFuture<'_, Result<Vec<State>>>;
}

/// The most that a store may hold.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Of all states.
    pub jobs: usize,
    /// Inputs and results, and what else a job takes.
    pub bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Done,
    /// The job has another revision by now, or is gone.
    Stale,
}

#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub state: Option<State>,
    pub model: Option<String>,
    /// The `next` of the page before.
    pub after: Option<u64>,
    pub limit: usize,
}

pub struct Page {
    pub jobs: Vec<Job>,
    /// Where the next page begins, if there is one.
    pub next: Option<u64>,
}
