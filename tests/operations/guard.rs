//! Tests the guard: after a swap it watches the new version, and rolls it back automatically if it
//! is worse than the old one.

use crate::support::load::{Load, Shot};
use crate::support::versions::{manifest, setup, shot};
use crate::support::{Answer, Host, Setup, eventually, model, replace};
use serde_json::{Value, json};

/// Long enough for any machine: the guard judges as soon as there are enough requests.
const GUARD: &str = "[reload.guard]\nwatch_ms = 60000\nmin_requests = 50";

fn put(host: &Host, config: &str, reload: &str) {
    replace(&host.path("hostler.toml"), manifest(config, reload).as_bytes());
}

/// Starts a load that records failed requests instead of failing the test; the tests are about
/// these failures.
fn load(host: &Host, shot: Shot) -> Load {
    Load::start(host.http, 4, shot, None, |answer: &Answer| {
        (answer.status != 200).then(|| format!("{} {}", answer.status, answer.text()))
    })
}

fn wait_for_requests(host: &Host, count: f64) {
    let sample = "hostler_requests_total{code=\"200\",model=\"fragile\",version=\"1\"}";
    eventually("requests", || (host.metric(sample) >= count).then_some(()), || host.log());
}

fn generation(policy: &Value, state: &str) -> Option<u64> {
    let generations = policy["generations"].as_array()?;
    generations.iter().find(|entry| entry["state"] == state)?["generation"].as_u64()
}

#[test]
fn a_version_that_fails_a_fifth_of_its_calls_is_rolled_back_and_refused_until_it_changes() {
    let host = setup(GUARD).start();
    let load = load(&host, shot());
    wait_for_requests(&host, 100.0);
    put(&host, "fail_percent = \"20\"", GUARD);
    let policy = host.wait_for_outcome("rolled_back");
    let reload = &policy["last_reload"];
    assert_eq!(reload["trigger"], "guard");
    let why = reload["errors"][0].as_str().unwrap().to_owned();
    assert!(why.starts_with("generation 2 was rolled back by the guard: fragile:1 failed "), "{why}");
    assert!(why.ends_with("allowed 5 %"), "{why}");
    assert_eq!((policy["generation"].as_u64(), policy["stale"].as_bool()), (Some(3), Some(true)));
    assert_eq!(policy["rollout"], Value::Null);
    host.wait_for_log(&["outcome=\"rolled_back\"", "by the guard"]);
    let outcome = load.stop();
    assert!(!outcome.faults.is_empty(), "the bad version served and nobody saw it");
    assert!(outcome.faults.iter().all(|fault| fault.starts_with("500 ")), "{:?}", outcome.faults);
    for _ in 0..50 {
        assert_eq!(host.predict("fragile", json!({"a": 1})).result(), json!({"a": 1}));
    }
    assert_eq!(host.metric("hostler_rollbacks_total{by=\"guard\"}"), 1.0);
    assert_eq!(host.metric("hostler_rollout_share"), 0.0);
    assert!(host.metric("hostler_generation_requests_total{generation=\"new\",outcome=\"fault\"}") > 0.0);

    put(&host, "fail_percent = \"20\"", GUARD);
    let policy = host.wait_for_outcome("refused");
    assert_eq!(policy["last_reload"]["errors"][0], why);
    put(&host, "fail_percent = \"0\"", GUARD);
    let policy = host.wait_for_outcome("applied");
    assert_eq!((policy["generation"].as_u64(), policy["stale"].as_bool()), (Some(4), Some(false)));
}

#[test]
fn a_rolled_back_version_is_judged_again_under_other_thresholds() {
    let host = setup(GUARD).start();
    let load = load(&host, shot());
    wait_for_requests(&host, 100.0);
    put(&host, "fail_percent = \"20\"", GUARD);
    host.wait_for_outcome("rolled_back");
    put(&host, "fail_percent = \"20\"", &format!("{GUARD}\nmax_fault_rate = 0.9"));
    let policy = host.wait_for_outcome("applied");
    assert_eq!((policy["generation"].as_u64(), policy["stale"].as_bool()), (Some(4), Some(false)));
    load.stop();
}

