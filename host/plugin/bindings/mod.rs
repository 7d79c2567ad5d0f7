//! Bindings generated from `wit/`: the interfaces that the host implements and the exports of each
//! role.

pub mod executor;
pub mod model;
pub mod optional_inputs;
pub mod outbound;
pub mod streaming;
pub mod streaming_outbound;
pub mod transformer;

pub use self::{
    outbound::hostler::plugin::{http, http_types},
    streaming_outbound::hostler::concurrent::http as concurrent_http,
};
pub use executor::hostler::plugin::{callables, models};
pub use streaming::hostler::concurrent::{clock, models as concurrent_models, sinks};
pub use transformer::hostler::plugin::{assets, metrics, state, types};
pub use transformer::wasi::{config::store, logging::logging};
