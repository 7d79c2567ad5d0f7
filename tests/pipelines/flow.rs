//! Tests which steps of a pipeline run, which are skipped, and what it returns.

use crate::support::pipelines::{ask, calls, manifest, serve, setup};
use crate::support::{Client, Host, eventually};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const ADD: &[(&str, &str)] = &[("one", "add = \"1\""), ("ten", "add = \"10\""), ("both", "inputs = \"a,b\"")];

#[test]
fn a_chain_passes_tensors_from_step_to_step() {
    let host = serve(
        ADD,
        "[pipelines.p]\noutputs = { r = \"c.y\", first = \"a.y\" }\n\
         [pipelines.p.steps.a]\nmodel = \"one\"\nin = { a = \"input.x\" }\n\
         [pipelines.p.steps.b]\nmodel = \"ten\"\nin = { a = \"a.y\" }\n\
         [pipelines.p.steps.c]\nmodel = \"both\"\nin = { a = \"b.y\", b = \"input.x\" }\n",
    );
    assert_eq!(ask(&host, &[1.0, 2.0]), json!({"r": [13.0, 15.0], "first": [2.0, 3.0]}));
    let shown = host.admin_get("/admin/pipelines/p").json();
    assert_eq!(shown["steps"]["b"]["runs"]["ok"], 1, "{shown}");
    assert!(shown["mermaid"].as_str().unwrap().contains("step_a"), "{shown}");
    let listed = host.admin_get("/admin/pipelines").json();
    assert_eq!(listed["pipelines"]["p"]["models"][0]["model"], "p:1", "{listed}");
    host.admin_get("/admin/pipelines/q").refused(404, "not_found", &["no model serves a pipeline \"q\""]);
    assert!(host.admin_get("/admin/pipelines/p?graph=dot").text().starts_with("digraph"));
    let svg = host.admin_get("/admin/pipelines/p?graph=svg");
    assert_eq!(svg.header("content-type"), Some("image/svg+xml; charset=utf-8"));
    let steps = shown["steps"].as_object().unwrap();
    assert!(steps.keys().all(|step| svg.text().contains(&format!("data-step=\"{step}\""))), "{}", svg.text());
    let ok = "hostler_pipeline_step_seconds_count{outcome=\"ok\",pipeline=\"p\",step=\"c\"}";
    assert_eq!(host.metric(ok), 1.0);
}

/// Runs `small`, then a gate, and `big` only if the gate chooses it; if `big` fails, the answer of
/// `small` is returned.
const CASCADE: &str = "[pipelines.p]\noutputs = { r = [\"big.y\", \"small.y\"], why = \"explain.y?\" }\n\
    [pipelines.p.steps.small]\nmodel = \"one\"\nin = { a = \"input.x\" }\n\
    [pipelines.p.steps.gate]\nmodel = \"gate\"\nin = { a = \"small.y\" }\n\
    choose = { by = \"to\", among = [\"big\", \"explain\"] }\n\
    [pipelines.p.steps.big]\nmodel = \"big\"\nin = { a = \"input.x\" }\non_error = \"skip\"\n\
    [pipelines.p.steps.explain]\nmodel = \"ten\"\nin = { a = [\"big.y\", \"small.y\"] }\nwhen = \"params.explain\"\n";

fn cascade() -> Host {
    let gate = "names = \"big,explain\"";
    let big = "add = \"100\"\nfail_below = \"1\"";
    serve(&[("one", "add = \"1\""), ("ten", "add = \"10\""), ("gate", gate), ("big", big)], CASCADE)
}

fn explained(host: &Host, x: f64) -> Value {
    let body = json!({"model": "p", "data": {"x": [x]}, "parameters": {"explain": true}});
    host.post("/predict", body.to_string()).result()
}

