//! Tests custom executors: requests through one are answered as without it, and a guest that traps,
//! hangs or leaks affects only its own requests.

use crate::support::custom::{events, is_right, load, setup, setup_with, shot};
use crate::support::load::Load;
use crate::support::slow;
use crate::support::{Answer, Host, Setup, churn, model, never_seen, plugin, replace};
use serde_json::{Value, json};

const HOSTILE: &str = "hostile-executor";

/// Longer than any terminating guest needs, even on a slow machine.
const PATIENT_MS: u64 = 120_000;

/// Time after which a guest that never ends is stopped.
const BRISK_MS: u64 = 1_000;

/// Starts a host with `hostile-executor` in front of `faulty`; each request has `timeout_ms`.
fn hostile(timeout_ms: u64, more: &str, faults: &str) -> Host {
    hostile_setup(timeout_ms, more, faults).start()
}

fn hostile_setup(timeout_ms: u64, more: &str, faults: &str) -> Setup {
    let setup = setup(HOSTILE, "", faults);
    let manifest = std::fs::read_to_string(setup.path("hostler.toml")).unwrap();
    // A low limit, because a busy machine needs long to use up the default number of handles.
    let limits = format!("instances = \"reused\"\ntimeout_ms = {timeout_ms}\nhandles = 2000\n");
    let manifest = manifest
        .replace("workers = 128\n", &format!("workers = 128\n{more}\n"))
        .replace("instances = \"reused\"\n\n[plugins.hostile-executor.config]", &limits);
    setup.text("hostler.toml", &manifest)
}

/// Like `hostile`, but in front of an ONNX model that returns its input: the guests start on the
/// workers of the model.
fn hostile_before_onnx(timeout_ms: u64) -> Host {
    let setup = hostile_setup(timeout_ms, "", "");
    let manifest = std::fs::read_to_string(setup.path("hostler.toml")).unwrap();
    let manifest = manifest
        .replace("[models.asked]\nplugin = \"faulty\"", "[models.asked]\npath = \"copy.onnx\"")
        .replace("[models.plain]\nplugin = \"faulty\"", "[models.plain]\npath = \"copy.onnx\"")
        .replace("[executors.cpu]\nworkers = 64", "[executors.cpu]\nworkers = 1");
    setup.file("copy.onnx", model("copy")).text("hostler.toml", &manifest).start()
}

fn deed(host: &Host, deed: &str, more: Value) -> Answer {
    let mut parameters = json!({"do": deed});
    parameters.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let body = json!({"model": "asked", "data": [1.0], "parameters": parameters});
    host.post("/predict", body.to_string())
}

fn do_it(host: &Host, name: &str) -> Answer {
    deed(host, name, json!({}))
}

/// Checks that the host serves as before and that no call is left in flight.
fn unharmed(host: &Host) {
    assert_eq!(is_right(&do_it(host, "ok")), None);
    host.wait_for_idle("custom");
    host.wait_for_idle("cpu");
    assert_eq!(host.get("/health").status, 200);
}

