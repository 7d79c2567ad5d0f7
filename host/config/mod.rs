//! Settings that several layers read. Each default is written once, beside its field.
//!
//! The manifest's own types are in `policy::manifest`; these are the values derived from them.

pub mod descriptors;
mod engine;
mod listen_address;
pub mod outbound;
mod plugin_limits;
pub mod proxies;
mod threads;
mod traces;

pub use engine::{EngineConfig, default_cache_dir};
pub use listen_address::ListenAddress;
pub use plugin_limits::{CompileLimits, Instances, PluginLimits, SharedLimits};
pub use threads::{LOADER_NICE, at_low_priority, cores, lower_priority, never_preempt};
pub use traces::{TraceProtocol, TraceSettings};
