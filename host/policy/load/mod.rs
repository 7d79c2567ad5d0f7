//! From a plan to the content of a policy: starts executors, compiles plugins, loads models, runs
//! checks.
//!
//! This is the only place that knows concrete executors. Whatever an earlier policy already has is
//! reused if its content is the same, so that a reload costs only what changed.

mod compare;
mod executors;
mod faults;
mod loaded_parts;
mod loader;
mod onnx_source;
mod order;
mod phases;
mod pipelines;
mod plugins;
mod routes;
mod step_key;
mod tenants;
mod webhooks;
mod without;

pub use faults::LoadFaults;
pub(super) use loaded_parts::LoadedParts;
pub use loader::Loader;
pub use phases::Phases;
