//! Tests that known faults of model graphs in other systems do not occur in pipelines. The comment
//! of each test describes the fault.

use crate::support::jobs;
use crate::support::pipelines::{calls, manifest, serve, setup, steppers};
use crate::support::{Client, Host, eventually, repeats};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn ask_as(host: &Host, user: &str) -> Value {
    let body = json!({"model": "p", "data": {"x": [0]}}).to_string();
    host.client().request("POST", "/predict", &[("x-user", user)], body.as_bytes()).result()
}

/// KServe: inference graphs do not pass the request's headers to their nodes.
#[test]
fn the_headers_of_a_request_choose_the_versions_of_its_steps() {
    let version = |version: &str, add: &str| {
        format!(
            "[plugins.v{version}]\npath = \"stepper.wasm\"\n[plugins.v{version}.config]\nadd = \"{add}\"\n[models.\"m:{version}\"]\nplugin = \"v{version}\"\n"
        )
    };
    let text = version("1", "1")
        + &version("2", "2")
        + "[routing.m]\nweights = { 1 = 50, 2 = 50 }\nby = \"header:x-user\"\n\
           [models.p]\npipeline = \"p\"\n[pipelines.p]\noutputs = { a = \"a.y\", b = \"b.y\", one = \"c.y\" }\n\
           [pipelines.p.steps.a]\nmodel = \"m\"\nin = { a = \"input.x\" }\n\
           [pipelines.p.steps.b]\nmodel = \"m\"\nin = { a = \"input.x\" }\n\
           [pipelines.p.steps.c]\nmodel = \"m:1\"\nin = { a = \"input.x\" }\n";
    let host = setup(&text).start();
    let mut seen = [0, 0];
    for user in 0..40 {
        let user = format!("user-{user}");
        let first = ask_as(&host, &user);
        assert_eq!(first["a"], first["b"], "one choice of versions in a request");
        assert_eq!(first["one"], json!([1.0]));
        assert_eq!(ask_as(&host, &user), first, "a caller stays");
        seen[first["a"][0].as_f64().unwrap() as usize - 1] += 1;
    }
    assert!(seen[0] > 5 && seen[1] > 5, "{seen:?}");
}

#[test]
fn a_bucket_is_a_share_of_the_callers() {
    let host = serve(
        &[("one", "add = \"1\"")],
        "[pipelines.p]\noutputs = { a = [\"a.y\", \"input.x\"] }\n\
         [pipelines.p.steps.a]\nmodel = \"one\"\nin = { a = \"input.x\" }\nwhen = \"request.bucket < 30\"\n",
    );
    let body = json!({"model": "p", "data": {"x": [0]}}).to_string();
    let mut client = host.client();
    let mut chosen = 0;
    for id in 0..300 {
        let id = format!("request-{id}");
        let mut ask =
            || client.request("POST", "/predict", &[("x-request-id", &id)], body.as_bytes()).result();
        let first = ask();
        assert_eq!(ask(), first);
        chosen += usize::from(first["a"] == json!([1.0]));
    }
    assert!((50..140).contains(&chosen), "{chosen} of 300");
}

/// KServe: the error body of a soft step becomes the input of the next step.
#[test]
fn an_error_that_is_skipped_feeds_nobody() {
    let host = serve(
        &[("fails", "fail_below = \"5\""), ("next", "add = \"1\"")],
        "[pipelines.p]\noutputs = { r = [\"b.y\", \"input.x\"] }\n\
         [pipelines.p.steps.a]\nmodel = \"fails\"\nin = { a = \"input.x\" }\non_error = \"skip\"\n\
         [pipelines.p.steps.b]\nmodel = \"next\"\nin = { a = \"a.y\" }\n",
    );
    assert_eq!(host.predict("p", json!({"x": [1]})).result(), json!({"r": [1.0]}));
    assert_eq!(calls(&host, "next"), 0.0);
    assert_eq!(host.predict("p", json!({"x": [9]})).result(), json!({"r": [10.0]}));
}

