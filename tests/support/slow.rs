//! Requests that take long or never end: `loop.onnx`, `huge_node.onnx` and the plugin `hostile`.

use super::{Host, Setup, model, plugin};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Creates a setup with this manifest and `loop.onnx`, `huge_node.onnx` and `hostile.wasm`.
pub fn setup(manifest: &str) -> Setup {
    Setup::new(manifest)
        .file("loop.onnx", model("loop"))
        .file("huge_node.onnx", model("huge_node"))
        .file("hostile.wasm", plugin("hostile"))
}

/// Manifest tables of all three, with defaults only.
pub const MODELS: &str = r#"
[plugins.hostile]
path = "hostile.wasm"

[models.hostile]
plugin = "hostile"

[models.loop]
path = "loop.onnx"

[models.huge]
path = "huge_node.onnx"
"#;

/// One worker each for guests and for ONNX models, so that a busy one is observable.
pub const SINGLE: &str = r"
[executors.cpu]
workers = 1

[executors.onnx]
workers = 1
sessions = 1
";

/// Starts a host with these models and the caller's tables.
pub fn serve(tables: &str) -> Host {
    setup(&format!("{tables}\n{MODELS}")).start()
}

/// Returns tables with `hostile` as two plugins and models, named after their `instances`: `fresh`
/// and `reused`. `limits` goes into the tables of both plugins.
pub fn fresh_and_reused(limits: &str) -> String {
    let tables = |name: &str| {
        format!(
            "[plugins.{name}]\npath = \"hostile.wasm\"\ninstances = \"{name}\"\n{limits}\n\n\
             [models.{name}]\nplugin = \"{name}\"\n\n"
        )
    };
    tables("fresh") + &tables("reused")
}

/// Returns a request for `count` rounds of the model `loop`.
pub fn rounds(count: u64) -> Value {
    json!({"model": "loop", "data": {"n": [count]}})
}

/// More rounds than any test waits for.
pub const ENDLESS: u64 = 1_000_000_000;

/// Returns a request that makes the plugin `hostile` do `deed` in `predict`.
pub fn deed(model: &str, deed: &str) -> Value {
    json!({"model": model, "data": ["a", "b"], "parameters": {"do": deed, "at": "predict"}})
}

/// Adds the client's own timeout to `body`.
pub fn within(mut body: Value, timeout_ms: u64) -> Value {
    body["timeout_ms"] = timeout_ms.into();
    body
}

/// Returns how many rounds of the model `loop` take about `wanted` on this machine when nothing
/// else runs.
pub fn rounds_for(host: &Host, wanted: Duration) -> u64 {
    const SAMPLE: u64 = 10_000;
    let mut client = host.client();
    let sample = |client: &mut super::Client| {
        let started = Instant::now();
        assert_eq!(client.post("/predict", rounds(SAMPLE).to_string()).status, 200);
        started.elapsed()
    };
    // The fastest sample is the least disturbed by other load.
    let fastest = (0..5).map(|_| sample(&mut client)).min().expect("five samples");
    (wanted.as_secs_f64() / fastest.as_secs_f64() * SAMPLE as f64) as u64
}
