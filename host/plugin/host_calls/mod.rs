//! The functions of the host that guests may call, with one or two interfaces per file.

mod http;
mod metrics;
mod models;
mod state;
mod streaming;
mod streaming_http;
pub(super) mod streaming_log;
mod streaming_models;
mod types;