#[test]
fn what_passes_through_is_as_without() {
    let mut manifest = std::fs::read_to_string(churn::setup("").path("hostler.toml")).unwrap();
    manifest += "\n[plugins.pass]\npath = \"pass.wasm\"\ninstances = \"reused\"\n\n[executors.pass]\nkind = \"custom\"\n\
        plugin = \"pass\"\ninner = \"onnx\"\n\n";
    let policy = "[policy]\nbankchurn = \"pass\"\nbankchurn-raw = \"pass\"\n";
    let setup = || churn::setup("").file("pass.wasm", plugin("pass"));
    let hosts = ["", policy].map(|policy| setup().text("hostler.toml", &(manifest.clone() + policy)).start());
    let record = churn::low_risk();
    let features: Vec<f32> = (0..18).map(|number| number as f32 / 18.0).collect();
    let infer =
        json!({"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 18], "data": features}]});
    let mut bad = record.clone();
    bad["age"] = json!("old");
    let batch = json!({"model": "bankchurn", "items": [{"data": record}, {"data": bad}, {"data": record}]});
    for (path, body) in [
        ("/predict", json!({"model": "bankchurn", "data": record})),
        ("/predict", json!({"model": "bankchurn", "data": record, "parameters": {"explain": true}})),
        ("/predict", json!({"model": "bankchurn", "data": bad})),
        ("/predict", json!({"model": "bankchurn-raw", "data": [features]})),
        ("/predict", json!({"model": "bankchurn-raw", "data": [[1.0]]})),
        ("/predict/batch", batch),
        ("/v2/models/bankchurn-raw/infer", infer),
    ] {
        let headers = [("content-type", "application/json"), ("x-request-id", "same")];
        let answers = [&hosts[0], &hosts[1]]
            .map(|host| host.client().request("POST", path, &headers, body.to_string().as_bytes()));
        assert_eq!(answers[1].status, answers[0].status, "{path} {}", answers[1].text());
        assert_eq!(answers[1].text(), answers[0].text(), "{path}");
    }
    assert_eq!(hosts[1].executor("pass")["workers"], 128);
    hosts[1].wait_for_idle("pass");
}

#[test]
fn a_fault_costs_its_own_request() {
    faults_cost_their_own_requests([PATIENT_MS, BRISK_MS].map(|timeout_ms| hostile(timeout_ms, "", "")));
}

#[test]
fn a_fault_on_a_lent_worker_costs_its_own_request() {
    faults_cost_their_own_requests([PATIENT_MS, BRISK_MS].map(hostile_before_onnx));
}

/// Checks misdeeds one by one. Guests that terminate have enough time on `patient`; only `brisk`
/// stops guests.
fn faults_cost_their_own_requests([patient, brisk]: [Host; 2]) {
    let host = patient;
    for name in ["many", "leak-many"] {
        let answer = deed(&host, name, json!({"count": 10_000}));
        // Either limit may be reached first: the queue of the inner executor, which is an overload,
        // or the calls that a guest may have in flight, which is the guest's mistake.
        let is_own = answer.text().contains("calls are already in flight");
        let (status, kind) = if is_own { (500, "failed") } else { (429, "overloaded") };
        answer.refused(status, kind, &[]);
        unharmed(&host);
    }
    for (name, more, status, kind, part) in [
        ("trap", json!({}), 500, "failed", "panicked"),
        ("empty-wait", json!({}), 500, "failed", ""),
        ("unwaited", json!({}), 500, "failed", "did not wait"),
        ("call-many", json!({"count": 100_000}), 500, "failed", "handles"),
        ("answer-wrong", json!({}), 500, "failed", "surprise"),
        ("wrong-outputs", json!({}), 500, "failed", "surprise"),
        ("wrong-inputs", json!({}), 500, "failed", "surprise"),
        ("unknown-model", json!({}), 500, "failed", "nobody"),
        ("dropped", json!({}), 500, "failed", ""),
        ("counters", json!({"count": 2_000}), 500, "failed", ""),
        ("bad-metric", json!({}), 500, "failed", ""),
        ("many-metrics", json!({"count": 200}), 500, "failed", ""),
        ("large-state", json!({}), 500, "failed", "too_large"),
        ("error", json!({"kind": "unavailable"}), 503, "unavailable", "as asked"),
        ("error", json!({"kind": "invalid-input"}), 400, "invalid_input", "as asked"),
    ] {
        let answer = deed(&host, name, more);
        assert_eq!(answer.status, status, "{name}: {}", answer.text());
        answer.refused(status, kind, &[part]);
        unharmed(&host);
    }
    let host = brisk;
    for name in ["spin", "sleep"] {
        do_it(&host, name).refused(504, "deadline", &["timeout_ms"]);
        unharmed(&host);
    }
    // The patient host has no metric names left, so these run on this one.
    for name in ["leak", "wait-twice", "answer", "answer-twice", "answer-then-fail", "odd-metric"] {
        assert_eq!(is_right(&do_it(&host, name)), None, "{name}");
        unharmed(&host);
    }
    assert_eq!(events(&host, HOSTILE, "answered_twice"), 0);
}

#[test]
fn what_comes_after_an_answer_is_the_plugins_own_affair() {
    let host = hostile(BRISK_MS, "", "");
    for name in ["answer-then-trap", "answer-then-spin"] {
        for _ in 0..3 {
            assert_eq!(is_right(&do_it(&host, name)), None, "{name}");
        }
        unharmed(&host);
    }
}

#[test]
fn an_executor_that_calls_itself_is_stopped() {
    let host = hostile(PATIENT_MS, "", "");
    let answer = do_it(&host, "recurse");
    assert!(answer.status >= 400 && answer.status < 505, "{}", answer.text());
    assert!(!answer.text().is_empty());
    unharmed(&host);
}

#[test]
fn a_callable_of_an_earlier_request_leads_nowhere() {
    let host = hostile(PATIENT_MS, "", "");
    assert_eq!(is_right(&do_it(&host, "keep")), None);
    do_it(&host, "kept").refused(500, "failed", &[]);
    unharmed(&host);
}

#[test]
fn calls_that_were_left_behind_are_cancelled() {
    let host = hostile(BRISK_MS, "", "fast_ms = \"100000\"");
    for (name, status) in [("unwaited", 500), ("leak", 504), ("leak", 504), ("forever", 504), ("many", 429)] {
        assert_eq!(deed(&host, name, json!({"count": 5_000})).status, status, "{name}");
        host.wait_for_idle("custom");
        host.wait_for_idle("cpu");
    }
    // The four calls of each `leak` and the one of `forever` have started; others may be cancelled
    // before a worker takes them.
    assert!(events(&host, "faulty", "calls") > 5);
    assert_eq!(events(&host, "faulty", "finished"), 0);
}

#[test]
fn on_failure_inner_answers_where_the_guest_cannot() {
    let host = hostile(BRISK_MS, "on_failure = \"inner\"", "");
    let fallbacks = || host.metric("hostler_executor_fallbacks_total{executor=\"custom\"}");
    for (count, name) in ["trap", "spin", "empty-wait", "dropped", "call-many"].into_iter().enumerate() {
        assert_eq!(is_right(&deed(&host, name, json!({"count": 100_000}))), None, "{name}");
        assert_eq!(fallbacks(), count as f64 + 1.0, "{name}");
    }
    let before = fallbacks();
    deed(&host, "error", json!({"kind": "unavailable"})).refused(503, "unavailable", &["as asked"]);
    assert_eq!(is_right(&do_it(&host, "answer-then-trap")), None);
    assert_eq!(fallbacks(), before, "the guest has answered");
    unharmed(&host);
}

#[test]
fn others_do_not_feel_a_hostile_request() {
    let host = hostile(BRISK_MS, "threads = 2", "fast_ms = \"5\"");
    let calm = Load::start(host.http, 4, shot("asked"), None, is_right);
    let plain = Load::start(host.http, 4, shot("plain"), None, is_right);
    std::thread::scope(|scope| {
        for name in ["spin", "sleep", "trap", "leak", "many", "answer-then-spin", "spin", "recurse"] {
            let host = &host;
            scope.spawn(move || deed(host, name, json!({"count": 50})));
        }
    });
    let (calm, plain) = (calm.stop(), plain.stop());
    assert_eq!((calm.faults, plain.faults), (vec![], vec![]));
    assert!(calm.answers > 4 && plain.answers > 4);
    unharmed(&host);
}

#[test]
fn a_guest_frees_a_lent_worker_that_it_does_not_use() {
    for name in ["spin", "sleep"] {
        // There is one worker, and the first guest holds it.
        let host = hostile_before_onnx(BRISK_MS);
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| {
                let answer = do_it(&host, name);
                (answer.status, std::time::Instant::now())
            });
            host.wait_for_executor("custom", "busy", 1);
            let served = host.predict("plain", json!([1.0]));
            let served_at = std::time::Instant::now();
            assert_eq!(is_right(&served), None);
            let (status, stopped_at) = asked.join().unwrap();
            assert_eq!(status, 504);
            assert!(served_at < stopped_at, "{name}: the other request waited for the guest");
        });
        unharmed(&host);
    }
}