#[test]
fn a_change_of_batching_or_labels_alone_is_judged() {
    let with = |keys: &str| format!("[models.plus]\npath = \"plus.onnx\"\n{keys}\n{GUARD}\n");
    let (batched, labels) = ("max_batch_size = 8", "[models.plus.labels]\ny = \"labels.txt\"");
    let delayed = format!("{batched}\nmax_queue_delay_us = 100");
    for (before, after) in [("", batched), (batched, delayed.as_str()), ("", labels)] {
        let setup = Setup::new(&with(before)).file("plus.onnx", model("identity")).text("labels.txt", "a\n");
        let host = setup.start();
        replace(&host.path("hostler.toml"), with(after).as_bytes());
        let policy = host.wait_for_generation(2);
        assert_eq!(policy["rollout"]["generation"], 2, "{after}");
        assert!(policy["rollout"]["judged"]["plus:1"].is_object(), "{after}: {policy}");
    }
}

#[test]
fn a_delay_that_makes_a_model_slow_is_rolled_back() {
    let with = |delay: u32| {
        format!(
            "[models.plus]\npath = \"plus.onnx\"\nmax_batch_size = 1024\nmax_queue_delay_us = {delay}\n\
             [reload.guard]\nwatch_ms = 600000\nmin_requests = 20\n"
        )
    };
    let host = Setup::new(&with(0)).file("plus.onnx", model("identity")).start();
    let load = load(&host, Shot::predict("plus", &json!([[1.0]])));
    let sample = "hostler_requests_total{code=\"200\",model=\"plus\",version=\"1\"}";
    eventually("requests", || (host.metric(sample) >= 100.0).then_some(()), || host.log());
    replace(&host.path("hostler.toml"), with(500_000).as_bytes());
    let policy = host.wait_for_outcome("rolled_back");
    let why = policy["last_reload"]["errors"][0].as_str().unwrap();
    assert!(why.contains("plus:1 took "), "{why}");
    assert_eq!(load.stop().faults, Vec::<String>::new());
}

#[test]
fn a_slow_version_is_rolled_back() {
    let host = setup(GUARD).start();
    let load = load(&host, shot());
    wait_for_requests(&host, 100.0);
    put(&host, "slow_ms = \"400\"", GUARD);
    let policy = host.wait_for_outcome("rolled_back");
    let why = policy["last_reload"]["errors"][0].as_str().unwrap();
    assert!(why.contains("fragile:1 took ") && why.contains("instead of "), "{why}");
    assert_eq!(load.stop().faults, Vec::<String>::new());
}

#[test]
fn while_it_is_watched_the_numbers_of_both_sides_are_shown() {
    // A high latency floor, so that a busy machine causes no rollback.
    let guard = format!("{GUARD}\nlatency_floor_ms = 600000");
    let host = setup(&guard).start();
    let load = load(&host, shot());
    wait_for_requests(&host, 100.0);
    put(&host, "release = \"2\"", &guard);
    let policy = host.wait_for_policy("numbers", |policy| {
        policy["rollout"]["judged"]["fragile:1"]["requests"].as_u64() > Some(10)
    });
    let rollout = &policy["rollout"];
    assert_eq!((rollout["stage"].as_str(), rollout["share"].as_f64()), (Some("watch"), Some(100.0)));
    assert_eq!(rollout["generation"], 2);
    let judged = &rollout["judged"]["fragile:1"];
    assert_eq!(judged["faults"], 0);
    assert!(
        judged["p95_ms"].as_f64() > Some(0.0) && judged["old"]["p95_ms"].as_f64() > Some(0.0),
        "{judged}"
    );
    assert!(judged["old"]["requests"].as_u64() >= Some(99), "{judged}");
    assert!(rollout["next_at"].as_f64() > rollout["since"].as_f64());
    assert_eq!(host.metric("hostler_rollout_stage{stage=\"watch\"}"), 1.0);
    assert_eq!(load.stop().faults, Vec::<String>::new());
    // A rollback by an operator ends the watch.
    assert_eq!(host.admin_post("/admin/policy/rollback").json()["outcome"], "rolled_back");
    let policy = host.policy();
    assert_eq!((policy["generation"].as_u64(), &policy["rollout"]), (Some(3), &Value::Null));
    assert_eq!(host.metric("hostler_rollbacks_total{by=\"operator\"}"), 1.0);
}

