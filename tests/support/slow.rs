//! Requests that take their time or never end: `loop.onnx`, `huge_node.onnx` and the plugin
//! `hostile`.

use super::{Host, Setup, model, plugin};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A manifest with `loop.onnx`, `huge_node.onnx` and `hostile.wasm` beside it.
pub fn setup(manifest: &str) -> Setup {
    Setup::new(manifest)
        .file("loop.onnx", model("loop"))
        .file("huge_node.onnx", model("huge_node"))
        .file("hostile.wasm", plugin("hostile"))
}

/// All three, with nothing that is not the default.
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

/// One worker each for guests and for ONNX models, so that one which is not free shows.
pub const SINGLE: &str = r"
[executors.cpu]
workers = 1

[executors.onnx]
workers = 1
sessions = 1
";

/// A host with these models and the tables of the caller.
pub fn serve(tables: &str) -> Host {
    setup(&format!("{tables}\n{MODELS}")).start()
}

/// The plugin `hostile` as two plugins and models, named after their `instances`: `fresh` and
/// `reused`. `limits` goes into the tables of both plugins.
pub fn fresh_and_reused(limits: &str) -> String {
    let tables = |name: &str| {
        format!(
            "[plugins.{name}]\npath = \"hostile.wasm\"\ninstances = \"{name}\"\n{limits}\n\n\
             [models.{name}]\nplugin = \"{name}\"\n\n"
        )
    };
    tables("fresh") + &tables("reused")
}

/// The body of a request for so many rounds of the model `loop`.
pub fn rounds(count: u64) -> Value {
    json!({"model": "loop", "data": {"n": [count]}})
}

/// More rounds than any test waits for.
pub const ENDLESS: u64 = 1_000_000_000;

/// The body of a request that lets the plugin `hostile` do `deed` in `predict`.
pub fn deed(model: &str, deed: &str) -> Value {
    json!({"model": model, "data": ["a", "b"], "parameters": {"do": deed, "at": "predict"}})
}

/// `body` with the caller's own timeout.
pub fn within(mut body: Value, timeout_ms: u64) -> Value {
    body["timeout_ms"] = timeout_ms.into();
    body
}

/// How many rounds of the model `loop` take about `wanted` on this machine, when nothing else runs.
pub fn rounds_for(host: &Host, wanted: Duration) -> u64 {
    const SAMPLE: u64 = 10_000;
    let mut client = host.client();
    let sample = |client: &mut super::Client| {
        let started = Instant::now();
        assert_eq!(client.post("/predict", rounds(SAMPLE).to_string()).status, 200);
        started.elapsed()
    };
    // The fastest of some is the one that nobody disturbed.
    let fastest = (0..5).map(|_| sample(&mut client)).min().expect("five samples");
    (wanted.as_secs_f64() / fastest.as_secs_f64() * SAMPLE as f64) as u64
}
