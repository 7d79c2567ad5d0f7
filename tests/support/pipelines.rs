//! Manifests with pipelines of the plugin `stepper`, whose config says what it does.

use super::{Host, Setup, model, plugin};
use serde_json::{Value, json};

/// Returns the tables of a plugin and a model for each name, with this config.
pub fn steppers(models: &[(&str, &str)]) -> String {
    let tables = models.iter().map(|(name, config)| {
        format!(
            "[plugins.{name}]\npath = \"stepper.wasm\"\ninstances = \"reused\"\n[plugins.{name}.config]\n{config}\n\
             [models.{name}]\nplugin = \"{name}\"\n\n"
        )
    });
    tables.collect()
}

/// Creates a setup with `stepper.wasm`, `repeat.wasm` and `identity.onnx`.
pub fn setup(manifest: &str) -> Setup {
    Setup::new(manifest)
        .file("stepper.wasm", plugin("stepper"))
        .file("repeat.wasm", plugin("repeat"))
        .file("identity.onnx", model("identity"))
}

/// Serves these models, and a model `p` that is the pipeline `p`, whose tables are `pipeline`.
pub fn serve(models: &[(&str, &str)], pipeline: &str) -> Host {
    setup(&manifest(models, pipeline)).start()
}

pub fn manifest(models: &[(&str, &str)], pipeline: &str) -> String {
    format!("{}[models.p]\npipeline = \"p\"\n\n{pipeline}", steppers(models))
}

/// Returns the result of `p` for these elements of its one input.
pub fn ask(host: &Host, elements: &[f64]) -> Value {
    host.predict("p", json!({"x": elements})).result()
}

/// Returns the number of calls that a stepper counted.
pub fn calls(host: &Host, name: &str) -> f64 {
    host.metric(&format!("hostler_plugin_events_total{{name=\"calls\",plugin=\"{name}\"}}"))
}