#[test]
fn client_errors_do_not_roll_back() {
    let guard = "[reload.guard]\nwatch_ms = 5000\nmin_requests = 20";
    let host = setup(guard).start();
    let parameters = json!({"do": "error", "kind": "invalid-input", "at": "predict"});
    let body = json!({"model": "fragile", "data": 1, "parameters": parameters}).to_string().into_bytes();
    let load = Load::start(host.http, 4, Shot { path: "/predict".into(), body }, None, |answer: &Answer| {
        (answer.status != 400).then(|| answer.text())
    });
    put(&host, "release = \"2\"", guard);
    let told = "hostler_generation_requests_total{generation=\"new\",outcome=\"other\"}";
    eventually("client errors", || (host.metric(told) > 40.0).then_some(()), || host.log());
    host.wait_for_log(&["generation=2", "stage=\"proven\""]);
    assert_eq!(load.stop().faults, Vec::<String>::new());
    assert_eq!(host.generation(), 2);
}

#[test]
fn too_few_requests_do_not_roll_back() {
    let guard = "[reload.guard]\nwatch_ms = 1000\nmin_requests = 50";
    let host = setup(guard).start();
    put(&host, "fail_percent = \"100\"", guard);
    host.wait_for_generation(2);
    for _ in 0..20 {
        host.predict("fragile", json!(1)).refused(500, "failed", &["this version fails"]);
    }
    host.wait_for_log(&["generation=2", "stage=\"proven\""]);
    assert_eq!(host.generation(), 2);
    assert_eq!(host.policy()["rollout"], Value::Null);
}

#[test]
fn without_the_table_nothing_is_watched() {
    let host = setup("").start();
    put(&host, "fail_percent = \"100\"", "");
    let policy = host.wait_for_generation(2);
    assert_eq!(policy["rollout"], Value::Null);
}

#[test]
fn a_newer_version_is_measured_by_the_last_one_that_was_proven() {
    let manifest = format!("[models.plus]\npath = \"plus.onnx\"\n{GUARD}\n");
    let host = Setup::new(&manifest).file("plus.onnx", model("plus1")).start();
    replace(&host.path("plus.onnx"), &std::fs::read(model("plus2")).unwrap());
    host.wait_for_generation(2);
    let timeout = manifest.replace("plus.onnx\"\n", "plus.onnx\"\ntimeout_ms = 5000\n");
    replace(&host.path("hostler.toml"), timeout.as_bytes());
    let policy = host.wait_for_generation(3);
    assert_eq!(policy["rollout"]["generation"], 3);
    assert_eq!((generation(&policy, "live"), generation(&policy, "previous")), (Some(3), Some(1)));
    assert_eq!(host.admin_post("/admin/policy/rollback").status, 200);
    assert_eq!(host.predict("plus", json!([1.0])).result()["y"][0], 2.0, "the first version");
}

#[test]
fn faulty_settings_are_refused_with_their_place() {
    for (reload, parts) in [
        ("[reload.guard]\nmax_fault_rate = 5", &["max_fault_rate must be from 0 to 1", "it is a share"][..]),
        ("[reload.guard]\nmin_requests = 0", &["min_requests must be at least 1"]),
        ("[reload.guard]\nmax_latency_ratio = 0.5", &["max_latency_ratio must be from 1"]),
        (
            "[reload.guard]\nmin_request = 5",
            &["unknown key \"min_request\"", "did you mean \"min_requests\"?"],
        ),
        ("[reload.canary]\nsteps = [50, 10]", &["increasing percentages", "write [1, 10, 50]"]),
        ("[reload.canary]\nsteps = []", &["increasing percentages"]),
        ("[reload.canary]\nby = \"user\"", &["by is not known", "header:<name>"]),
        ("[reload.canary]\nshadow_share = 101", &["shadow_share must be from 0 to 100"]),
    ] {
        let (code, _, shown) = setup(reload).run(&["check", "hostler.toml"]);
        assert_eq!(code, 1, "{reload}");
        let line = format!("hostler.toml:{}:", manifest("", reload).lines().count());
        for part in parts.iter().chain([&line.as_str()]) {
            assert!(shown.contains(part), "{reload}\n{shown}\nlacks {part}");
        }
    }
}
