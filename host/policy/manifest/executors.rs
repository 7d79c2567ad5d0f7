//! `[executors]` as written.

use serde::Deserialize;
use std::path::PathBuf;
use toml::Spanned;

/// `[executors.<name>]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Executor {
    /// `thread-pool`, `onnx`, `triton`, `custom` or `pipeline`.
    pub kind: Option<Spanned<String>>,
    pub workers: Option<Spanned<usize>>,
    pub queue: Option<Spanned<usize>>,
    /// `cpu`, `cuda` or `cuda:<index>`.
    pub device: Option<Spanned<String>>,
    /// Copies of each model: concurrent runs of one model.
    pub sessions: Option<Spanned<usize>>,
    /// Threads of one run.
    pub intra_threads: Option<Spanned<usize>>,
    /// Kind `custom`: a plugin in the role `executor`.
    pub plugin: Option<Spanned<String>>,
    /// Kind `custom`: the executor that the plugin calls.
    pub inner: Option<Spanned<String>>,
    /// Kind `custom`: `fail` or `inner`, for a call whose guest trapped or exceeded its time.
    pub on_failure: Option<Spanned<String>>,
    /// Kinds `custom` and `triton`: OS threads that guests and calls share.
    pub threads: Option<Spanned<usize>>,
    /// Kind `triton`: the address of its gRPC, such as `127.0.0.1:8001`.
    pub url: Option<Spanned<String>>,
    /// Kind `triton`: connections that calls are spread over.
    pub channels: Option<Spanned<usize>>,
    pub connect_timeout_ms: Option<Spanned<u64>>,
    /// Kind `triton`: silence after which a connection with calls in flight is checked.
    pub keepalive_ms: Option<Spanned<u64>>,
    /// Kind `triton`: the largest request or answer.
    pub max_message_mb: Option<Spanned<usize>>,
    pub tls: Option<Spanned<Tls>>,
}

/// `tls` of an executor of kind `triton`: files in PEM.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// Authorities that may sign the remote's certificate. The default is those that this machine
    /// trusts.
    pub ca: Option<Spanned<PathBuf>>,
    /// The host's own certificate, with `key`.
    pub cert: Option<Spanned<PathBuf>>,
    pub key: Option<Spanned<PathBuf>>,
    /// The name in the remote's certificate, if it is not that of the url.
    pub domain: Option<String>,
}
