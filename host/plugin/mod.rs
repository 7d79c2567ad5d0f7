//! Plugins: WebAssembly components that the host loads, limits and calls.
//!
//! A plugin has one or more roles. Each call has a deadline and a budget. A guest that traps,
//! exceeds a limit or waits too long loses its instance and fails one request. This module knows
//! neither policies nor protocols.

mod artifact;
mod bindings;
mod cache;
mod call_limit;
pub mod compiler;
mod component;
mod component_info;
mod drain_timeouts;
mod engine;
mod epoch;
mod executor;
mod guest_ticks;
mod guest_trace;
mod guest_values;
mod handles;
mod host_calls;
mod host_errors;
mod instance_pool;
mod invocations;
mod linker;
mod log;
mod log_tail;
mod memory;
mod model;
mod optional_inputs;
mod outbound;
mod plugin_metrics;
mod plugin_state;
mod pool_limit;
mod resources;
mod retained;
mod source_lines;
mod spec;
mod store_data;
mod streaming;
mod transformer;
mod wasmtime_config;

pub use component::Plugin;
pub use component_info::{CONTRACT_VERSION, ComponentInfo, Role};
pub use drain_timeouts::{DrainTimeout, DrainTimeouts};
pub use engine::Engine;
pub use executor::{GuestAnswer, PluginExecutor};
pub use guest_ticks::{share_this_thread, with_ticks};
pub use log_tail::{LaterLines, LogLine, LogTail};
pub use model::PluginModel;
pub use plugin_metrics::PluginMetrics;
pub use spec::PluginSpec;
pub use streaming::{EventLoopGuards, Permit, ReplicaStatus, StreamingModel};
pub use transformer::{Transformer, TransformerSession};
