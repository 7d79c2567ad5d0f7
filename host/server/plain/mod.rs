//! The plain interface: `/predict` in JSON, `/jobs`, and what a load balancer or a person looks up.

mod body_input;
mod envelope;
pub(super) mod info;
pub(super) mod jobs;
pub(super) mod predict;
pub(super) mod request;
pub(super) mod stream;

pub use super::state::Public;