#[test]
fn a_router_chooses_and_what_it_does_not_choose_never_runs() {
    let host = cascade();
    // 1 + 1 = 2: the gate chooses only `explain`, which runs only if the parameter asks for it.
    assert_eq!(ask(&host, &[1.0]), json!({"r": [2.0]}));
    assert_eq!(explained(&host, 1.0), json!({"r": [2.0], "why": [12.0]}));
    assert_eq!(calls(&host, "big"), 0.0);
    // 2 + 1 = 3: the gate chooses both.
    assert_eq!(explained(&host, 2.0), json!({"r": [102.0], "why": [112.0]}));
    // 0 + 1 = 1: the gate chooses `big`, which fails and is skipped.
    assert_eq!(explained(&host, 0.0), json!({"r": [1.0]}));
    // 3 + 1 = 4: the gate chooses neither.
    assert_eq!(explained(&host, 3.0), json!({"r": [4.0]}));
    assert_eq!(calls(&host, "big"), 2.0);
    let skipped = "hostler_pipeline_step_seconds_count{outcome=\"skipped\",pipeline=\"p\",step=\"big\"}";
    assert_eq!(host.metric(skipped), 3.0);
    let failed = "hostler_pipeline_step_seconds_count{outcome=\"error\",pipeline=\"p\",step=\"big\"}";
    assert_eq!(host.metric(failed), 1.0);
    let wrong = json!({"model": "p", "data": {"x": [1]}, "parameters": {"explain": 1}}).to_string();
    let error =
        host.post("/predict", wrong).refused(400, "invalid_input", &["expected a boolean, got a number"]);
    assert_eq!(error["field"], "parameters.explain");
}

#[test]
fn conditions_look_at_tensors_parameters_and_what_became_of_steps() {
    let host = serve(
        &[("one", "add = \"1\""), ("fails", "fail_below = \"5\"\nfail_kind = \"unavailable\"")],
        "[pipelines.p]\nrows = \"each\"\noutputs = { r = [\"a.y\", \"b.y\", \"c.y\", \"d.y\"] }\n\
         [pipelines.p.steps.try]\nmodel = \"fails\"\nin = { a = \"input.x\" }\non_error = \"skip\"\n\
         [pipelines.p.steps.a]\nmodel = \"one\"\nin = { a = \"try.y\" }\nwhen = \"try.y[0] > 7 || has(try.y) && try.y[0] == 6\"\n\
         [pipelines.p.steps.b]\nmodel = \"one\"\nin = { a = { const = [100.0] } }\nwhen = \"try.error == 'unavailable' && params.t >= 2\"\n\
         [pipelines.p.steps.c]\nmodel = \"one\"\nin = { a = { const = [200.0] } }\nwhen = \"try.ran && !(try.error == null)\"\n\
         [pipelines.p.steps.d]\nmodel = \"one\"\nin = { a = { const = [300.0] } }\n",
    );
    let ask = |t: f64| {
        let body = json!({"model": "p", "data": {"x": [9, 6, 5, 1]}, "parameters": {"t": t}}).to_string();
        host.post("/predict", body).result()
    };
    assert_eq!(ask(2.0), json!({"r": [10.0, 7.0, 301.0, 101.0]}));
    assert_eq!(ask(1.5), json!({"r": [10.0, 7.0, 301.0, 201.0]}));
}

#[test]
fn an_error_names_pipeline_step_and_model_and_whose_fault_it_is() {
    let host = serve(
        &[("one", "add = \"1\""), ("picky", "fail_below = \"5\"\nfail_kind = \"invalid-input\"")],
        "[pipelines.p]\noutputs = { r = \"first.y\", s = \"second.y?\" }\n\
         [pipelines.p.steps.first]\nmodel = \"picky\"\nin = { a = \"input.x\" }\n\
         [pipelines.p.steps.add]\nmodel = \"one\"\nin = { a = { const = [0.0] } }\n\
         [pipelines.p.steps.second]\nmodel = \"picky\"\nin = { a = [\"add.y\"] }\nwhen = \"params.second\"\n",
    );
    let parts = ["pipeline \"p\": step \"first\"", "1 is too small"];
    let error = host.predict("p", json!({"x": [1]})).refused(400, "invalid_input", &parts);
    assert_eq!((&error["step"], &error["model"]), (&json!("first"), &json!("picky:1")), "{error}");
    // The client did not send the tensor that a step made, so this is a failure (500).
    let body = json!({"model": "p", "data": {"x": [9]}, "parameters": {"second": true}}).to_string();
    let error = host.post("/predict", body).refused(500, "failed", &["step \"second\"", "1 is too small"]);
    assert_eq!(error["step"], "second");
}

