//! Jobs: from submission to the end, on every kind of executor, with retries that never overlap.

use crate::support::churn::{self, low_risk};
use crate::support::jobs::{
    at_once, attempts, ended, expect_no_overlap, job, kept, outcomes, released, sleep, submit, wait_for,
};
use crate::support::slow::{ENDLESS, MODELS, deed, rounds, serve, setup, within};
use crate::support::{Setup, model, plugin, replace};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn every_kind_of_executor_runs_jobs() {
    let manifest = r#"
[models.plus]
path = "plus.onnx"

[models.plus-cpu]
path = "plus.onnx"

[models.echo]
plugin = "echo"

[models.bankchurn]
path = "model.onnx"
transformer = "churn"

[policy]
plus-cpu = "cpu"

[plugins.echo]
path = "echo.wasm"

[plugins.churn]
path = "churn.wasm"

[plugins.churn.assets]
scaling = "scaling.json"
"#;
    let host = Setup::new(manifest)
        .file("plus.onnx", model("plus1"))
        .file("echo.wasm", plugin("echo"))
        .file("model.onnx", crate::support::example("bankchurn/model.onnx"))
        .file("scaling.json", crate::support::example("bankchurn/scaling.json"))
        .file("churn.wasm", plugin("churn"))
        .start();
    for (name, executor, data) in [
        ("plus", "onnx", json!([1.0, 2.5])),
        ("plus-cpu", "cpu", json!([1.0])),
        ("echo", "cpu", json!(["a", "b"])),
        ("bankchurn", "onnx", low_risk()),
    ] {
        let expected = host.predict(name, data.clone()).result();
        let id = submit(&host, &json!({"model": name, "data": data}));
        let job = ended(&host, &id, "succeeded");
        assert_eq!(job["result"], expected, "{job}");
        let fixed = json!({
            "job_id": id, "model": name, "version": "1", "generation": 1, "attempts": 1, "max_attempts": 1,
            "max_runtime_ms": null, "max_total_runtime_ms": 600_000, "refusals": 0, "last_refusal": null,
            "error": null,
        });
        for (key, value) in fixed.as_object().unwrap() {
            assert_eq!(job[key], *value, "{key}: {job}");
        }
        let moments = ["created_at", "started_at", "ended_at", "expires_at"].map(|key| number(&job[key]));
        assert!(moments.is_sorted(), "{job}");
        assert_eq!((moments[3] - moments[2]).round(), 600.0, "{job}");
        assert_eq!(outcomes(&job), ["succeeded"]);
        // An attempt is logged and counted like any other request.
        let line = host.access_log(&id);
        let shown = [&line["protocol"], &line["model"], &line["executor"], &line["status"]];
        assert_eq!(shown, [&json!("job"), &json!(name), &json!(executor), &json!(200)], "{line}");
        let requests = |code: u16| {
            host.metric(&format!("hostler_requests_total{{code=\"{code}\",model=\"{name}\",version=\"1\"}}"))
        };
        assert_eq!((requests(200), requests(202)), (2.0, 1.0), "{name}");
        let timed = format!("hostler_request_duration_seconds_count{{model=\"{name}\",version=\"1\"}}");
        assert_eq!(host.metric(&timed), 2.0, "{name}: accepting a job is not running it");
    }
    assert_eq!(kept(&host, "succeeded"), 4.0);
    assert_eq!(host.metric("hostler_jobs_total{state=\"succeeded\"}"), 4.0);
    assert_eq!(host.metric("hostler_job_attempts_total{outcome=\"succeeded\"}"), 4.0);
    assert_eq!(host.metric("hostler_job_duration_seconds_count"), 4.0);
    assert_eq!(host.metric("hostler_job_queue_wait_seconds_count"), 4.0);
}

