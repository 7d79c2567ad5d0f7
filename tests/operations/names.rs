//! Tests names that would collide with a route, vanish from a URL, or share a label of a metric:
//! they are refused with the reason, and similar names work everywhere.

use crate::support::control::load;
use crate::support::{Setup, model, plugin, replace};
use serde_json::json;

fn setup(manifest: &str) -> Setup {
    Setup::new(manifest).file("m.onnx", model("plus1")).file("echo.wasm", plugin("echo"))
}

#[test]
fn names_that_something_else_has_are_refused_with_the_reason() {
    for (manifest, parts) in [
        ("[models.batch]\npath = \"m.onnx\"\n", &["hostler.toml:1:9", "/predict/batch is a route"][..]),
        ("[models.\"stream:7\"]\npath = \"m.onnx\"\n", &["hostler.toml:1:9", "/predict/stream is a route"]),
        ("[models.async]\npath = \"m.onnx\"\n", &["\"async\"", "/predict/async is a route"]),
        (
            "[models.stats]\npath = \"m.onnx\"\n",
            &["no model can be named \"stats\"", "/v2/models/stats is a route", "\"stats-model\""],
        ),
        ("[models._unknown]\npath = \"m.onnx\"\n", &["\"_unknown\"", "metrics"]),
        ("[models.\".\"]\npath = \"m.onnx\"\n", &["\".\" is not a model's name", "remove from URLs"]),
        ("[models.\"..\"]\npath = \"m.onnx\"\n", &["\"..\" is not a model's name", "remove from URLs"]),
        ("[models.\"m:..\"]\npath = \"m.onnx\"\n", &["\"m:..\" is not a model's name", "remove from URLs"]),
        ("[executors.\"..\"]\nkind = \"onnx\"\n", &["\"..\" is not a name: [executors]", "from URLs"]),
        ("[plugins.\".\"]\npath = \"echo.wasm\"\n", &["\".\" is not a name: [plugins]", "from URLs"]),
        (
            "[pipelines.\"..\"]\noutputs = { y = \"a.y\" }\n[pipelines.\"..\".steps.a]\nmodel = \"m\"\n",
            &["\"..\" is not a name: [pipelines]", "from URLs"],
        ),
    ] {
        let (code, out, err) = setup(manifest).run(&["check", "hostler.toml", "--quick"]);
        assert_eq!(code, 1, "{manifest}\n{out}{err}");
        for part in parts {
            assert!(err.contains(part), "{manifest}\n{err}\nlacks {part}");
        }
    }
}

#[test]
fn similar_names_can_be_called_by_every_route() {
    let names = ["batches", "async1", "Stats", "stream.", "...", "versions", "models", "ready", "infer"];
    let tables = names.map(|name| format!("[models.\"{name}:stats\"]\npath = \"m.onnx\"\n"));
    let host = setup(&tables.concat()).start();
    let tensors = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1.0]}]});
    for name in names {
        assert_eq!(host.predict(name, json!([1.0])).result()["y"], json!([2.0]), "{name}");
        let answer = host.post(&format!("/predict/{name}"), "[1.0]");
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
        for path in [format!("/v2/models/{name}"), format!("/v2/models/{name}/versions/stats")] {
            assert_eq!(host.get(&path).json()["name"], json!(name), "{path}");
            assert_eq!(host.get(&format!("{path}/stats")).json()["model_stats"][0]["name"], json!(name));
            let answer = host.post(&format!("{path}/infer"), tensors.to_string());
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        }
    }
}

#[test]
fn a_reload_and_a_load_by_a_client_refuse_them_too() {
    let manifest = "[server]\nmodel_control = \"explicit\"\n[models.m]\npath = \"m.onnx\"\n";
    let host = setup(manifest).start();
    let answer = load(&host, "stats", None);
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert!(answer.text().contains("/v2/models/stats is a route"), "{}", answer.text());

    let with_batch = format!("{manifest}[models.batch]\npath = \"m.onnx\"\n");
    replace(&host.path("hostler.toml"), with_batch.as_bytes());
    let policy = host.wait_for_outcome("rejected");
    let errors = policy["last_reload"]["errors"].to_string();
    assert!(errors.contains("/predict/batch is a route"), "{errors}");
    assert_eq!(host.predict("m", json!([1.0])).result()["y"], json!([2.0]));
}