#[test]
fn branches_run_side_by_side_and_one_that_fails_stops_the_others() {
    let host = serve(
        &[
            ("slow", "sleep_ms = \"50\""),
            ("never", "sleep_ms = \"60000\""),
            ("both", "inputs = \"a,b\""),
            ("fails", "fail_below = \"5\""),
        ],
        "[pipelines.p]\noutputs = { r = \"c.y\" }\n\
         [pipelines.p.steps.a]\nmodel = \"slow\"\nin = { a = \"input.x\" }\n\
         [pipelines.p.steps.b]\nmodel = \"slow\"\nin = { a = \"input.x\" }\n\
         [pipelines.p.steps.c]\nmodel = \"both\"\nin = { a = \"a.y\", b = \"b.y\" }\n\
         [models.q]\npipeline = \"q\"\n[pipelines.q]\noutputs = { r = \"c.y\" }\n\
         [pipelines.q.steps.a]\nmodel = \"never\"\nin = { a = \"input.x\" }\n\
         [pipelines.q.steps.b]\nmodel = \"fails\"\nin = { a = \"input.x\" }\n\
         [pipelines.q.steps.c]\nmodel = \"both\"\nin = { a = \"a.y\", b = \"b.y\" }\n",
    );
    ask(&host, &[1.0]);
    let best = (0..5).map(|_| {
        let began = Instant::now();
        assert_eq!(ask(&host, &[1.0]), json!({"r": [2.0]}));
        began.elapsed()
    });
    let best = best.min().unwrap();
    eprintln!("two branches of 50 ms: {best:?}");
    assert!(best >= Duration::from_millis(50));
    host.predict("q", json!({"x": [1]})).refused(500, "failed", &["step \"b\""]);
    host.wait_for_idle("cpu");
    host.wait_for_idle("pipeline");
    for (step, outcome, count) in
        [("a", "cancelled", 1.0), ("a", "error", 0.0), ("b", "error", 1.0), ("b", "cancelled", 0.0)]
    {
        assert_eq!(ended(&host, "q", step, outcome), count, "{step} {outcome}");
    }
}

fn ended(host: &Host, pipeline: &str, step: &str, outcome: &str) -> f64 {
    let labels = format!("outcome=\"{outcome}\",pipeline=\"{pipeline}\",step=\"{step}\"");
    host.metric(&format!("hostler_pipeline_step_seconds_count{{{labels}}}"))
}

#[test]
fn what_the_answer_needs_no_more_is_cancelled_and_counted() {
    let host = serve(
        &[("first", ""), ("never", "sleep_ms = \"60000\"")],
        "[pipelines.p]\noutputs = { r = [\"a.y\", \"b.y\"] }\n\
         [pipelines.p.steps.a]\nmodel = \"first\"\nin = { a = \"input.x\" }\non_error = \"skip\"\n\
         [pipelines.p.steps.b]\nmodel = \"never\"\nin = { a = \"input.x\" }\n",
    );
    assert_eq!(ask(&host, &[1.0]), json!({"r": [1.0]}));
    host.wait_for_idle("cpu");
    assert_eq!(ended(&host, "p", "b", "cancelled"), 1.0);
}

#[test]
fn a_client_who_leaves_and_a_deadline_free_every_branch() {
    let host = serve(
        &[("never", "sleep_ms = \"60000\""), ("both", "inputs = \"a,b\"")],
        "[pipelines.p]\noutputs = { r = \"c.y\" }\n\
         [pipelines.p.steps.a]\nmodel = \"never\"\nin = { a = \"input.x\" }\nmax_in_flight = 1\n\
         [pipelines.p.steps.b]\nmodel = \"never\"\nin = { a = \"input.x\" }\n\
         [pipelines.p.steps.c]\nmodel = \"both\"\nin = { a = \"a.y\", b = \"b.y\" }\n",
    );
    let body = json!({"model": "p", "data": {"x": [1]}}).to_string();
    let mut client = Client::new(host.http);
    client.begin("POST", "/predict", &[], body.as_bytes()).unwrap();
    host.wait_for_executor("cpu", "busy", 2);
    let left = Instant::now();
    client.leave();
    host.wait_for_idle("cpu");
    eprintln!("freed {:?} after the client left", left.elapsed());
    host.wait_for_idle("pipeline");
    let cancelled = |count: f64| (ended(&host, "p", "a", "cancelled") == count).then_some(());
    eventually("the run that the client left", || cancelled(1.0), || host.log());
    let late = json!({"model": "p", "data": {"x": [1]}, "timeout_ms": 3000}).to_string();
    client = Client::new(host.http);
    client.begin("POST", "/predict", &[], late.as_bytes()).unwrap();
    host.wait_for_executor("cpu", "busy", 2);
    client.receive().unwrap().refused(504, "deadline", &["the deadline of the request has passed"]);
    host.wait_for_idle("cpu");
    host.wait_for_idle("pipeline");
    eventually("the run that was late", || cancelled(2.0), || host.log());
}

