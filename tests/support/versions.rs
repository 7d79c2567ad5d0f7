//! A model whose versions differ in the configuration of their plugin.

use super::load::Shot;
use super::{Setup, plugin};
use serde_json::json;

/// Returns the manifest of the model `fragile`; `config` distinguishes the version (`fail_percent`,
/// `slow_ms`), `reload` is the content of `[reload]`.
pub fn manifest(config: &str, reload: &str) -> String {
    format!(
        "[models.fragile]\nplugin = \"hostile\"\ntransformer = \"hostile\"\n\n[plugins.hostile]\n\
         path = \"hostile.wasm\"\n\n[plugins.hostile.config]\n{config}\n\n{reload}\n"
    )
}

/// Creates a setup with the first version, which is good.
pub fn setup(reload: &str) -> Setup {
    Setup::new(&manifest("release = \"1\"", reload)).file("hostile.wasm", plugin("hostile"))
}

pub fn shot() -> Shot {
    Shot::predict("fragile", &json!({"a": 1}))
}