#[test]
fn ten_jobs_whose_attempts_time_out_end_and_no_attempt_overlaps_another() {
    // Twice the workers that ten attempts need, so that an overlapping attempt would find a free
    // worker.
    let host = serve("[executors.cpu]\nworkers = 20\n[executors.onnx]\nworkers = 20\nsessions = 20\n");
    let calls = "hostler_plugin_calls_total{plugin=\"hostile\"}";
    let budgets = json!({"max_attempts": 3, "max_runtime_ms": 150});
    let mut rounds_made = 0.0;
    for body in [deed("hostile", "spin"), deed("hostile", "sleep"), rounds(ENDLESS)] {
        let before = host.metric(calls);
        let ids: Vec<String> = (0..10).map(|_| submit(&host, &job(body.clone(), &budgets))).collect();
        let done = AtomicBool::new(false);
        let (jobs, busiest): (Vec<Value>, u64) = std::thread::scope(|scope| {
            let watch = scope.spawn(|| {
                let mut busiest = 0;
                while !done.load(Ordering::Relaxed) {
                    let policy = host.policy();
                    let busy = |name: &str| policy["executors"][name]["busy"].as_u64().unwrap();
                    busiest = busiest.max(busy("cpu") + busy("onnx"));
                }
                busiest
            });
            let jobs = ids.iter().map(|id| {
                ended(&host, id, "timeout");
                released(&host, id)
            });
            let jobs = jobs.collect();
            done.store(true, Ordering::Relaxed);
            (jobs, watch.join().unwrap())
        });
        // Checked on the executors, independently of the jobs: never more busy workers than jobs.
        assert!((1..=10).contains(&busiest), "{busiest} workers were busy");
        for job in &jobs {
            assert_eq!(outcomes(job), ["timeout", "timeout", "timeout"], "{job}");
            expect_no_overlap(job);
            let error = &job["error"];
            assert_eq!(error["kind"], "deadline", "{job}");
            let message = error["message"].as_str().unwrap();
            assert!(message.starts_with("attempt 3 of 3: "), "{job}");
            for attempt in attempts(job) {
                assert_eq!(attempt["error"]["kind"], "deadline", "{job}");
                assert!(number(&attempt["ended_at"]) - number(&attempt["started_at"]) >= 0.15, "{job}");
            }
        }
        rounds_made += 1.0;
        if body["model"] == "hostile" {
            // Checked on the plugin: never more calls than reported attempts.
            let made = host.metric(calls) - before;
            assert!(made > 0.0 && made <= 30.0, "{made} calls");
        }
        assert_eq!(host.metric("hostler_job_retries_total"), rounds_made * 20.0);
        assert_eq!(host.metric("hostler_job_retries_exhausted_total"), rounds_made * 10.0);
        assert_eq!(host.metric("hostler_job_attempts_total{outcome=\"timeout\"}"), rounds_made * 30.0);
    }
    for executor in ["cpu", "onnx"] {
        host.wait_for_idle(executor);
    }
    assert_eq!(host.metric("hostler_job_attempts_overdue"), 0.0);
    assert_eq!((kept(&host, "timeout"), kept(&host, "running")), (30.0, 0.0));
}

#[test]
fn an_attempt_that_outlasts_its_deadline_holds_back_the_next_one_and_the_slot() {
    let host = serve("[executors.onnx]\nworkers = 2\nsessions = 2\n[jobs]\nconcurrency = 1\n");
    let huge = json!({"model": "huge", "data": {"n": [4096]}, "max_runtime_ms": 300, "max_attempts": 2});
    let id = submit(&host, &huge);
    let other = submit(&host, &deed("hostile", "ok"));
    // One node of the graph keeps running: the attempt is over but its work is not, and nothing
    // else starts.
    let overdue = wait_for(&host, &id, "the attempt that is overdue", |job| {
        outcomes(job) == ["timeout"] && job["history"][0]["ended_at"].is_null()
    });
    assert_eq!((&overdue["state"], &overdue["attempts"]), (&json!("running"), &json!(1)), "{overdue}");
    assert_eq!(host.executor("onnx")["busy"], 1);
    assert_eq!(host.metric("hostler_job_attempts_overdue"), 1.0);
    assert_eq!(crate::support::jobs::show(&host, &other)["state"], "pending");
    ended(&host, &id, "timeout");
    // The second job had to wait until the first job's last work ended.
    let other = ended(&host, &other, "succeeded");
    assert_eq!(host.executor("onnx")["busy"], 0, "the slot was given on before the worker was free");
    let job = released(&host, &id);
    assert_eq!(outcomes(&job), ["timeout", "timeout"]);
    expect_no_overlap(&job);
    let both = [job, other];
    assert_eq!(at_once(&both), 1, "{both:?}");
    let freed = number(&both[0]["history"][1]["ended_at"]);
    assert!(freed <= number(&both[1]["started_at"]), "{both:?}");
    host.wait_for_idle("onnx");
    assert_eq!(host.metric("hostler_job_attempts_overdue"), 0.0);
}