/// Triton: every step of an ensemble gets the whole timeout.
#[test]
fn one_deadline_covers_all_steps() {
    let host = serve(
        &[("slow", "sleep_ms = \"80\"")],
        "[pipelines.p]\noutputs = { r = \"c.y\" }\n\
         [pipelines.p.steps.a]\nmodel = \"slow\"\nin = { a = \"input.x\" }\n\
         [pipelines.p.steps.b]\nmodel = \"slow\"\nin = { a = \"a.y\" }\n\
         [pipelines.p.steps.c]\nmodel = \"slow\"\nin = { a = \"b.y\" }\n",
    );
    let body = json!({"model": "p", "data": {"x": [1]}, "timeout_ms": 150}).to_string();
    host.post("/predict", body).refused(504, "deadline", &[]);
    host.wait_for_idle("cpu");
    assert_eq!(calls(&host, "slow"), 2.0, "the third was never begun");
}

/// Triton: the times of an ensemble's steps do not add up.
#[test]
fn the_times_of_the_steps_add_up() {
    let host = serve(
        &[("slow", "sleep_ms = \"30\"")],
        "[pipelines.p]\noutputs = { r = \"c.y\" }\n\
         [pipelines.p.steps.a]\nmodel = \"slow\"\nin = { a = \"input.x\" }\nmax_in_flight = 1\n\
         [pipelines.p.steps.b]\nmodel = \"slow\"\nin = { a = \"a.y\" }\n\
         [pipelines.p.steps.c]\nmodel = \"slow\"\nin = { a = \"b.y\" }\n",
    );
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| host.predict("p", json!({"x": [1]})).result());
        }
    });
    let sum = |family: &str, labels: &str| host.metric(&format!("{family}_sum{{{labels}}}"));
    let steps = ["a", "b", "c"].iter().map(|step| {
        let time =
            sum("hostler_pipeline_step_seconds", &format!("outcome=\"ok\",pipeline=\"p\",step=\"{step}\""));
        time + sum("hostler_pipeline_step_queue_seconds", &format!("pipeline=\"p\",step=\"{step}\""))
    });
    let steps: f64 = steps.sum();
    let requests = sum("hostler_request_duration_seconds", "model=\"p\",version=\"1\"");
    eprintln!("steps {steps:.3} s of {requests:.3} s");
    // Nine runs of 30 ms, and waits for the only place of 30 and 60 ms at least.
    assert!(steps >= 0.36 && steps <= requests, "{steps} {requests}");
}

/// Triton: a cancellation reaches only the next step of an ensemble. Ray Serve: a batch hangs once
/// its clients have cancelled.
#[test]
fn who_leaves_a_batch_does_not_hold_the_others_up() {
    let text = format!(
        "{}[models.batched]\npath = \"identity.onnx\"\nmax_batch_size = 8\nmax_queue_delay_us = 500000\n\
         [models.p]\npipeline = \"p\"\n[pipelines.p]\noutputs = {{ r = \"b.y\" }}\n\
         [pipelines.p.steps.a]\nmodel = \"batched\"\nin = {{ x = \"input.x\" }}\n\
         [pipelines.p.steps.b]\nmodel = \"batched\"\nin = {{ x = \"a.y\" }}\n",
        steppers(&[])
    );
    let host = setup(&text).start();
    let body = |marker: i32| json!({"model": "p", "data": {"x": [[marker]]}}).to_string();
    let mut leaves = Client::new(host.http);
    leaves.begin("POST", "/predict", &[], body(1).as_bytes()).unwrap();
    host.wait_for_executor("onnx", "inflight", 1);
    let mut stays = Client::new(host.http);
    stays.begin("POST", "/predict", &[], body(2).as_bytes()).unwrap();
    host.wait_for_executor("onnx", "inflight", 2);
    leaves.leave();
    let answer = stays.receive().unwrap();
    assert_eq!(answer.result(), json!({"r": [[2.0]]}));
    host.wait_for_idle("onnx");
    host.wait_for_idle("pipeline");
}

/// Elsewhere the concurrency limit of a task is off by one, and leaks on errors.
#[test]
fn a_limit_is_what_it_says_and_comes_back_after_errors() {
    let host = serve(
        &[("fails", "fail_below = \"5\"\nsleep_ms = \"20\"")],
        "[pipelines.p]\noutputs = { r = \"a.y\" }\n\
         [pipelines.p.steps.a]\nmodel = \"fails\"\nin = { a = \"input.x\" }\nmax_in_flight = 1\n",
    );
    // Serial runs take at least the sum of their sleeps; two concurrent ones would take half.
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| host.predict("p", json!({"x": [1]})).refused(500, "failed", &["step \"a\""]));
        }
    });
    let took = began.elapsed();
    assert_eq!(calls(&host, "fails"), 20.0);
    assert!(took >= Duration::from_millis(20 * 20), "20 runs of 20 ms at the same time: {took:?}");
    let shown = || host.admin_get("/admin/pipelines/p").json()["steps"]["a"]["in_flight"].clone();
    eventually("no run in flight", || (shown() == 0).then_some(()), || host.log());
    assert_eq!(host.predict("p", json!({"x": [9]})).result(), json!({"r": [9.0]}));
}

