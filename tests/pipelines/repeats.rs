//! Tests repeated steps: attempts after an error, and loops.

use crate::support::pipelines::{ask, calls, manifest, serve, setup};
use serde_json::json;

#[test]
fn a_step_is_tried_again_and_the_last_error_counts() {
    let flaky = manifest(
        &[
            ("flaky", "flaky = \"2\""),
            ("gone", "fail_below = \"5\"\nfail_kind = \"unavailable\""),
            ("wrong", "fail_below = \"5\""),
        ],
        "[pipelines.p]\noutputs = { r = \"a.y\" }\n\
         [pipelines.p.steps.a]\nmodel = \"flaky\"\nin = { a = \"input.x\" }\nretry = { attempts = 3, interval_ms = 1 }\n\
         [models.q]\npipeline = \"q\"\n[pipelines.q]\noutputs = { r = [\"a.y\", \"input.x\"] }\n\
         [pipelines.q.steps.a]\nmodel = \"gone\"\nin = { a = \"input.x\" }\nretry = { attempts = 4, interval_ms = 1 }\non_error = \"skip\"\n\
         [models.w]\npipeline = \"w\"\n[pipelines.w]\noutputs = { r = \"a.y\" }\n\
         [pipelines.w.steps.a]\nmodel = \"wrong\"\nin = { a = \"input.x\" }\nretry = { attempts = 4, interval_ms = 1 }\n",
    );
    let idempotent = ["flaky", "gone", "wrong"].iter().fold(flaky, |text, name| {
        let table = format!("[models.{name}]\n");
        text.replace(&table, &format!("{table}idempotent = true\n"))
    });
    let host = setup(&idempotent).start();
    assert_eq!(ask(&host, &[7.0]), json!({"r": [7.0]}));
    assert_eq!(calls(&host, "flaky"), 3.0);
    assert_eq!(host.predict("q", json!({"x": [1]})).result(), json!({"r": [1.0]}));
    assert_eq!(calls(&host, "gone"), 4.0);
    // This error is not transient, so it is not retried.
    host.predict("w", json!({"x": [1]})).refused(500, "failed", &["step \"a\""]);
    assert_eq!(calls(&host, "wrong"), 1.0);
}

#[test]
fn pauses_end_with_the_time_of_the_step() {
    let text = manifest(
        &[("gone", "fail_below = \"5\"\nfail_kind = \"unavailable\""), ("slow", "sleep_ms = \"60000\"")],
        "[pipelines.p]\noutputs = { r = \"a.y\" }\n\
         [pipelines.p.steps.a]\nmodel = \"gone\"\nin = { a = \"input.x\" }\ntimeout_ms = 200\n\
         retry = { attempts = 100, interval_ms = 60000, max_interval_ms = 60000 }\n\
         [models.q]\npipeline = \"q\"\n[pipelines.q]\noutputs = { r = [\"a.y\", \"input.x\"] }\n\
         [pipelines.q.steps.a]\nmodel = \"slow\"\nin = { a = \"input.x\" }\ntimeout_ms = 50\non_error = \"skip\"\n\
         [models.w]\npipeline = \"w\"\n[pipelines.w]\noutputs = { r = \"a.y\" }\n\
         [pipelines.w.steps.a]\nmodel = \"slow\"\nin = { a = \"input.x\" }\ntimeout_ms = 50\n",
    );
    let host = setup(&text.replace("[models.gone]\n", "[models.gone]\nidempotent = true\n")).start();
    host.predict("p", json!({"x": [1]})).refused(503, "unavailable", &["step \"a\"", "1 is too small"]);
    assert_eq!(host.predict("q", json!({"x": [1]})).result(), json!({"r": [1.0]}));
    host.predict("w", json!({"x": [1]})).refused(
        504,
        "deadline",
        &["step \"a\": its timeout_ms = 50 has passed"],
    );
    host.wait_for_idle("cpu");
}

#[test]
fn a_loop_carries_its_outputs_until_its_condition_ends_it_or_its_bound() {
    let host = serve(
        &[("one", "add = \"1\""), ("both", "inputs = \"a,b\"")],
        "[pipelines.p]\noutputs = { r = \"a.y\" }\n\
         [pipelines.p.steps.a]\nmodel = \"both\"\nin = { a = \"input.x\", b = { const = [2.0, 1.0] } }\n\
         loop = { while = \"max(self.y) < params.limit\", max = 10, carry = { a = \"y\" } }\n\
         [models.q]\npipeline = \"q\"\n[pipelines.q]\noutputs = { r = \"a.y\" }\n\
         [pipelines.q.steps.a]\nmodel = \"one\"\nin = { a = \"input.x\" }\n\
         loop = { while = \"true\", max = 7, at_max = \"go-on\", carry = { a = \"y\" } }\n",
    );
    let ask = |limit: f64| {
        let body = json!({"model": "p", "data": {"x": [0, 0]}, "parameters": {"limit": limit}}).to_string();
        host.post("/predict", body)
    };
    assert_eq!(ask(7.0).result(), json!({"r": [8.0, 4.0]}));
    assert_eq!(ask(1.0).result(), json!({"r": [2.0, 1.0]}), "it runs once in any case");
    ask(100.0).refused(500, "failed", &["step \"a\"", "did not end within max = 10 rounds"]);
    assert_eq!(host.predict("q", json!({"x": [0]})).result(), json!({"r": [7.0]}));
}

#[test]
fn what_would_run_for_ever_ends_at_its_bound() {
    let host = serve(
        &[("one", "add = \"1\"")],
        "[pipelines.p]\nmax_visits = 50\noutputs = { r = \"a.y\" }\n\
         [pipelines.p.steps.a]\nmodel = \"one\"\nin = { a = \"input.x\" }\n\
         loop = { while = \"true\", max = 1000000, carry = { a = \"y\" } }\n\
         [models.q]\npipeline = \"q\"\n[pipelines.q]\nmax_mb = 1\noutputs = { r = \"b.y\" }\n\
         [pipelines.q.steps.a]\nmodel = \"one\"\nin = { a = \"input.x\" }\n\
         [pipelines.q.steps.b]\nmodel = \"one\"\nin = { a = \"a.y\" }\n",
    );
    host.predict("p", json!({"x": [0]})).refused(
        500,
        "failed",
        &["ran more than 50 steps", "raise max_visits"],
    );
    let floats: Vec<f32> = vec![0.5; 300_000];
    host.predict("q", json!({"x": floats})).refused(
        413,
        "too_large",
        &["holds more than 1 MB of tensors", "raise max_mb"],
    );
    let floats: Vec<f32> = vec![0.5; 100_000];
    // Each tensor is freed after its last reader: 400 KB of input, then of `a`, then of `b`.
    assert_eq!(host.predict("q", json!({"x": floats})).status, 200);
}
