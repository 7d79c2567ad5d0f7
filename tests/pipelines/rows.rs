//! Tests rows: `rows = "each"`, which runs the graph for every row alone, and `each`, which splits
//! the inputs of one step.

use crate::support::pipelines::{ask, calls, serve};
use serde_json::json;

#[test]
fn every_row_walks_the_graph_alone() {
    let host = serve(
        &[("one", "add = \"1\""), ("hundred", "add = \"100\""), ("gate", "names = \"a,b\"")],
        "[pipelines.p]\nrows = \"each\"\noutputs = { r = [\"a.y\", \"b.y\", \"g.y\"] }\n\
         [pipelines.p.steps.g]\nmodel = \"gate\"\nin = { a = \"input.x\" }\nchoose = { by = \"to\", among = [\"a\", \"b\"] }\n\
         [pipelines.p.steps.a]\nmodel = \"one\"\nin = { a = \"input.x\" }\n\
         [pipelines.p.steps.b]\nmodel = \"hundred\"\nin = { a = \"input.x\" }\nwhen = \"input.x[0] < 7\"\n",
    );
    assert_eq!(
        ask(&host, &[0.0, 1.0, 2.0, 3.0, 6.0, 10.0]),
        json!({"r": [0.0, 2.0, 102.0, 4.0, 106.0, 10.0]})
    );
    assert_eq!(ask(&host, &[]), json!({"r": []}));
    let many: Vec<f64> = (0..500).map(f64::from).collect();
    let expected: Vec<f64> = (0..500)
        .map(|x| match x {
            x if x & 1 == 1 => f64::from(x + 1),
            x if x & 2 == 2 && x < 7 => f64::from(x + 100),
            x => f64::from(x),
        })
        .collect();
    assert_eq!(ask(&host, &many), json!({"r": expected}));
}

#[test]
fn a_row_that_fails_fails_the_request_and_is_named() {
    let host = serve(
        &[("fails", "fail_below = \"5\"")],
        "[pipelines.p]\nrows = \"each\"\noutputs = { r = \"a.y\" }\n\
         [pipelines.p.steps.a]\nmodel = \"fails\"\nin = { a = \"input.x\" }\n",
    );
    host.predict("p", json!({"x": [9, 8, 1, 7]})).refused(
        500,
        "failed",
        &["step \"a\" (row 2)", "1 is too small"],
    );
    assert_eq!(ask(&host, &[9.0, 8.0]), json!({"r": [9.0, 8.0]}));
}

#[test]
fn each_runs_parts_side_by_side_and_stacks_them() {
    let host = serve(
        &[
            ("one", "add = \"1\"\nsleep_ms = \"20\""),
            ("fails", "fail_below = \"5\""),
            ("shift", "inputs = \"a,b\""),
        ],
        "[pipelines.p]\noutputs = { r = \"s.y\" }\n\
         [pipelines.p.steps.a]\nmodel = \"one\"\nin = { a = \"input.x\" }\neach = { split = [\"a\"], rows = 2 }\n\
         [pipelines.p.steps.s]\nmodel = \"shift\"\nin = { a = \"a.y\", b = { const = [10.0] } }\neach = { split = [\"a\"] }\n\
         [models.q]\npipeline = \"q\"\n[pipelines.q]\noutputs = { r = \"a.y\" }\n\
         [pipelines.q.steps.a]\nmodel = \"fails\"\nin = { a = \"input.x\" }\neach = { split = [\"a\"], rows = 2 }\n",
    );
    assert_eq!(ask(&host, &[1.0, 2.0, 3.0, 4.0, 5.0]), json!({"r": [12.0, 13.0, 14.0, 15.0, 16.0]}));
    assert_eq!((calls(&host, "one"), calls(&host, "shift")), (3.0, 5.0));
    // Without rows the steps do not run, and the output has no rows.
    assert_eq!(ask(&host, &[]), json!({"r": []}));
    assert_eq!((calls(&host, "one"), calls(&host, "shift")), (3.0, 5.0));
    let parts = ["step \"a\" (rows 4 to 5)"];
    host.predict("q", json!({"x": [9, 9, 9, 9, 1, 9]})).refused(500, "failed", &parts);
    let infer = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [0], "data": []}]});
    let answer = host.post("/v2/models/p/infer", infer.to_string()).json();
    assert_eq!(answer["outputs"][0]["shape"], json!([0]), "{answer}");
}