/// Elsewhere a failing task leaves its client waiting forever, and tasks cannot be cancelled.
#[test]
fn a_job_of_a_pipeline_ends_and_can_be_cancelled() {
    let text = manifest(
        &[("fails", "fail_below = \"5\""), ("never", "sleep_ms = \"60000\"")],
        "[pipelines.p]\noutputs = { r = \"b.y\" }\n\
         [pipelines.p.steps.a]\nmodel = \"fails\"\nin = { a = \"input.x\" }\n\
         [pipelines.p.steps.b]\nmodel = \"never\"\nin = { a = \"a.y\" }\n",
    );
    let host = setup(&text).start();
    let failed = jobs::submit(&host, &json!({"model": "p", "data": {"x": [1]}}));
    let ended = jobs::ended(&host, &failed, "failed");
    assert_eq!(ended["error"]["step"], "a", "{ended}");
    let cancelled = jobs::submit(&host, &json!({"model": "p", "data": {"x": [9]}}));
    host.wait_for_executor("cpu", "busy", 1);
    jobs::cancel(&host, &cancelled);
    jobs::ended(&host, &cancelled, "cancelled");
    host.wait_for_idle("cpu");
    host.wait_for_idle("pipeline");
}

/// OVMS: the metadata of graphs has no shapes.
#[test]
fn metadata_has_the_shapes_that_the_steps_say() {
    let host = serve(
        &[("one", "add = \"1\"")],
        "[pipelines.p]\noutputs = { r = \"a.y\" }\n\
         [pipelines.p.steps.a]\nmodel = \"one\"\nin = { a = \"input.x\" }\n",
    );
    let metadata = host.get("/v2/models/p").json();
    let spec = |name: &str| json!([{"name": name, "datatype": "FP32", "shape": [-1]}]);
    assert_eq!((&metadata["inputs"], &metadata["outputs"]), (&spec("x"), &spec("r")));
}

/// Elsewhere clients receive each other's state. Here 64 clients, each with its own number in its
/// tensors, share runs.
#[test]
fn nothing_of_a_caller_is_ever_in_another_ones_answer() {
    let chain: String = (0..10)
        .map(|step| {
            let from = if step == 0 { "input.x".to_owned() } else { format!("s{}.y", step - 1) };
            format!("[pipelines.p.steps.s{step}]\nmodel = \"batched\"\nin = {{ x = \"{from}\" }}\n")
        })
        .collect();
    let text = format!(
        "{}[executors.onnx]\nworkers = 2\n[models.batched]\npath = \"identity.onnx\"\nmax_batch_size = 16\n\
         [models.p]\npipeline = \"p\"\n[pipelines.p]\noutputs = {{ r = \"s9.y\", half = \"s4.y\" }}\n{chain}",
        steppers(&[])
    );
    let host = setup(&text).start();
    // In a soak with 400 repeats: 64 clients x 1,600 requests x 10 steps.
    let requests = repeats(3) * 4;
    std::thread::scope(|scope| {
        for caller in 0..64_usize {
            let host = &host;
            scope.spawn(move || {
                let mut client = host.client();
                for number in 0..requests {
                    let marker = json!([[caller as f64, number as f64], [-(caller as f64), 0.5]]);
                    let body = json!({"model": "p", "data": {"x": marker}}).to_string();
                    let answer = client.post("/predict", body);
                    assert_eq!(answer.result(), json!({"r": marker, "half": marker}), "caller {caller}");
                }
            });
        }
    });
    let runs = host.metric("hostler_executor_batch_size_count{executor=\"onnx\"}");
    let calls = (64 * requests * 10) as f64;
    eprintln!("{calls} step runs in {runs} runs of the model");
    assert!(runs < calls, "none has shared a run");
    host.wait_for_idle("pipeline");
}
