//! `[models]` and `[routing]` as written.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use toml::Spanned;

/// `[models."<name>:<version>"]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Model {
    /// An ONNX file.
    pub path: Option<Spanned<PathBuf>>,
    /// A plugin in the role `model`.
    pub plugin: Option<Spanned<String>>,
    /// A model on the remote of an executor of kind `triton`.
    pub remote: Option<Spanned<Remote>>,
    /// A graph of models, `[pipelines.<name>]`.
    pub pipeline: Option<Spanned<String>>,
    /// The model file is used only when it has this digest.
    pub sha256: Option<Spanned<String>>,
    /// Digests of its external data, by their path relative to the model's folder.
    pub data_sha256: BTreeMap<String, Spanned<String>>,
    /// A plugin in the role `transformer`.
    pub transformer: Option<Spanned<String>>,
    pub timeout_ms: Option<Spanned<u64>>,
    /// The most rows of one run, from one or more requests. 1 turns batching off.
    pub max_batch_size: Option<Spanned<usize>>,
    /// How long a request may wait for others to share its run.
    pub max_queue_delay_us: Option<Spanned<u64>>,
    /// From an output to a text file with a label for each of its elements, one per line.
    pub labels: BTreeMap<String, Spanned<PathBuf>>,
    /// `at-start` or `on-request`: whether the model is served before a client loads it.
    pub load: Option<Spanned<String>>,
    /// Whether a call that has sent nothing may run again after its instance crashed because of
    /// another call.
    pub idempotent: bool,
    /// Sample requests with expected answers, run before the model goes live.
    pub checks: Vec<Check>,
}

/// `remote` of a model: its name and version on the remote.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remote {
    pub name: Spanned<String>,
    /// The default is the remote's only version.
    pub version: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    pub file: Spanned<PathBuf>,
    /// Numbers may differ by this much.
    pub tolerance: Option<Spanned<f64>>,
}

/// `[routing.<model>]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Routing {
    /// From version to weight. A version's share is its weight over the sum of weights.
    pub weights: Spanned<BTreeMap<String, u32>>,
    /// `request-id` or `header:<name>`: what keeps a caller on one version.
    pub by: Option<Spanned<String>>,
}