#[test]
fn a_call_on_a_lent_worker_ends_with_its_guest() {
    let guest =
        |timeout_ms: u64| format!("path = \"pass.wasm\"\ninstances = \"reused\"\ntimeout_ms = {timeout_ms}");
    for (own_ms, asked_ms, part) in
        [(10_000, 100, "deadline of the request"), (100, 10_000, "timeout_ms is 100")]
    {
        let manifest = format!(
            "[executors.onnx]\nworkers = 1\n[executors.pass]\nkind = \"custom\"\nplugin = \"pass\"\ninner = \"onnx\"\n\
             [plugins.pass]\n{}\n[models.loop]\npath = \"loop.onnx\"\n[policy]\nloop = \"pass\"\n",
            guest(own_ms)
        );
        let host =
            Setup::new(&manifest).file("loop.onnx", model("loop")).file("pass.wasm", plugin("pass")).start();
        let body = slow::within(slow::rounds(slow::ENDLESS), asked_ms);
        let answer = host.post("/predict", body.to_string());
        answer.refused(504, "deadline", &[part]);
        host.wait_for_idle("pass");
        host.wait_for_idle("onnx");
        let timeouts = host.metric("hostler_executor_timeouts_total{executor=\"pass\"}");
        assert_eq!(timeouts, 1.0, "{part}");
        // A disconnect of the client ends the call as well.
        let body = slow::rounds(slow::ENDLESS).to_string();
        let mut client = host.client();
        client.begin("POST", "/predict", &[("content-type", "application/json")], body.as_bytes()).unwrap();
        host.wait_for_executor("onnx", "busy", 1);
        client.leave();
        host.wait_for_idle("pass");
        host.wait_for_idle("onnx");
    }
}

