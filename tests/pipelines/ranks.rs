//! Pipelines of models without shapes and of scalars: what is not known at load is checked when a
//! request runs.

use crate::support::onnx::{FLOAT, one_node};
use crate::support::{Setup, model};
use serde_json::json;

const MODELS: &str = "[models.any]\npath = \"any.onnx\"\n[models.scalar]\npath = \"scalar.onnx\"\n\
    [models.matrix]\npath = \"matrix.onnx\"\n[models.wide]\npath = \"wide.onnx\"\n";

/// Creates a setup with `any` (no shape), `scalar` ([]), `matrix` ([-1,-1]), `wide` ([1,3] by its
/// signature, whatever it returns), and the pipeline `p`.
fn setup(pipeline: &str) -> Setup {
    let setup = Setup::new(&format!("{MODELS}[models.p]\npipeline = \"p\"\n{pipeline}"));
    let write = |name: &str, bytes: Vec<u8>| std::fs::write(setup.path(name), bytes).unwrap();
    write("any.onnx", one_node("Relu", &[("x", FLOAT, None)], None));
    write("scalar.onnx", one_node("Identity", &[("x", FLOAT, Some(&[]))], Some(&[])));
    write("wide.onnx", one_node("Identity", &[("x", FLOAT, Some(&[1, 3]))], Some(&[1, 3])));
    setup.file("matrix.onnx", model("identity"))
}

#[test]
fn an_unknown_rank_matches_every_shape_at_load_and_is_checked_at_run() {
    let host = setup(
        "[pipelines.p]\noutputs = { y = \"last.y\" }\n\
         [pipelines.p.steps.first]\nmodel = \"any\"\nin = { x = \"input.x\" }\n\
         [pipelines.p.steps.last]\nmodel = \"matrix\"\nin = { x = \"first.y\" }\n",
    )
    .start();
    assert_eq!(host.get("/v2/models/p").json()["inputs"][0]["rank"], "any");
    assert_eq!(host.predict("p", json!([[1, 2]])).result(), json!({"y": [[1.0, 2.0]]}));
    let error = host.predict("p", json!([1, 2])).error();
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("step \"last\"") && message.contains("expected shape [-1,-1], got [2]"),
        "{error}"
    );
    assert_eq!(error["plugin"], json!(null));
}

#[test]
fn an_input_is_narrowed_by_the_step_that_knows_its_shape() {
    let host = setup(
        "[pipelines.p]\noutputs = { y = \"a.y\", z = \"b.y\", w = \"c.y\" }\n\
         [pipelines.p.steps.a]\nmodel = \"any\"\nin = { x = \"input.x\" }\n\
         [pipelines.p.steps.b]\nmodel = \"wide\"\nin = { x = \"input.x\" }\n\
         [pipelines.p.steps.c]\nmodel = \"scalar\"\nin = { x = \"input.s\" }\n",
    )
    .start();
    let metadata = host.get("/v2/models/p").json();
    assert_eq!(metadata["inputs"][0], json!({"name": "x", "datatype": "FP32", "shape": [1, 3]}));
    host.predict("p", json!({"x": [1, 2, 3], "s": 1})).refused(
        400,
        "invalid_input",
        &["expected shape [1,3], got [3]"],
    );
    let answer = host.predict("p", json!({"x": [[1, 2, 3]], "s": [[4]]})).result();
    assert_eq!(answer, json!({"y": [[1.0, 2.0, 3.0]], "z": [[1.0, 2.0, 3.0]], "w": [[4.0]]}));
}

#[test]
fn a_declared_input_can_have_any_rank_and_conditions_look_at_it() {
    let pipeline = |when: &str| {
        format!(
            "[pipelines.p]\ninputs = {{ x = \"FP32[...]\", s = \"FP32[]\" }}\noutputs = {{ y = \"a.y?\" }}\n\
             [pipelines.p.steps.a]\nmodel = \"any\"\nwhen = '{when}'\nin = {{ x = \"input.x\" }}\n"
        )
    };
    let host = setup(&pipeline("input.x[0] > 1 && input.s < 5")).start();
    assert_eq!(host.predict("p", json!({"x": [2], "s": 1})).result(), json!({"y": [2.0]}));
    assert_eq!(host.predict("p", json!({"x": [2], "s": [[1]]})).result(), json!({"y": [2.0]}));
    assert_eq!(host.predict("p", json!({"x": [0], "s": 1})).result(), json!({}));
    host.predict("p", json!({"x": [[2]], "s": 1})).refused(
        400,
        "invalid_input",
        &["input.x has shape [1,1]"],
    );
    let (code, _, shown) =
        setup(&pipeline("size(input.x) > 1 && input.s < 5")).run(&["check", "hostler.toml"]);
    assert_eq!(code, 0, "{shown}");
    let (code, _, error) = setup(&pipeline("any(input.x) && input.s < 5")).run(&["check", "hostler.toml"]);
    assert!(code == 1 && error.contains("any() takes BOOL, and input.x is FP32"), "{error}");
}

#[test]
fn rows_of_an_unknown_rank_are_those_of_the_tensor() {
    let host = setup(
        "[pipelines.p]\nrows = \"each\"\noutputs = { y = \"a.y\" }\n\
         [pipelines.p.steps.a]\nmodel = \"any\"\nin = { x = \"input.x\" }\n",
    )
    .start();
    for data in [json!([1.0, 2.0]), json!([[[1.0]], [[2.0]]])] {
        assert_eq!(host.predict("p", data.clone()).result(), json!({"y": data}));
    }
    host.predict("p", json!(1.0)).refused(
        400,
        "invalid_input",
        &["input \"x\" is a scalar, which has no rows"],
    );
    let host = setup(
        "[pipelines.p]\noutputs = { y = \"a.y\" }\n\
         [pipelines.p.steps.a]\nmodel = \"any\"\nin = { x = \"input.x\" }\neach = { split = [\"x\"], rows = 1 }\n",
    )
    .start();
    assert_eq!(host.predict("p", json!([1.0, 2.0])).result(), json!({"y": [1.0, 2.0]}));
    host.predict("p", json!(1.0)).refused(400, "invalid_input", &["is a scalar, which has no rows to split"]);
}
