//! Executors: named places that load models and admit calls.
//!
//! An executor loads models as callables. It queues, starts or refuses (as Overloaded) each call
//! immediately. One worker runs preprocess, callable and postprocess of a call.

mod batching;
mod call;
mod callable;
mod custom;
mod onnx;
pub mod pipeline;
mod plugin_callable;
mod pool_executor;
mod runs;
mod scheduler;
mod sink;
mod source;
mod status;
mod streaming_callable;
mod streaming_calls;
mod target;
mod traits;
mod triton;

pub use batching::{Batching, request_rows};
pub use call::{Call, Precedence, Submit, run_alone};
pub use callable::{BoxFuture, CallProfile, Callable};
pub use custom::{CustomConfig, CustomExecutor, OnFailure};
pub use onnx::{Device, ExternalFiles, LoadLimit, OnnxSource, SessionConfig, runtime, unload};
pub use pipeline::{PipelineExecutor, PipelineModel};
pub use plugin_callable::PluginCallable;
pub use pool_executor::{PoolExecutor, PoolKind};
pub use runs::{Runs, RunsOfSize};
pub use scheduler::{GuestTask, PoolConfig, check_batching};
pub use sink::Sink;
pub use source::{ReferenceFile, Source};
pub use status::Status;
pub use streaming_callable::StreamingCallable;
pub use target::ModelTarget;
pub use traits::{Executor, export_gauges};
pub use triton::{TlsFiles, TritonConfig, TritonExecutor};