#[test]
fn a_pipeline_is_a_step_of_another_one() {
    let mut manifest = manifest(
        ADD,
        "[pipelines.p]\noutputs = { r = \"z.r\" }\n\
         [pipelines.p.steps.z]\nmodel = \"deep0\"\nin = { x = \"input.x\" }\n",
    );
    for depth in 0..100 {
        let inner = if depth == 99 { "one".to_owned() } else { format!("deep{}", depth + 1) };
        let (input, output) = if depth == 99 { ("a", "y") } else { ("x", "r") };
        manifest += &format!(
            "[models.deep{depth}]\npipeline = \"deep{depth}\"\n[pipelines.deep{depth}]\noutputs = {{ r = \"s.{output}\" }}\n\
             [pipelines.deep{depth}.steps.s]\nmodel = \"{inner}\"\nin = {{ {input} = \"input.x\" }}\n"
        );
    }
    let host = setup(&manifest).start();
    assert_eq!(ask(&host, &[1.0]), json!({"r": [2.0]}));
    let error = host.predict("p", json!({"x": ["one"]})).refused(400, "invalid_input", &["\"x\""]);
    assert_eq!(error["field"], "x", "{error}");
}

#[test]
fn two_hundred_steps_in_a_row_run_right_and_load_fast() {
    let mut pipeline = "[pipelines.p]\noutputs = { r = \"s199.y\" }\n".to_owned();
    for at in 0..200 {
        let from = if at == 0 { "input.x".to_owned() } else { format!("s{}.y", at - 1) };
        pipeline += &format!("[pipelines.p.steps.s{at}]\nmodel = \"one\"\nin = {{ a = \"{from}\" }}\n");
    }
    let host = serve(ADD, &pipeline);
    assert_eq!(ask(&host, &[1.0]), json!({"r": [201.0]}));
    // The same pipeline with one more step; its models are loaded already.
    let longer = pipeline.replace("s199.y", "s200.y")
        + "[pipelines.p.steps.s200]\nmodel = \"one\"\nin = { a = \"s199.y\" }\n";
    crate::support::replace(&host.path("hostler.toml"), manifest(ADD, &longer).as_bytes());
    let record = host.admin_post("/admin/reload").json();
    assert_eq!(record["outcome"], "applied", "{record}");
    eprintln!("201 steps: {}", record["phases_ms"]);
    assert_eq!(ask(&host, &[1.0]), json!({"r": [202.0]}));
}

#[test]
fn only_what_is_asked_for_runs_and_always_runs_all_the_same() {
    let host = serve(
        &[("one", "add = \"1\""), ("ten", "add = \"10\""), ("log", ""), ("later", "sleep_ms = \"300\"")],
        "[pipelines.p]\noutputs = { r = \"a.y\", s = \"b.y\" }\n\
         [pipelines.p.steps.a]\nmodel = \"one\"\nin = { a = \"input.x\" }\n\
         [pipelines.p.steps.b]\nmodel = \"ten\"\nin = { a = \"input.x\" }\n\
         [pipelines.p.steps.log]\nmodel = \"log\"\nin = { a = \"a.y\" }\nalways = true\non_error = \"skip\"\n\
         [pipelines.p.steps.later]\nmodel = \"later\"\nin = { a = \"a.y\" }\ndetach = true\ntimeout_ms = 5000\n",
    );
    let infer = json!({
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1.0]}],
        "outputs": [{"name": "r"}],
    });
    let began = Instant::now();
    let answer = host.post("/v2/models/p/infer", infer.to_string()).json();
    let took = began.elapsed();
    assert_eq!(answer["outputs"][0]["data"], json!([2.0]), "{answer}");
    assert_eq!((calls(&host, "ten"), calls(&host, "log")), (0.0, 1.0));
    eprintln!("answered after {took:?}, with a detached step of 300 ms");
    // The detached step continues although the client has its answer.
    let finished = "hostler_plugin_events_total{name=\"finished\",plugin=\"later\"}";
    eventually("the detached step", || (host.metric(finished) == 1.0).then_some(()), || host.log());
    host.wait_for_idle("pipeline");
}
