//! What the interfaces share to run a request as a job: its options, its idempotency key, and the
//! replies.

mod accepted;
mod idempotency;
mod options;
mod result;

pub use accepted::{accepted, promise, replayed, url};
pub use idempotency::key;
pub use options::{BUDGETS, JobOptions, budgets, priority, query_options, query_priority};
pub use result::{bytes_reply, content_type, with_head_length};
