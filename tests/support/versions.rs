//! A model whose versions differ in what their plugin's configuration lets them do.

use super::load::Shot;
use super::{Setup, plugin};
use serde_json::json;

/// The manifest of the model `fragile`; `config` makes the version (`fail_percent`, `slow_ms`),
/// `reload` is everything of `[reload]`.
pub fn manifest(config: &str, reload: &str) -> String {
    format!(
        "[models.fragile]\nplugin = \"hostile\"\ntransformer = \"hostile\"\n\n[plugins.hostile]\n\
         path = \"hostile.wasm\"\n\n[plugins.hostile.config]\n{config}\n\n{reload}\n"
    )
}

/// The first version, which is good.
pub fn setup(reload: &str) -> Setup {
    Setup::new(&manifest("release = \"1\"", reload)).file("hostile.wasm", plugin("hostile"))
}

pub fn shot() -> Shot {
    Shot::predict("fragile", &json!({"a": 1}))
}
