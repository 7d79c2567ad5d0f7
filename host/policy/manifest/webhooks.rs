//! `[jobs.webhooks]` as written.

use serde::Deserialize;
use std::path::PathBuf;
use toml::Spanned;

/// `[jobs.webhooks]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Webhooks {
    /// `[http://|https://]host[:port]`. The host can be `*.example.org`.
    pub allow_hosts: Vec<Spanned<String>>,
    /// One secret, or two while they are rotated.
    pub secrets: Vec<Spanned<SecretSource>>,
    /// Time from the beginning of an attempt to the status of its answer.
    pub timeout_ms: Option<Spanned<u64>>,
    /// How long after the end of its job a delivery is attempted.
    pub max_age_s: Option<Spanned<u64>>,
    /// Concurrent attempts, over all receivers.
    pub max_in_flight: Option<Spanned<usize>>,
    /// Certificates in PEM that are trusted in addition to the machine's own.
    pub ca_file: Option<Spanned<PathBuf>>,
}

/// Where a secret is: in one of these.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SecretSource {
    /// An environment variable.
    pub env: Option<String>,
    pub file: Option<PathBuf>,
}
