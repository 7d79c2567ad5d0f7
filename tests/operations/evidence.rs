//! Tests that the guard judges on evidence: bad requests of a client never roll a version back, and
//! a failed request that the previous version answers is a fault of the new one.

use crate::support::load::{Load, Shot};
use crate::support::{Answer, Host, Setup, eventually, model, plugin, replace};
use serde_json::{Value, json};

/// Long enough for the guard to judge, short enough for a test to wait.
const GUARD: &str = "[reload.guard]\nwatch_ms = 3000\nmin_requests = 20\nlatency_floor_ms = 600000\n";

fn new_side(host: &Host, outcome: &str) -> f64 {
    host.metric(&format!("hostler_generation_requests_total{{generation=\"new\",outcome=\"{outcome}\"}}"))
}

fn replays(host: &Host, outcome: &str) -> f64 {
    host.metric(&format!("hostler_guard_replays_total{{outcome=\"{outcome}\"}}"))
}

fn load(host: &Host, body: Value, status: u16) -> Load {
    let shot = Shot { path: "/predict".into(), body: body.to_string().into_bytes() };
    Load::start(host.http, 2, shot, None, move |answer: &Answer| {
        (answer.status != status).then(|| format!("{} {}", answer.status, answer.text()))
    })
}

/// Returns a manifest with one ONNX model; another timeout makes it another version.
fn manifest(path: &str, timeout_ms: u32, more: &str) -> String {
    format!("[models.m]\npath = \"{path}.onnx\"\ntimeout_ms = {timeout_ms}\n\n{more}\n")
}

fn setup(models: &[&str], reload: &str) -> Setup {
    let setup = Setup::new(&manifest(models[0], 60_000, reload));
    models.iter().fold(setup, |setup, name| setup.file(&format!("{name}.onnx"), model(name)))
}

fn put(host: &Host, path: &str, timeout_ms: u32, reload: &str) {
    replace(&host.path("hostler.toml"), manifest(path, timeout_ms, reload).as_bytes());
}

fn assert_proven(host: &Host, load: Load) {
    host.wait_for_log(&["generation=2", "stage=\"proven\""]);
    assert_eq!(load.stop().faults, Vec::<String>::new());
    assert_eq!((host.generation(), host.metric("hostler_rollbacks_total{by=\"guard\"}")), (2, 0.0));
}

#[test]
fn requests_that_no_version_answers_roll_nothing_back() {
    let host = setup(&["zeros"], GUARD).start();
    put(&host, "zeros", 59_000, GUARD);
    host.wait_for_generation(2);
    // More memory than the machine has: a fault by its error kind, in every version.
    let load = load(&host, json!({"model": "m", "data": [1_u64 << 45]}), 500);
    eventually("faults", || (new_side(&host, "fault") > 60.0).then_some(()), || host.log());
    eventually("replays", || (replays(&host, "refuted") > 5.0).then_some(()), || host.log());
    let judged = &host.policy()["rollout"]["judged"]["m:1"];
    assert_eq!((&judged["faults"], &judged["confirmed"]), (&json!(0), &json!(0)), "{judged}");
    assert_proven(&host, load);
    assert_eq!(replays(&host, "confirmed"), 0.0);
    let answered = "hostler_requests_total{code=\"200\",model=\"m\",version=\"1\"}";
    assert_eq!(host.metric(answered), 0.0, "replays are no requests");
}

#[test]
fn data_that_the_graph_refuses_rolls_nothing_back() {
    let host = setup(&["positions"], GUARD).start();
    put(&host, "positions", 59_000, GUARD);
    host.wait_for_generation(2);
    let load = load(&host, json!({"model": "m", "data": [1.0, 2.0, 3.0, 4.0, 5.0]}), 400);
    eventually("refusals", || (new_side(&host, "refused") > 60.0).then_some(()), || host.log());
    assert_proven(&host, load);
    assert_eq!(new_side(&host, "fault"), 0.0);
}

#[test]
fn a_version_that_refuses_what_the_one_before_answers_is_rolled_back() {
    for reload in [GUARD.to_owned(), format!("{GUARD}\n[reload.canary]\nsteps = [50]\nstep_ms = 600000\n")] {
        let host = setup(&["copy", "positions"], &reload).start();
        let body = json!({"model": "m", "data": [1.0, 2.0, 3.0, 4.0, 5.0]});
        assert_eq!(host.post("/predict", body.to_string()).status, 200);
        put(&host, "positions", 60_000, &reload);
        host.wait_for_policy("a rollout", |policy| policy["rollout"]["generation"] == 2);
        let shot = Shot { path: "/predict".into(), body: body.to_string().into_bytes() };
        let load = Load::start(host.http, 2, shot, None, |answer: &Answer| {
            (![200, 400].contains(&answer.status)).then(|| answer.text())
        });
        let policy = host.wait_for_outcome("rolled_back");
        let why = policy["last_reload"]["errors"][0].as_str().unwrap();
        assert!(why.contains("m:1 failed "), "{why}");
        assert!(replays(&host, "confirmed") > 0.0);
        assert_eq!(load.stop().faults, Vec::<String>::new());
        assert_eq!(host.post("/predict", body.to_string()).status, 200);
    }
}

#[test]
fn a_deadline_that_the_caller_shortened_rolls_nothing_back() {
    let host = setup(&["loop"], GUARD).start();
    put(&host, "loop", 59_000, GUARD);
    host.wait_for_generation(2);
    let load = load(&host, json!({"model": "m", "data": [100_000_000], "timeout_ms": 2}), 504);
    eventually("deadlines", || (new_side(&host, "other") > 60.0).then_some(()), || host.log());
    assert_proven(&host, load);
    assert_eq!(new_side(&host, "fault"), 0.0);
}

#[test]
fn a_deadline_of_the_operators_counts() {
    let host = setup(&["copy", "loop"], GUARD).file("copy.onnx", model("gather")).start();
    // The new model runs `n` rounds, which takes long; the previous one only looks `n` up.
    put(&host, "loop", 5, GUARD);
    host.wait_for_generation(2);
    let load = load(&host, json!({"model": "m", "data": [100_000_000]}), 504);
    eventually("deadlines", || (new_side(&host, "fault") > 20.0).then_some(()), || host.log());
    load.stop();
}

#[test]
fn a_plugin_that_is_wrong_about_the_host_is_rolled_back() {
    let manifest = |to: &str| {
        format!(
            "[plugins.caller]\npath = \"caller.wasm\"\n\n[plugins.caller.config]\nto = \"{to}\"\n\n[models.outer]\n\
             plugin = \"caller\"\n\n[models.copy]\npath = \"copy.onnx\"\n\n{GUARD}\n"
        )
    };
    let setup =
        Setup::new(&manifest("copy")).file("caller.wasm", plugin("caller")).file("copy.onnx", model("copy"));
    let host = setup.start();
    replace(&host.path("hostler.toml"), manifest("nobody").as_bytes());
    host.wait_for_policy("a rollout", |policy| policy["rollout"]["generation"] == 2);
    let shot = Shot::predict("outer", &json!([1.0]));
    let load = Load::start(host.http, 2, shot, None, |answer: &Answer| {
        (![200, 500].contains(&answer.status)).then(|| answer.text())
    });
    let policy = host.wait_for_outcome("rolled_back");
    let why = policy["last_reload"]["errors"][0].as_str().unwrap();
    assert!(why.contains("outer:1 failed "), "{why}");
    assert_eq!(load.stop().faults, Vec::<String>::new());
}
