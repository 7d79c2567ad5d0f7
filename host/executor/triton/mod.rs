//! The `triton` executor: calls models of a Triton server, or of another server of the Open
//! Inference Protocol, over gRPC.

mod config;
mod link;
mod metadata;
mod model;
mod onnx_file;
mod status;
mod triton_executor;
mod wire;

pub use config::{TlsFiles, TritonConfig};
pub use triton_executor::TritonExecutor;
