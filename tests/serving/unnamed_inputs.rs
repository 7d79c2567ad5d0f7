//! Requests that do not name their input or show all of its shape: what is plain from the model's
//! metadata is taken.

use crate::support::onnx::{
    FLOAT, field, floats, graph, model as onnx_model, node, one_node, shaped, tensor,
};
use crate::support::{Answer, Host, Setup, model, plugin};
use serde_json::{Value, json};

const HEAD_LENGTH: &str = "inference-header-content-length";

fn raw(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// Sends a body with these headers to `/predict/m`.
fn post(host: &Host, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    host.client().request("POST", "/predict/m", headers, body)
}

#[test]
fn a_value_without_a_name_is_the_only_required_input() {
    // `x` is required, `bias` is 10 by default.
    let host = Setup::new("[models.m]\npath = \"m.onnx\"\n").file("m.onnx", model("optional")).start();
    let right = json!({"y": [11.0, 12.0]});
    assert_eq!(host.predict("m", json!([1, 2])).result(), right);
    assert_eq!(host.predict("m", json!({"x": [1, 2], "bias": [5]})).result(), json!({"y": [6.0, 7.0]}));
    for content_type in [
        "application/json",
        "application/json; charset=utf-8",
        "text/plain",
        "application/x-www-form-urlencoded",
    ] {
        for body in ["[1, 2]", "{\"x\": [1, 2]}"] {
            assert_eq!(
                post(&host, &[("content-type", content_type)], body.as_bytes()).result(),
                right,
                "{content_type}"
            );
        }
    }
    assert_eq!(post(&host, &[], b" [1, 2]").result(), right);
    for headers in
        [&[][..], &[("content-type", "application/octet-stream")], &[("content-type", "image/jpeg")]]
    {
        assert_eq!(post(&host, headers, &raw(&[1.0, 2.0])).result(), right, "{headers:?}");
    }
    post(&host, &[], &[0; 5]).refused(
        400,
        "invalid_input",
        &["5 bytes without JSON do not say which FP32 of shape [-1]"],
    );
    let answer =
        host.client().request("POST", "/v2/models/m/infer", &[(HEAD_LENGTH, "0")], &raw(&[1.0, 2.0]));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.body.ends_with(&raw(&[11.0, 12.0])));
}

#[test]
fn a_value_for_several_required_inputs_must_name_them() {
    let names: Vec<String> = (0..40).map(|number| format!("w{number}")).collect();
    let weights: Vec<Vec<u8>> = names.iter().map(|name| tensor(name, FLOAT, &[1], &floats(&[1.0]))).collect();
    let inputs = ["a", "b"].into_iter().chain(names.iter().map(String::as_str));
    let inputs: Vec<Vec<u8>> = inputs.map(|name| shaped(name, FLOAT, Some(&[1]))).collect();
    let mut fields = vec![node("Add", &["a", "b"], &["y"], &[])];
    fields.extend(weights.iter().map(|weight| field(5, weight)));
    let file = onnx_model(&graph(&fields, &inputs, &[shaped("y", FLOAT, Some(&[1]))]), &[]);
    let setup = Setup::new("[models.m]\npath = \"m.onnx\"\n");
    std::fs::write(setup.path("m.onnx"), file).unwrap();
    let host = setup.start();
    host.predict("m", json!([1])).refused(
        400,
        "invalid_input",
        &["the model has 2 required inputs and 40 optional ones, so data must be an object with their names: {\"a\": …, \"b\": …}"],
    );
    assert_eq!(host.predict("m", json!({"a": [1], "b": [2]})).result(), json!({"y": [3.0]}));
    let bytes = [("content-type", "application/octet-stream")];
    post(&host, &bytes, &[0; 8]).refused(501, "unsupported", &["requires 2 inputs, so they must be JSON"]);
}

#[test]
fn texts_are_bodies_as_they_are() {
    let host = Setup::new("[models.m]\npath = \"m.onnx\"\n").file("m.onnx", model("text")).start();
    let shape = host.get("/v2/models/m").json()["inputs"][0]["shape"].clone();
    for content_type in ["text/plain", "application/octet-stream"] {
        let answer = post(&host, &[("content-type", content_type)], b"[hello]");
        assert_eq!(answer.status, 200, "{shape}: {}", answer.text());
        assert!(answer.text().contains("[hello]"), "{}", answer.text());
    }
}

#[test]
fn inputs_of_plugins_that_may_be_left_out_do_not_count() {
    let manifest = "[plugins.s]\npath = \"s.wasm\"\n[plugins.s.config]\ninputs = \"a,b\"\noptional = \"b\"\n[models.m]\nplugin = \"s\"\n\
        [models.p]\npipeline = \"p\"\n[pipelines.p]\noutputs = { r = \"s.y\" }\n[pipelines.p.steps.s]\nmodel = \"m\"\n\
        in = { a = \"input.x\", b = \"input.z?\" }\n";
    let host = Setup::new(manifest).file("s.wasm", plugin("stepper")).start();
    assert_eq!(host.predict("m", json!([1, 2])).result(), json!({"y": [1.0, 2.0]}));
    assert_eq!(host.predict("p", json!([1, 2])).result(), json!({"r": [1.0, 2.0]}));
}

#[test]
fn empty_lists_have_the_dimensions_of_the_metadata_after_them() {
    let manifest = "[models.cache]\npath = \"cache.onnx\"\n[models.open]\npath = \"open.onnx\"\n[models.k]\npath = \"k.onnx\"\n";
    let setup = Setup::new(manifest);
    let write = |name: &str, dims: &[i64]| {
        let file = one_node("Identity", &[("x", FLOAT, Some(dims))], Some(dims));
        std::fs::write(setup.path(name), file).unwrap();
    };
    write("cache.onnx", &[1, 4, -1, 64]);
    write("open.onnx", &[-1, -1, -1]);
    write("k.onnx", &[-1, 3]);
    let host = setup.start();
    let empty = json!([[[], [], [], []]]);
    assert_eq!(host.predict("cache", empty.clone()).result(), json!({"y": empty}));
    assert_eq!(host.predict("k", json!([])).result(), json!({"y": []}));
    let infer = |model: &str, shape: Value, data: Value| {
        let body = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": shape, "data": data}]});
        host.post(&format!("/v2/models/{model}/infer"), body.to_string())
    };
    for (model, shape, data) in [
        ("cache", json!([1, 4, 0, 64]), empty.clone()),
        ("cache", json!([1, 4, 0, 64]), json!([])),
        ("open", json!([2, 0, 5]), json!([[], []])),
        ("open", json!([0, 2, 5]), json!([])),
    ] {
        let answer = infer(model, shape.clone(), data);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["outputs"][0]["shape"], shape);
    }
    assert_eq!(infer("open", json!([2, 0, 5]), json!([[], [], []])).status, 400);
    host.predict("open", json!([[], []])).refused(
        400,
        "invalid_input",
        &["expected shape [-1,-1,-1], got [2,0]: empty lists do not show the free dimensions after them"],
    );
    host.predict("cache", json!([[[], []]])).refused(
        400,
        "invalid_input",
        &["expected shape [1,4,-1,64], got [1,2,0]"],
    );
}