#[test]
fn the_same_holds_behind_an_executor_that_is_a_plugin() {
    let custom = "[plugins.pass]\npath = \"pass.wasm\"\n[executors.passed]\nkind = \"custom\"\nplugin = \"pass\"\n\
                  inner = \"onnx\"\n[policy]\nhuge = \"passed\"\n[executors.onnx]\nworkers = 2\nsessions = 2\n";
    let host = setup(&format!("{custom}{MODELS}")).file("pass.wasm", plugin("pass")).start();
    let huge = json!({"model": "huge", "data": {"n": [4096]}, "max_runtime_ms": 300, "max_attempts": 2});
    let id = submit(&host, &huge);
    wait_for(&host, &id, "the attempt that is overdue", |job| {
        outcomes(job) == ["timeout"] && job["history"][0]["ended_at"].is_null()
    });
    // The guest was stopped. The call that it made keeps running, and its slot is held until that
    // call ends.
    assert_eq!((&host.executor("passed")["busy"], &host.executor("onnx")["busy"]), (&json!(1), &json!(1)));
    ended(&host, &id, "timeout");
    let job = released(&host, &id);
    assert_eq!(outcomes(&job), ["timeout", "timeout"]);
    expect_no_overlap(&job);
    host.wait_for_idle("passed");
    assert_eq!(host.executor("onnx")["busy"], 0, "the job's end came before that of its work");
}

#[test]
fn attempts_run_under_the_policy_of_their_moment_so_a_reload_can_mend_a_job() {
    let manifest = |ms: u64| {
        format!("[models.loop]\npath = \"loop.onnx\"\ntimeout_ms = {ms}\n[jobs]\nmax_attempts = 1000\n")
    };
    let host = Setup::new(&manifest(100)).file("loop.onnx", model("loop")).start();
    let long = crate::support::slow::rounds_for(&host, crate::support::jobs::millis(300));
    let id = submit(&host, &job(rounds(long * 2), &json!({"max_attempts": 1000})));
    wait_for(&host, &id, "a second attempt", |job| outcomes(job).len() >= 2);
    replace(&host.path("hostler.toml"), manifest(60_000).as_bytes());
    let job = ended(&host, &id, "succeeded");
    let history = attempts(&job);
    assert_eq!((&history[0]["generation"], &history[0]["outcome"]), (&json!(1), &json!("timeout")), "{job}");
    let last = history.last().unwrap();
    assert_eq!((&last["generation"], &last["outcome"]), (&json!(2), &json!("succeeded")), "{job}");
    assert_eq!((&job["generation"], &job["error"]), (&json!(2), &Value::Null), "{job}");
    expect_no_overlap(&job);
    // Nothing pins the policy under which the job began.
    let policy = host.policy();
    let requests = policy["generations"].as_array().unwrap().iter().map(|entry| &entry["requests"]);
    assert!(requests.clone().all(|count| *count == 0), "{policy}");
}

