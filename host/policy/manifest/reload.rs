//! `[reload]` as written.

use serde::Deserialize;
use toml::Spanned;

/// `[reload]`
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Reload {
    /// `watch` or `manual`.
    pub mode: Option<Spanned<String>>,
    /// How long a file must be unchanged before it is read.
    pub quiet_ms: Option<Spanned<u64>>,
    /// The longest wait for a file that keeps changing.
    pub quiet_max_ms: Option<Spanned<u64>>,
    /// How often files are checked even if no event arrived.
    pub poll_ms: Option<Spanned<u64>>,
    /// Time for ONNX Runtime to load one session of a model.
    pub model_load_timeout_ms: Option<Spanned<u64>>,
    pub guard: Option<Guard>,
    pub canary: Option<Canary>,
}

/// `[reload.guard]`: when a new policy is rolled back automatically.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Guard {
    pub watch_ms: Option<Spanned<u64>>,
    pub min_requests: Option<Spanned<u64>>,
    pub max_fault_rate: Option<Spanned<f64>>,
    pub max_latency_ratio: Option<Spanned<f64>>,
    pub latency_floor_ms: Option<Spanned<f64>>,
}

/// `[reload.canary]`: how a new policy is introduced step by step.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Canary {
    /// Percent of the requests.
    pub steps: Option<Spanned<Vec<f64>>>,
    pub step_ms: Option<Spanned<u64>>,
    /// `request-id` or `header:<name>`: what keeps a caller on one side.
    pub by: Option<Spanned<String>>,
    /// Duration of the stage before the canary, in which copies of requests are answered and the
    /// answers dropped.
    pub shadow_ms: Option<Spanned<u64>>,
    pub shadow_share: Option<Spanned<f64>>,
    pub shadow_tolerance: Option<Spanned<f64>>,
    pub max_difference_rate: Option<Spanned<f64>>,
}
