//! Models that return other shapes than they announce, behind plugins: a plugin is held to what it
//! has made itself.

use crate::support::onnx::{FLOAT, INT64, one_node};
use crate::support::{Answer, Host, Setup, plugin};
use serde_json::{Value, json};

/// Creates a setup with `m`, which announces `[1,-1]` and returns the shape in its input `s`.
fn setup(manifest: &str) -> Setup {
    let setup = Setup::new(manifest);
    let inputs = [("x", FLOAT, Some(&[-1][..])), ("s", INT64, Some(&[-1]))];
    std::fs::write(setup.path("m.onnx"), one_node("Reshape", &inputs, Some(&[1, -1]))).unwrap();
    setup
}

fn behind(executor: &str, config: &str) -> Host {
    let manifest = format!(
        "[models.m]\npath = \"m.onnx\"\n[executors.e]\nkind = \"custom\"\nplugin = \"{executor}\"\ninner = \"onnx\"\n\
         [plugins.{executor}]\npath = \"{executor}.wasm\"\ninstances = \"reused\"\n{config}\n[policy]\nm = \"e\"\n"
    );
    setup(&manifest).file(&format!("{executor}.wasm"), plugin(executor)).start()
}

fn ask(host: &Host, parameters: Value) -> Answer {
    let body = json!({"model": "m", "data": {"x": [1, 2, 3, 4], "s": [2, 2]}, "parameters": parameters});
    host.post("/predict", body.to_string())
}

fn right() -> Value {
    json!({"y": [[1.0, 2.0], [3.0, 4.0]]})
}

#[test]
fn what_a_model_returned_is_not_the_claim_of_an_executor() {
    for executor in ["pass", "retry", "hedge", "hedge-js"] {
        let host = behind(executor, "");
        assert_eq!(ask(&host, json!({})).result(), right(), "{executor}");
        let items = json!({"model": "m", "items": [{"data": {"x": [1, 2, 3, 4], "s": [2, 2]}}, {"data": {"x": [1], "s": [1, 1]}}]});
        let answer = host.post("/predict/batch", items.to_string()).json();
        assert_eq!(answer["results"], json!([right(), {"y": [[1.0]]}]), "{executor}: {answer}");
    }
}

#[test]
fn a_cached_answer_is_still_the_models() {
    let host = behind("hostile-executor", "");
    for way in ["cache", "cache", "hold", "hold"] {
        assert_eq!(ask(&host, json!({"do": way})).result(), right(), "{way}");
    }
}

#[test]
fn what_an_executor_made_itself_is_held_to_the_announced_shape() {
    let host = behind("hostile-executor", "");
    let error = ask(&host, json!({"do": "reshape"})).refused(
        500,
        "failed",
        &["which the model's metadata does not declare"],
    );
    assert_eq!(error["plugin"], "hostile-executor");
}

#[test]
fn what_a_model_returned_is_not_the_claim_of_a_plugin_that_passes_it_on() {
    // `flat` announces one dimension and returns two; so does `caller`, which passes them on.
    let manifest = "[models.flat]\npath = \"flat.onnx\"\n[models.through]\nplugin = \"caller\"\n\
                    [plugins.caller]\npath = \"caller.wasm\"\n[plugins.caller.config]\nto = \"flat\"\n";
    let setup = Setup::new(manifest).file("caller.wasm", plugin("caller"));
    let input = [("x", FLOAT, Some(&[-1][..]))];
    std::fs::write(setup.path("flat.onnx"), one_node("Flatten", &input, Some(&[-1]))).unwrap();
    let host = setup.start();
    let expected = json!({"y": [[1.0], [2.0], [3.0]]});
    assert_eq!(host.predict("flat", json!([1, 2, 3])).result(), expected);
    assert_eq!(host.predict("through", json!([1, 2, 3])).result(), expected);
}
