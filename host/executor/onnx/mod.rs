//! ONNX models: sessions of ONNX Runtime, the checks before a run, and the release of their memory.

mod division;
mod load_limit;
mod own_stack;
mod plain_message;
mod ranks;
mod run_error;
pub mod runtime;
mod session;
mod source;
mod strings;
pub mod unload;
mod unsafe_ops;
mod values;

pub use load_limit::LoadLimit;
pub(super) use session::OnnxModel;
pub use session::{Device, SessionConfig};
pub use source::{ExternalFiles, OnnxSource};
