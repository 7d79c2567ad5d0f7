//! Hosts with model control, and its requests over HTTP.

use super::{Answer, Host, Setup, model};
use serde_json::{Value, json};

/// `gather` accepts batches, `plain` does not; both use the same file. `loop` runs until it is
/// stopped.
pub const MODELS: &str = r#"
[executors.onnx]
workers = 1
sessions = 1

[models.loop]
path = "loop.onnx"

[models.gather]
path = "gather.onnx"
max_batch_size = 8
max_queue_delay_us = 100

[models.plain]
path = "gather.onnx"
timeout_ms = 5000
"#;

pub fn setup(server: &str, more: &str) -> Setup {
    let manifest = format!("[server]\n{server}\n{MODELS}\n{more}");
    Setup::new(&manifest).file("loop.onnx", model("loop")).file("gather.onnx", model("gather"))
}

/// Starts a host where clients may load and unload models.
pub fn controlled(more: &str) -> Host {
    setup("model_control = \"explicit\"", more).start()
}

pub fn config(host: &Host, model: &str) -> Value {
    ok(host.get(&format!("/v2/models/{model}/config")))
}

/// Returns the statistics of a model with one version.
pub fn statistics(host: &Host, model: &str) -> Value {
    ok(host.get(&format!("/v2/models/{model}/stats")))["model_stats"][0].clone()
}

pub fn ok(answer: Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

pub fn load(host: &Host, model: &str, config: Option<&Value>) -> Answer {
    let parameters = config.map_or(json!({}), |config| json!({"config": config.to_string()}));
    load_with(host, model, &parameters)
}

pub fn load_with(host: &Host, model: &str, parameters: &Value) -> Answer {
    let body = json!({"parameters": parameters}).to_string();
    host.post(&format!("/v2/repository/models/{model}/load"), body)
}

pub fn unload(host: &Host, model: &str) -> Answer {
    host.post(&format!("/v2/repository/models/{model}/unload"), "")
}

/// Checks that the answer is 200 without a body.
pub fn done(answer: &Answer) {
    assert_eq!((answer.status, answer.text().as_str()), (200, ""));
}

pub fn is_ready(host: &Host, model: &str) -> bool {
    host.get(&format!("/v2/models/{model}/ready")).status == 200
}

pub fn index(host: &Host, body: &str) -> Vec<(String, String)> {
    let index = ok(host.post("/v2/repository/index", body));
    let entry = |entry: &Value| {
        let text = |key: &str| entry[key].as_str().unwrap_or_else(|| panic!("no {key} in {entry}"));
        assert_eq!(text("reason"), if text("state") == "UNAVAILABLE" { "unloaded" } else { "" });
        (format!("{}:{}", text("name"), text("version")), text("state").to_owned())
    };
    index.as_array().expect("a list").iter().map(entry).collect()
}

/// Checks an error in the protocol's form.
pub fn refused(answer: &Answer, status: u16, parts: &[&str]) {
    assert_eq!(answer.status, status, "{}", answer.text());
    let json = answer.json();
    let message = json["error"].as_str().unwrap_or_else(|| panic!("{json} is no error"));
    for part in parts {
        assert!(message.contains(part), "{message}\nlacks {part}");
    }
}