#[test]
fn executors_stand_before_each_other() {
    let more = "[plugins.pass]\npath = \"pass.wasm\"\n\n[executors.outer]\nkind = \"custom\"\nplugin = \"pass\"\n\
        inner = \"custom\"\n\n[models.nested]\nplugin = \"faulty\"\n";
    let setup =
        setup_with("retry", "backoff_ms = \"1\"\nbudget_percent = \"100\"", "fail_every = \"2\"", more);
    let manifest = std::fs::read_to_string(setup.path("hostler.toml")).unwrap();
    let manifest = manifest.replace("plain = \"cpu\"", "plain = \"cpu\"\nnested = \"outer\"");
    let host = setup.file("pass.wasm", plugin("pass")).text("hostler.toml", &manifest).start();
    for _ in 0..6 {
        assert_eq!(is_right(&host.predict("nested", json!([1.0]))), None);
    }
    assert_eq!(events(&host, "retry", "retries"), 5);
}

#[test]
fn a_manifest_that_cannot_work_is_refused() {
    let table = |name: &str, inner: &str| {
        format!("[executors.{name}]\nkind = \"custom\"\nplugin = \"pass\"\n{inner}\n")
    };
    let plugins = "[plugins.pass]\npath = \"pass.wasm\"\n[plugins.faulty]\npath = \"faulty.wasm\"\n";
    for (lines, parts) in [
        (table("a", "inner = \"b\"") + &table("b", "inner = \"a\""), vec!["a", "b"]),
        (table("a", "inner = \"a\""), vec!["a"]),
        (table("a", "inner = \"onyx\""), vec!["onyx"]),
        (table("a", ""), vec!["inner"]),
        (table("a", "inner = \"cpu\"\non_failure = \"panic\""), vec!["on_failure", "panic"]),
        (table("a", "inner = \"cpu\"").replace("\"pass\"", "\"nobody\""), vec!["nobody"]),
        (table("a", "inner = \"cpu\"").replace("\"pass\"", "\"faulty\""), vec!["faulty", "executor"]),
    ] {
        let manifest = format!("{plugins}{lines}\n[models.m]\nplugin = \"faulty\"\n[policy]\nm = \"a\"\n");
        let setup =
            Setup::new(&manifest).file("pass.wasm", plugin("pass")).file("faulty.wasm", plugin("faulty"));
        let (code, out, err) = setup.run(&["check", "hostler.toml"]);
        assert_eq!(code, 1, "{lines}\n{out}{err}");
        assert!(parts.iter().all(|part| (out.clone() + &err).contains(part)), "{lines}\n{out}{err}");
    }
}

fn batch(host: &Host, count: usize, deed: &str) -> Answer {
    let item = |number: usize| json!({"data": [number], "parameters": {"batch": deed}});
    let items: Vec<Value> = (0..count).map(item).collect();
    host.post("/predict/batch", json!({"model": "asked", "items": items}).to_string())
}

fn in_order(answer: &Answer, count: usize) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = answer.json();
    assert_eq!(body["errors"], json!([]));
    let expected: Vec<Value> = (0..count).map(|number| json!({"y": [number as f32]})).collect();
    assert_eq!(body["results"], json!(expected));
}

