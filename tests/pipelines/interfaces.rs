//! Tests that a pipeline is a model: every interface serves it, its checks run before it goes live,
//! and the command line shows it.

use crate::support::grpc::{Caller, input, read, request};
use crate::support::jobs;
use crate::support::pipelines::{manifest, setup};
use serde_json::{Value, json};

const MODELS: &[(&str, &str)] =
    &[("one", "add = \"1\""), ("gate", "names = \"b\""), ("by", "param = \"by\"")];

/// Computes x + 1, and 100 more if the gate, which tests the lowest bit, chooses `b`.
const PIPELINE: &str = "[pipelines.p]\ninputs = { x = \"FP32[-1]\", z = \"FP32[-1]?\" }\noutputs = { r = \"a.y\", s = \"b.y?\", t = \"c.y?\" }\n\
    [pipelines.p.steps.a]\nmodel = \"one\"\nin = { a = \"input.x\" }\n\
    [pipelines.p.steps.g]\nmodel = \"gate\"\nin = { a = \"input.x\" }\nchoose = { by = \"to\", among = [\"b\"] }\n\
    [pipelines.p.steps.b]\nmodel = \"by\"\nin = { a = \"a.y\" }\nparams = { by = 100 }\n\
    [pipelines.p.steps.c]\nmodel = \"by\"\nin = { a = \"input.z\" }\n";

fn text() -> String {
    manifest(MODELS, PIPELINE)
}

#[test]
fn plain_batch_jobs_and_metadata() {
    let host = setup(&text()).start();
    assert_eq!(
        host.predict("p", json!({"x": [1, 2]})).result(),
        json!({"r": [2.0, 3.0], "s": [102.0, 103.0]})
    );
    assert_eq!(host.predict("p", json!({"x": [2], "z": [5]})).result(), json!({"r": [3.0], "t": [5.0]}));
    let items = json!([{"data": {"x": [1]}}, {"data": {"y": [1]}}, {"data": {"x": [2]}}]);
    let batch = host.post("/predict/batch", json!({"model": "p", "items": items}).to_string()).json();
    assert_eq!(batch["results"], json!([{"r": [2.0], "s": [102.0]}, null, {"r": [3.0]}]), "{batch}");
    assert_eq!(batch["errors"][0]["index"], 1, "{batch}");
    let id = jobs::submit(&host, &json!({"model": "p", "data": {"x": [1]}}));
    let ended = jobs::ended(&host, &id, "succeeded");
    assert_eq!(ended["result"], json!({"r": [2.0], "s": [102.0]}), "{ended}");
    let metadata = host.get("/v2/models/p").json();
    let names = |key: &str| -> Vec<Value> {
        metadata[key].as_array().unwrap().iter().map(|spec| spec["name"].clone()).collect()
    };
    assert_eq!(
        (names("inputs"), names("outputs")),
        (vec![json!("x"), json!("z")], vec![json!("r"), json!("s"), json!("t")])
    );
    let listed = host.get("/models").json();
    assert!(listed.to_string().contains("\"p\""), "{listed}");
    // A call from a step counts in the statistics of its model.
    let stats = host.get("/v2/models/one/stats").json();
    assert_eq!(stats["model_stats"][0]["inference_stats"]["success"]["count"], 5, "{stats}");
}

