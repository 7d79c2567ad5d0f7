//! The functions and types of `wit/` in memory, for tests. Their names, arguments and results are
//! those that `component.rs` generates; `tests/contract.rs` compares them with the contract.

pub mod assets;
pub mod callables;
pub mod clock;
pub mod concurrent_http;
pub mod http;
pub mod http_types;
pub mod logging;
pub mod metrics;
pub mod models;
pub mod sinks;
pub mod state;
pub mod store;
pub mod streaming_models;
pub mod types;

/// The imports of the role `executor`.
pub mod executor {
    pub use super::{callables, models};
}

/// The imports of the role `streaming-model`, and its metadata.
pub mod streaming_model {
    pub use super::types::StreamingMetadata;
    pub use super::{clock, sinks, streaming_models as models};
}
