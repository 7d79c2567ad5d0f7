//! `[plugins]` as written.

use crate::policy::secret::PluginConfig;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use toml::Spanned;

/// `[plugins.<name>]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plugin {
    pub path: Spanned<PathBuf>,
    /// The file is used only when it has this digest.
    pub sha256: Option<Spanned<String>>,
    pub memory_mb: Option<Spanned<usize>>,
    pub timeout_ms: Option<Spanned<u64>>,
    /// `fresh`, `reused` or `shared`.
    pub instances: Option<Spanned<String>>,
    /// Megabytes that one call may return to the host.
    pub result_mb: Option<Spanned<usize>>,
    pub handles: Option<Spanned<usize>>,
    /// Megabytes that one instance may hold in the host.
    pub held_mb: Option<Spanned<usize>>,
    /// Megabytes that all instances together may hold in the host.
    pub held_total_mb: Option<Spanned<usize>>,
    pub log_kb: Option<Spanned<usize>>,
    /// Kilobytes that the plugin may keep across requests.
    pub state_kb: Option<Spanned<usize>>,
    /// Calls after which a reused instance is replaced.
    pub calls_max: Option<Spanned<u64>>,
    /// Number of shared instances.
    pub replicas: Option<Spanned<usize>>,
    /// Calls in flight in one shared instance.
    pub max_in_flight: Option<Spanned<usize>>,
    /// How long a shared instance may compute without yielding.
    pub turn_ms: Option<Spanned<u64>>,
    /// How long a call may take to return after it was abandoned.
    pub grace_ms: Option<Spanned<u64>>,
    /// How long calls may take to end when their plugin is replaced.
    pub drain_ms: Option<Spanned<u64>>,
    /// Seconds of processor time to compile it.
    pub compile_s: Option<Spanned<u64>>,
    /// Megabytes of memory to compile it.
    pub compile_mb: Option<Spanned<usize>>,
    #[serde(default)]
    pub config: PluginConfig,
    #[serde(default)]
    pub assets: BTreeMap<String, Spanned<PathBuf>>,
    /// The servers that it may call.
    pub http: Option<Spanned<Http>>,
}

/// `[plugins.<name>.http]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// `[http://|https://]host[:port]`. The host can be `*.example.org`.
    pub allow_hosts: Vec<Spanned<String>>,
    /// Time from a call to the end of its answer.
    pub timeout_ms: Option<Spanned<u64>>,
    /// Size of a request's or an answer's body.
    pub max_body_kb: Option<Spanned<usize>>,
    /// HTTP calls during one call of the plugin.
    pub max_calls: Option<Spanned<u32>>,
    /// Concurrent HTTP calls.
    pub max_in_flight: Option<Spanned<usize>>,
    /// Certificates in PEM that are trusted in addition to the machine's own.
    pub ca_file: Option<Spanned<PathBuf>>,
}
