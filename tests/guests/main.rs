//! Plugins: the contract, the sandbox, calls between models, streaming, and every SDK.

#[path = "../support/mod.rs"]
mod support;

mod calls;
mod compiler;
mod contract;
mod copies;
mod custom;
mod custom_swaps;
mod held;
mod languages;
mod logs;
mod outbound;
mod plugin_files;
mod sandbox;
mod shapes;
mod side_by_side;
mod streaming;
mod streaming_calls;
mod streaming_faults;
mod streaming_python;
