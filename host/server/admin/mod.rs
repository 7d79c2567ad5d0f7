//! The admin listener: the policy, reloads, rollbacks, metrics, and the page for operators. It is
//! on a loopback address unless the manifest names another.

pub(super) mod administration;
mod endpoint;
mod jobs;
mod pipelines;
mod plugin_log;
mod policy;
mod query;
mod reloads;
mod routes;
pub(super) mod state;
mod status;

pub use state::{Admin, LOG_WAITS_MAX};