#[test]
fn a_model_that_is_gone_when_its_turn_comes_fails_the_job() {
    let manifest = |more: &str| format!("[jobs]\nconcurrency = 1\n{more}{MODELS}");
    let plus = "[models.plus]\npath = \"plus.onnx\"\n";
    let host = setup(&manifest(plus)).file("plus.onnx", model("plus1")).start();
    let blocker = submit(&host, &within(deed("hostile", "sleep"), 20_000));
    wait_for(&host, &blocker, "the blocker", |job| job["state"] == "running");
    let id = submit(&host, &json!({"model": "plus", "data": [1.0]}));
    replace(&host.path("hostler.toml"), manifest("").as_bytes());
    host.wait_for_generation(2);
    assert_eq!(crate::support::jobs::cancel(&host, &blocker).status, 200);
    let job = ended(&host, &id, "failed");
    assert_eq!(job["error"]["kind"], "not_found", "{job}");
    assert!(job["error"]["message"].as_str().unwrap().contains("no model \"plus\""), "{job}");
}

#[test]
fn timeouts_are_retried_until_one_attempt_succeeds() {
    let host = serve("[executors.cpu]\nworkers = 1\n");
    // The blocker occupies the only worker for a while: attempts of the job time out in the queue.
    let mut blocker = host.client();
    blocker.begin("POST", "/predict", &[], sleep(1500).to_string().as_bytes()).unwrap();
    host.wait_for_policy("the blocker", |policy| policy["executors"]["cpu"]["busy"] == 1);
    let budgets = json!({"max_attempts": 10, "max_runtime_ms": 500});
    let id = submit(&host, &job(deed("hostile", "ok"), &budgets));
    let job = ended(&host, &id, "succeeded");
    let outcomes = outcomes(&job);
    let (last, earlier) = outcomes.split_last().unwrap();
    assert_eq!(last, "succeeded");
    assert!(!earlier.is_empty() && earlier.iter().all(|outcome| outcome == "timeout"), "{job}");
    assert_eq!(job["result"], json!({"data": ["a", "b"]}), "{job}");
    assert_eq!(job["error"], Value::Null, "what was mended is in the history");
    expect_no_overlap(&job);
    assert_eq!(host.metric("hostler_job_retries_total"), earlier.len() as f64);
    assert_eq!(host.metric("hostler_job_retries_exhausted_total"), 0.0);
    assert_eq!(blocker.receive().unwrap().status, 200);
}

#[test]
fn errors_that_are_no_timeouts_are_shown_and_not_retried() {
    let host = serve("");
    for (parameters, kind, part) in [
        (json!({"do": "trap", "at": "predict"}), "failed", "hostile"),
        (json!({"do": "error", "kind": "unavailable", "at": "predict"}), "unavailable", "as asked"),
        (json!({"do": "error", "kind": "invalid-input", "at": "predict"}), "invalid_input", "as asked"),
        (json!({"do": "error", "kind": "cancelled", "at": "predict"}), "cancelled", "as asked"),
        (json!({"do": "wrong-outputs", "at": "predict"}), "failed", "surprise"),
    ] {
        let body = json!({"model": "hostile", "data": ["a"], "parameters": parameters, "max_attempts": 5});
        let job = ended(&host, &submit(&host, &body), "failed");
        assert_eq!(outcomes(&job), ["failed"], "{job}");
        let error = &job["error"];
        assert_eq!((&error["kind"], &error["plugin"]), (&json!(kind), &json!("hostile")), "{job}");
        assert_eq!(error["model"], "hostile:1", "{job}");
        assert!(error["message"].as_str().unwrap().contains(part), "{job}");
        assert_eq!(attempts(&job)[0]["error"], *error, "{job}");
        assert!(job.get("result").is_none(), "{job}");
    }
    // A timeout that the plugin reports counts as a timeout, and is retried.
    let parameters = json!({"do": "error", "kind": "deadline", "at": "predict"});
    let body = json!({"model": "hostile", "data": ["a"], "parameters": parameters, "max_attempts": 3});
    let job = ended(&host, &submit(&host, &body), "timeout");
    assert_eq!(outcomes(&job), ["timeout", "timeout", "timeout"], "{job}");
    // A transformer reports its input as invalid.
    let host = churn::setup("").start();
    let record = low_risk();
    let mut wrong = record.clone();
    wrong["geography"] = "Atlantis".into();
    let job = ended(&host, &submit(&host, &json!({"model": "bankchurn", "data": wrong})), "failed");
    let error = &job["error"];
    assert_eq!((&error["kind"], &error["field"]), (&json!("invalid_input"), &json!("geography")), "{job}");
}