#[test]
fn tensors_over_http_and_grpc_lack_what_is_absent() {
    let host = setup(&text()).grpc().start();
    let infer = |data: f64, outputs: Value| {
        let mut body = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [data]}]});
        if !outputs.is_null() {
            body["outputs"] = outputs;
        }
        host.post("/v2/models/p/infer", body.to_string())
    };
    let names = |answer: &Value| -> Vec<String> {
        let outputs = answer["outputs"].as_array().unwrap();
        outputs.iter().map(|output| output["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&infer(1.0, Value::Null).json()), ["r", "s"]);
    assert_eq!(names(&infer(2.0, Value::Null).json()), ["r"]);
    // The absent output is also left out when it was requested by name.
    assert_eq!(names(&infer(2.0, json!([{"name": "s"}, {"name": "r"}])).json()), ["r"]);
    let refused = infer(2.0, json!([{"name": "q"}]));
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("no output"), "{}", refused.text());

    let caller = Caller::new(&host);
    let floats =
        |value: f32| request("p", vec![input("x", "FP32", &[1])], vec![value.to_le_bytes().to_vec()]);
    let response = caller.infer(floats(1.0)).unwrap();
    let names: Vec<&str> = response.outputs.iter().map(|output| &*output.name).collect();
    assert_eq!((names, read(&response)), (vec!["r", "s"], vec![2.0]));
    let mut stream = caller.stream();
    stream.send(floats(2.0));
    let answer = stream.answer();
    let response = answer.infer_response.unwrap();
    assert_eq!(response.outputs.len(), 1, "{response:?}");
    stream.done();
}

#[test]
fn checks_run_through_the_steps_before_the_pipeline_goes_live() {
    let checked = text().replace("[models.p]\n", "[models.p]\nchecks = [{ file = \"p.json\" }]\n");
    let right = r#"[{"data": {"x": [1]}, "expect": {"r": [2], "s": [102]}}]"#;
    let setup = setup(&checked).text("p.json", right);
    let (code, out, error) = setup.run(&["check", "hostler.toml"]);
    assert_eq!(code, 0, "{error}");
    for part in ["pipeline \"p\"", "a  one (a = input.x)", "chooses among b", "-> s = b.y?"] {
        assert!(out.contains(part), "{out}\nlacks {part}");
    }
    let setup = setup.text("p.json", &right.replace("102", "103"));
    let (code, _, error) = setup.run(&["check", "hostler.toml"]);
    assert_eq!(code, 1);
    assert!(error.contains("result.s[0]: expected 103, got 102"), "{error}");
}

#[test]
fn the_command_line_draws_the_graph_and_shows_the_steps_of_a_request() {
    let outer = "[models.q]\npipeline = \"q\"\n[pipelines.q]\noutputs = { r = \"inner.r\" }\n\
                 [pipelines.q.steps.inner]\nmodel = \"p\"\nin = { x = \"input.x\" }\n";
    let setup = setup(&(text() + outer))
        .text("request.json", r#"{"model": "p", "data": {"x": [2, 4]}}"#)
        .text("outer.json", r#"{"model": "q", "data": {"x": [2, 4]}}"#);
    let (_, mermaid, error) = setup.run(&["check", "hostler.toml", "--graph", "mermaid", "--quick"]);
    for part in [
        "%% pipeline \"p\"\nflowchart LR",
        "step_g{",
        "step_g -.->|\"may choose\"| step_b",
        "step_a -->|\"y\"| step_b",
    ] {
        assert!(mermaid.contains(part), "{mermaid}{error}\nlacks {part}");
    }
    let (_, dot, _) = setup.run(&["check", "hostler.toml", "--graph", "dot", "--quick"]);
    assert!(dot.contains("\"g\" -> \"b\" [label=\"may choose\", style=dashed];"), "{dot}");
    let (code, out, error) = setup.run(&["predict", "request.json", "--steps"]);
    assert_eq!(code, 0, "{error}");
    for part in [
        "step p.a (one) ok in ",
        "  <- a FP32[2] [2.0,4.0]",
        "  -> y FP32[2] [3.0,5.0]",
        "step p.b (by) skipped: \"g\" did not choose it",
        "step p.c (by) skipped: its input \"a\" is absent",
        "{\"r\":[3.0,5.0]}",
    ] {
        assert!(out.contains(part), "{out}\nlacks {part}");
    }
    let (_, out, error) = setup.run(&["predict", "outer.json", "--steps"]);
    for part in ["step q.inner.a (one) ok in ", "step q.inner (p) ok in "] {
        assert!(out.contains(part), "{out}{error}\nlacks {part}");
    }
}