#[test]
fn batches_are_answered_whole_or_one_by_one() {
    // `pass` accepts batches, `retry` does not.
    for executor in ["pass", "retry"] {
        let host = setup(executor, "", "").start();
        in_order(&batch(&host, 100, "ok"), 100);
        host.wait_for_idle("custom");
    }
    let host = hostile(PATIENT_MS, "", "");
    in_order(&batch(&host, 5, "ok"), 5);
    let mixed = batch(&host, 3, "mixed").json();
    assert_eq!(
        (&mixed["errors"][0]["index"], &mixed["errors"][0]["kind"]),
        (&json!(0), &json!("invalid_input"))
    );
    assert_eq!(mixed["results"], json!([null, {"y": [1.0]}, {"y": [2.0]}]));
    for deed in ["short", "long", "trap", "fail"] {
        let answer = batch(&host, 3, deed).json();
        let errors = answer["errors"].as_array().unwrap_or_else(|| panic!("{deed}: {answer}"));
        assert_eq!(errors.len(), 3, "{deed}: {answer}");
        assert!(errors.iter().all(|error| error["kind"] == "failed"), "{deed}: {answer}");
    }
    unharmed(&host);
    let host = hostile(PATIENT_MS, "on_failure = \"inner\"", "");
    in_order(&batch(&host, 3, "trap"), 3);
}

#[test]
fn state_outlives_traps_and_swaps() {
    let host = hostile(PATIENT_MS, "", "");
    let tally = |number: u64| do_it(&host, "tally").refused(500, "failed", &[&format!("tally {number}")]);
    tally(1);
    assert_eq!(do_it(&host, "trap").status, 500);
    tally(2);
    let generation = host.generation();
    replace(&host.path("hostile-executor.wasm"), &never_seen(&std::fs::read(plugin(HOSTILE)).unwrap(), 1));
    host.wait_for_generation(generation + 1);
    tally(3);
}

#[test]
fn state_is_bounded() {
    let host = hostile(PATIENT_MS, "", "");
    // 200 keys of 16 KB each, in 1 MB.
    assert_eq!(is_right(&deed(&host, "fill-state", json!({"count": 200}))), None);
    let kept = host.metric(&format!("hostler_plugin_value{{name=\"kept_keys\",plugin=\"{HOSTILE}\"}}"));
    assert!((30.0..=64.0).contains(&kept), "{kept}");
}

#[test]
fn ten_lines_of_javascript_are_a_hedge() {
    let host = setup("hedge-js", "", "slow_every = \"2\"\nslow_ms = \"100000\"").start();
    for _ in 0..4 {
        assert_eq!(is_right(&host.predict("asked", json!([1.0]))), None);
    }
    assert_eq!(events(&host, "hedge-js", "hedges"), 3);
    host.wait_for_idle("cpu");
    assert_eq!(events(&host, "faulty", "finished"), 4);
}

#[test]
fn more_calls_than_workers_are_overload() {
    let setup = setup("pass", "", "fast_ms = \"300\"");
    let manifest = std::fs::read_to_string(setup.path("hostler.toml")).unwrap();
    let host = setup.text("hostler.toml", &manifest.replace("workers = 128", "workers = 2")).start();
    let judge = |answer: &Answer| if answer.status == 429 { None } else { is_right(answer) };
    let outcome = load(&host, "asked", 8, 40, judge);
    assert_eq!(outcome.faults, Vec::<String>::new());
    assert!(host.metric("hostler_executor_overloaded_total{executor=\"custom\"}") > 0.0);
}

#[test]
fn an_onnx_model_runs_below_a_custom_executor() {
    let manifest = "[models.plus]\npath = \"plus.onnx\"\n[plugins.pass]\npath = \"pass.wasm\"\n[executors.pass]\n\
        kind = \"custom\"\nplugin = \"pass\"\ninner = \"onnx\"\n[policy]\nplus = \"pass\"\n";
    let host =
        Setup::new(manifest).file("plus.onnx", model("plus1")).file("pass.wasm", plugin("pass")).start();
    assert_eq!(host.predict("plus", json!([1.0])).result(), json!({"y": [2.0]}));
    host.predict("plus", json!(["one"])).refused(400, "invalid_input", &[]);
}