#[test]
fn an_executor_without_room_is_waited_for_and_no_attempt_is_spent() {
    let host = serve("[executors.cpu]\nworkers = 1\nqueue = 0\n");
    let mut blocker = host.client();
    blocker.begin("POST", "/predict", &[], sleep(20_000).to_string().as_bytes()).unwrap();
    host.wait_for_policy("the blocker", |policy| policy["executors"]["cpu"]["busy"] == 1);
    let never = submit(&host, &job(deed("hostile", "ok"), &json!({"max_total_runtime_ms": 400})));
    let job = ended(&host, &never, "timeout");
    assert_eq!((&job["attempts"], &job["started_at"]), (&json!(0), &Value::Null), "{job}");
    let message = job["error"]["message"].as_str().unwrap();
    for part in
        ["max_total_runtime_ms (400) passed", "no attempt was ever admitted", "the queue of 0 is full"]
    {
        assert!(message.contains(part), "{message}");
    }
    let id = submit(&host, &deed("hostile", "ok"));
    let waiting = wait_for(&host, &id, "a refusal", |job| number(&job["refusals"]) >= 2.0);
    assert!(
        waiting["last_refusal"].as_str().unwrap().contains("executor \"cpu\": all 1 workers"),
        "{waiting}"
    );
    blocker.leave();
    let job = ended(&host, &id, "succeeded");
    assert_eq!((&job["attempts"], outcomes(&job)), (&json!(1), vec!["succeeded".to_owned()]), "{job}");
    assert!(host.metric("hostler_job_refusals_total") >= 2.0);
    let refused = "hostler_requests_total{code=\"429\",model=\"hostile\",version=\"1\"}";
    assert_eq!(host.metric(refused), 0.0, "what is tried again is no failed request");
}

#[test]
fn the_total_runtime_ends_a_job_in_the_middle_of_its_attempts() {
    let host = serve("");
    let budgets = json!({"max_attempts": 10, "max_runtime_ms": 300, "max_total_runtime_ms": 700});
    let job = ended(&host, &submit(&host, &job(deed("hostile", "spin"), &budgets)), "timeout");
    assert!(outcomes(&job).len() <= 3, "{job}");
    let message = job["error"]["message"].as_str().unwrap();
    assert!(message.contains("max_total_runtime_ms (700) passed in attempt "), "{message}");
    let took = number(&job["ended_at"]) - number(&job["created_at"]);
    assert!((0.69..5.0).contains(&took), "{job}");
}

#[test]
fn jobs_take_their_turns_in_the_order_of_submission_and_never_more_than_allowed_at_once() {
    let host = serve("[jobs]\nconcurrency = 2\n");
    let items: Vec<Value> = (0..12)
        .map(|_| json!({"data": ["a"], "parameters": {"do": "sleep", "ms": 30, "at": "predict"}}))
        .collect();
    let answer = host.post("/predict/async/batch", json!({"model": "hostile", "items": items}).to_string());
    assert_eq!(answer.status, 202, "{}", answer.text());
    let promised = answer.json()["jobs"].as_array().unwrap().clone();
    let jobs: Vec<Value> =
        promised.iter().map(|job| ended(&host, job["job_id"].as_str().unwrap(), "succeeded")).collect();
    assert_eq!(jobs.len(), 12);
    let starts: Vec<f64> = jobs.iter().map(|job| number(&job["started_at"])).collect();
    // Two jobs that get their slots at the same time may start in either order.
    for (index, start) in starts.iter().enumerate() {
        assert!(starts[..index.saturating_sub(1)].iter().all(|earlier| earlier <= start), "{starts:?}");
    }
    assert!(at_once(&jobs) <= 2, "{jobs:?}");
}
