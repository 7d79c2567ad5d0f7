//! Names of models and versions, and the rule for every name in a manifest.

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

/// Whether a text can name a model, a version, an executor or a plugin: `[A-Za-z0-9._-]{1,64}`.
pub fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

/// Parses `name:version`. A name without a version is version 1.
pub fn parse_model_name(text: &str) -> Option<ModelName> {
    let (name, version) = text.split_once(':').unwrap_or((text, "1"));
    (is_name(name) && is_name(version)).then(|| ModelName { name: name.into(), version: version.into() })
}

/// Cuts a name from a request before it goes into a message.
pub(super) fn bounded(name: &str) -> String {
    name.chars().take(80).collect()
}
