//! Names of models and versions, and the rule for every name in a manifest.

use crate::fixed_routes::{route_at, vanishes};
use crate::metrics::UNKNOWN;
use std::sync::Arc;

/// `name:version`
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelName {
    pub name: Arc<str>,
    pub version: Arc<str>,
}

impl std::fmt::Display for ModelName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.name, self.version)
    }
}

/// The form of every name, for hints.
pub(super) const NAME_FORM: &str =
    "1 to 64 letters, digits, '.', '_' and '-', but not \".\" or \"..\", which clients remove from URLs";

/// Whether a text can name a model, a version, an executor, a plugin or a pipeline:
/// `[A-Za-z0-9._-]{1,64}`, and not a segment that vanishes from URLs.
pub fn is_name(text: &str) -> bool {
    !vanishes(text)
        && (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

/// Parses `name:version`. A name without a version is version 1.
pub fn parse_model_name(text: &str) -> Option<ModelName> {
    let (name, version) = text.split_once(':').unwrap_or((text, "1"));
    (is_name(name) && is_name(version)).then(|| ModelName { name: name.into(), version: version.into() })
}

/// Returns why no model can have this name although its form is right: something else has it.
pub(super) fn taken_by(name: &str) -> Option<String> {
    if name == UNKNOWN {
        return Some("the metrics count requests for unknown models under this name".into());
    }
    route_at(name).map(|route| format!("{route} is a route of the host, which hides the model"))
}

/// Cuts a name from a request before it goes into a message.
pub(super) fn bounded(name: &str) -> String {
    name.chars().take(80).collect()
}
