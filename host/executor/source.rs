//! Model sources: what executors load.

use super::callable::Callable;
use super::onnx::OnnxSource;
use crate::error::Error;
use crate::plugin::{PluginModel, StreamingModel};
use std::path::PathBuf;
use std::sync::Arc;

/// The source of a model.
pub enum Source {
    /// An ONNX file: the bytes that were read (and hashed) from it and from its external data.
    Onnx(OnnxSource),
    /// A plugin with the role `model`.
    Plugin(Arc<PluginModel>),
    /// A model of the executor's remote. Without a version, it is the only one that the remote has.
    Remote { name: String, version: Option<String>, reference: Option<ReferenceFile> },
    /// A plugin with the role `streaming-model`. If it is idempotent, a call may run again after
    /// another call's fault.
    Streaming { plugin: Arc<StreamingModel>, idempotent: bool },
    /// A pipeline: a graph of models.
    Pipeline(Arc<dyn Callable>),
}

/// An ONNX file that the manifest declares to be the same model as a remote one.
pub struct ReferenceFile {
    pub path: PathBuf,
    pub bytes: bytes::Bytes,
}

/// Returns the error of an executor that cannot run models of a remote.
pub(super) fn refuse_remote(executor: &str, kind: &str, model: &str) -> Error {
    Error::invalid(format!(
        "executor \"{executor}\" is of kind {kind} and runs models itself, but the model is \"{model}\" of a remote; name \
         an executor of kind triton"
    ))
}

/// Returns the error of an executor that cannot run pipelines.
pub(super) fn refuse_pipeline(executor: &str, kind: &str) -> Error {
    Error::invalid(format!(
        "executor \"{executor}\" is of kind {kind}, but the model is a pipeline; name an executor of kind pipeline, such as \
         \"pipeline\""
    ))
}
