//! Where jobs are kept: the interface of a store, and the stores of this machine.

mod engine;
mod index;
mod interface;
mod job_queue;
mod memory;
mod outbox;
mod select;
mod watchers;

pub(in crate::jobs) use engine::{ClaimedJobs, Engine, Records, StoredKey, renew};
pub(in crate::jobs) use index::Index;
pub use interface::{
    Bounds, Change, Claim, Claimed, Created, Cursor, Filter, IdempotencyKey, JobStore, KeptStep, Lease,
    NewJob, Page, Purged, Renewal, Submission, Update, Usage,
};
pub use memory::MemoryStore;
pub(in crate::jobs) use select::{is_in, select, select_ended};
pub(in crate::jobs) use watchers::Watchers;
