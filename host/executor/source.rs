//! What executors load.

use super::callable::Callable;
use super::onnx::OnnxSource;
use crate::error::Error;
use crate::plugin::{PluginModel, StreamingModel};
use std::path::PathBuf;
use std::sync::Arc;

/// Where a model comes from.
pub enum Source {
    /// An ONNX file, with the bytes that were read (and hashed) from it and from its external data.
    Onnx(OnnxSource),
    /// A plugin in the role `model`.
    Plugin(Arc<PluginModel>),
    /// A model of the remote that an executor stands for; without a version the only one that is there.
    Remote { name: String, version: Option<String>, reference: Option<ReferenceFile> },
    /// A plugin in the role `streaming-model`. A call of an idempotent one may run again after a fault beside it.
    Streaming { plugin: Arc<StreamingModel>, idempotent: bool },
    /// A graph of models.
    Pipeline(Arc<dyn Callable>),
}

/// An ONNX file that is said to be the same model as a remote one.
pub struct ReferenceFile {
    pub path: PathBuf,
    pub bytes: bytes::Bytes,
}

/// What every executor says of a remote model that it cannot run.
pub(super) fn refuse_remote(executor: &str, kind: &str, model: &str) -> Error {
    Error::invalid(format!(
        "executor \"{executor}\" is of kind {kind} and runs models itself, but the model is \"{model}\" of a remote; name \
         an executor of kind triton"
    ))
}

/// What every executor but `pipeline` says of a pipeline.
pub(super) fn refuse_pipeline(executor: &str, kind: &str) -> Error {
    Error::invalid(format!(
        "executor \"{executor}\" is of kind {kind}, but the model is a pipeline; name an executor of kind pipeline, such as \
         \"pipeline\""
    ))
}
