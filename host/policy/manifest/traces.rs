//! `[server.traces]` as written.

use serde::Deserialize;
use std::path::PathBuf;

/// `[server.traces]`: where spans go, and which requests have them.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct ServerTraces {
    pub endpoint: Option<String>,
    /// `grpc` or `http`.
    pub protocol: Option<String>,
    /// From 0 to 1.
    pub sample: Option<f64>,
    pub follow_parent: Option<bool>,
    pub service_name: Option<String>,
    pub ca: Option<PathBuf>,
    pub headers_file: Option<PathBuf>,
}
