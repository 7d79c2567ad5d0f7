//! The bank-churn example: its manifest with a plugin table of the caller's, and valid records.

use super::{Setup, example, patched, plugin};
use serde_json::Value;

/// Creates the setup; `extra` is added to `[plugins.churn]`.
pub fn setup(extra: &str) -> Setup {
    let manifest = format!(
        "[models.bankchurn]\npath = \"model.onnx\"\ntransformer = \"churn\"\n\n[models.bankchurn-raw]\n\
         path = \"model.onnx\"\n\n[plugins.churn]\npath = \"churn.wasm\"\n{extra}\n\n[plugins.churn.assets]\n\
         scaling = \"scaling.json\"\n"
    );
    Setup::new(&manifest)
        .file("model.onnx", example("bankchurn/model.onnx"))
        .file("scaling.json", example("bankchurn/scaling.json"))
        .file("churn.wasm", plugin("churn"))
}

/// Returns the plugin, patched to answer `LOW` instead of `low`.
pub fn loud() -> Vec<u8> {
    patched(&std::fs::read(plugin("churn")).expect("the plugin"), b"low", b"LOW")
}

/// Returns a record with a low risk.
pub fn low_risk() -> Value {
    let rows = rows();
    rows.into_iter().find(|(_, probability)| *probability < 0.05).expect("a loyal customer").0
}

/// Returns the committed rows with scikit-learn's probabilities.
pub fn rows() -> Vec<(Value, f64)> {
    let text = std::fs::read_to_string(example("bankchurn/rows.jsonl")).expect("the rows");
    let row = |line: &str| {
        let row: Value = serde_json::from_str(line).expect("a row");
        (row["record"].clone(), row["probability"].as_f64().expect("a probability"))
    };
    text.lines().map(row).collect()
}
