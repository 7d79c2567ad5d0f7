//! Tests rollouts: a new version takes over in stages, a user who got it keeps it, and a bad
//! version is rolled back after few users have seen it.

use crate::support::load::{Load, one_of};
use crate::support::versions::{manifest, setup, shot};
use crate::support::{Answer, Client, Host, Setup, eventually, model, replace};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A step length that no test waits for.
const SLOW: &str = "step_ms = 600000";

fn plus_manifest(reload: &str, more: &str) -> String {
    format!("[models.plus]\npath = \"plus.onnx\"\n{more}\n{reload}\n")
}

fn plus_setup(reload: &str) -> Setup {
    Setup::new(&plus_manifest(reload, "")).file("plus.onnx", model("plus1"))
}

fn put_second(host: &Host) {
    replace(&host.path("plus.onnx"), &std::fs::read(model("plus2")).unwrap());
}

fn plus(host: &Host) -> f64 {
    host.predict("plus", json!([1.0])).result()["y"][0].as_f64().unwrap()
}

fn ask_as(client: &mut Client, user: &str, model: &str) -> Answer {
    let body = json!({"model": model, "data": [1.0]}).to_string();
    client.request("POST", "/predict", &[("x-user-id", user)], body.as_bytes())
}

/// Waits until the rollout of this generation has begun and its record, which is written shortly
/// afterwards, exists.
fn wait_for_candidate(host: &Host, generation: u64) -> Value {
    host.wait_for_policy("a candidate", |policy| {
        policy["rollout"]["generation"] == generation && policy["last_reload"]["outcome"] == "rolling_out"
    })
}

fn state(policy: &Value, state: &str) -> Option<u64> {
    let generations = policy["generations"].as_array()?;
    generations.iter().find(|entry| entry["state"] == state)?["generation"].as_u64()
}

#[test]
fn a_bad_version_is_taken_back_and_no_more_fail_than_the_canary_had() {
    let reload = format!("[reload.canary]\nsteps = [10, 50]\n{SLOW}\n[reload.guard]\nmin_requests = 40");
    let host = setup(&reload).start();
    let load = Load::start(host.http, 4, shot(), None, |answer: &Answer| {
        (answer.status != 200).then(|| answer.text())
    });
    replace(&host.path("hostler.toml"), manifest("fail_percent = \"20\"", &reload).as_bytes());
    let policy = host.wait_for_outcome("rolled_back");
    let outcome = load.stop();
    let why = policy["last_reload"]["errors"][0].as_str().unwrap();
    assert!(why.starts_with("generation 2 was rolled back by the guard: fragile:1 failed "), "{why}");
    assert_eq!((policy["generation"].as_u64(), policy["stale"].as_bool()), (Some(1), Some(true)));
    let share = outcome.faults.len() as f64 / outcome.answers as f64;
    eprintln!("{} of {} answers failed: {share:.4}; {why}", outcome.faults.len(), outcome.answers);
    assert!(!outcome.faults.is_empty() && share <= 0.10, "{share}");
    // Stays refused until the content changes; the changed content has a new generation number.
    replace(&host.path("hostler.toml"), manifest("fail_percent = \"20\"", &reload).as_bytes());
    host.wait_for_outcome("refused");
    replace(&host.path("hostler.toml"), manifest("release = \"3\"", &reload).as_bytes());
    assert_eq!(wait_for_candidate(&host, 3)["last_reload"]["outcome"], "rolling_out");
}

#[test]
fn a_good_version_takes_over_step_by_step_and_no_caller_goes_back() {
    let reload = "[reload.canary]\nsteps = [10, 50]\nstep_ms = 700\nby = \"header:x-user-id\"\n\
                  [reload.guard]\nmin_requests = 5\nlatency_floor_ms = 600000\nwatch_ms = 300";
    let host = plus_setup(reload).start();
    let mut client = host.client();
    put_second(&host);
    let users: Vec<String> = (0..40).map(|user| format!("user-{user}")).collect();
    let mut seen: BTreeMap<&str, Vec<(String, f64)>> = BTreeMap::new();
    let until = std::time::Instant::now() + crate::support::PATIENCE;
    while host.generation() < 2 {
        assert!(std::time::Instant::now() < until, "{}", host.log());
        for user in &users {
            let answer = ask_as(&mut client, user, "plus");
            let generation = answer.header("x-hostler-generation").unwrap().to_owned();
            seen.entry(user).or_default().push((generation, answer.result()["y"][0].as_f64().unwrap()));
        }
    }
    assert_eq!(host.metric("hostler_rollbacks_total{by=\"guard\"}"), 0.0, "{}", host.log());
    let mut early = 0;
    for (user, answers) in &seen {
        assert!(answers.is_sorted_by(|a, b| a.0 <= b.0), "{user} went back: {answers:?}");
        assert!(answers.iter().all(|(generation, y)| (generation == "1") == (*y == 2.0)), "{answers:?}");
        early += usize::from(answers[answers.len() / 2].0 == "2");
    }
    assert!(early < users.len(), "nobody was left for the last step");
    for (stage, share) in [("canary", "10"), ("canary", "50"), ("watch", "100")] {
        host.wait_for_log(&[
            "generation=2",
            &format!("stage=\"{stage}\""),
            &format!("share={share}"),
            "rollout stage entered",
        ]);
    }
    host.wait_for_log(&["generation=2", "stage=\"proven\""]);
    let policy = host.policy();
    assert_eq!(policy["last_reload"]["outcome"], "applied");
    assert_eq!(policy["last_reload"]["trigger"], "watch");
    assert!(policy["last_reload"]["phases_ms"]["models"].is_f64());
    assert_eq!((state(&policy, "live"), state(&policy, "previous")), (Some(2), Some(1)));
    assert_eq!(policy["rollout"], Value::Null);
    for outcome in ["rolling_out", "applied"] {
        assert!(host.metric(&format!("hostler_reloads_total{{outcome=\"{outcome}\"}}")) >= 1.0);
    }
}

#[test]
fn a_good_rollout_under_load_fails_no_request() {
    let reload = "[reload.canary]\nsteps = [1, 10, 50]\nstep_ms = 200\nshadow_ms = 200\nshadow_share = 50\n\
                  [reload.guard]\nmin_requests = 1\nlatency_floor_ms = 600000\nwatch_ms = 100";
    let host = plus_setup(reload).start();
    let judge = one_of("y", [json!([2.0]), json!([3.0])]);
    let load =
        Load::start(host.http, 8, crate::support::load::Shot::predict("plus", &json!([1.0])), None, judge);
    put_second(&host);
    host.wait_for_log(&["generation=2", "stage=\"proven\""]);
    let outcome = load.stop();
    assert_eq!(outcome.faults, Vec::<String>::new());
    assert_eq!(plus(&host), 3.0);
}

#[test]
fn an_operator_ends_a_rollout_in_either_direction() {
    let reload = format!("[reload.canary]\nsteps = [10]\n{SLOW}");
    let host = plus_setup(&reload).start();
    host.admin_post("/admin/policy/promote").refused(400, "invalid_input", &["no rollout is in progress"]);
    put_second(&host);
    let policy = wait_for_candidate(&host, 2);
    assert_eq!((state(&policy, "live"), state(&policy, "canary")), (Some(1), Some(2)));
    assert_eq!((policy["stale"].as_bool(), policy["generation"].as_u64()), (Some(false), Some(1)));
    assert_eq!(policy["rollout"]["share"], 10.0);
    assert_eq!(host.metric("hostler_rollout_share"), 10.0);
    assert_eq!(host.admin_post("/admin/reload?dry_run=true").json()["outcome"], "rolling_out");

    let record = host.admin_post("/admin/policy/rollback");
    assert_eq!((record.status, record.json()["outcome"].as_str()), (200, Some("rolled_back")));
    let policy = host.policy();
    assert_eq!((policy["generation"].as_u64(), &policy["rollout"]), (Some(1), &Value::Null));
    assert_eq!(plus(&host), 2.0);
    put_second(&host);
    let policy = host.wait_for_outcome("refused");
    let why = policy["last_reload"]["errors"][0].as_str().unwrap();
    let part = "the files of generation 2, which was rolled back; change them, or reload";
    assert!(why.contains(part), "{why}");

    // An operator's reload overrides the refusal.
    let again = host.admin_post("/admin/reload");
    assert_eq!((again.status, again.json()["outcome"].as_str()), (200, Some("rolling_out")));
    let promoted = host.admin_post("/admin/policy/promote");
    assert_eq!((promoted.status, promoted.json()["outcome"].as_str()), (200, Some("applied")));
    assert_eq!((plus(&host), host.generation()), (3.0, 3));
    // After the promotion the guard still watches it, and the previous policy is kept.
    assert_eq!(host.policy()["rollout"]["stage"], "watch");
    host.admin_post("/admin/policy/rollback");
    assert_eq!(plus(&host), 2.0);
    assert_eq!(host.admin_get("/admin/policy/promote").status, 405);
}

#[test]
fn newer_files_replace_the_candidate_and_the_old_ones_end_it() {
    let reload = format!("[reload.canary]\nsteps = [10]\n{SLOW}");
    let host = plus_setup(&reload).start();
    put_second(&host);
    wait_for_candidate(&host, 2);
    let newer = plus_manifest(&reload, "timeout_ms = 5000");
    replace(&host.path("hostler.toml"), newer.as_bytes());
    let policy = wait_for_candidate(&host, 3);
    assert_eq!((state(&policy, "live"), state(&policy, "canary")), (Some(1), Some(3)));
    // A bad file does not affect the candidate.
    replace(&host.path("plus.onnx"), b"junk");
    assert_eq!(host.wait_for_outcome("rejected")["rollout"]["generation"], 3);
    replace(&host.path("hostler.toml"), plus_manifest(&reload, "").as_bytes());
    replace(&host.path("plus.onnx"), &std::fs::read(model("plus1")).unwrap());
    let policy = host.wait_for_outcome("unchanged");
    assert_eq!((policy["generation"].as_u64(), &policy["rollout"]), (Some(1), &Value::Null));
    assert_eq!((policy["stale"].as_bool(), state(&policy, "canary")), (Some(false), None));
}

#[test]
fn a_model_that_only_the_candidate_has_is_answered_by_the_candidate() {
    let reload = format!("[reload.canary]\nsteps = [50]\nby = \"header:x-user-id\"\n{SLOW}");
    let host = plus_setup(&reload).start();
    let more = plus_manifest(&reload, "[models.other]\npath = \"plus.onnx\"");
    replace(&host.path("hostler.toml"), more.as_bytes());
    wait_for_candidate(&host, 2);
    let mut client = host.client();
    let mut status = |user: usize| ask_as(&mut client, &format!("user-{user}"), "other").status;
    let before: Vec<u16> = (0..40).map(&mut status).collect();
    assert!(before.contains(&200) && before.contains(&404), "{before:?}");
    assert_eq!(host.admin_post("/admin/policy/promote").status, 200);
    assert!((0..40).all(|user| status(user) == 200));
}

#[test]
fn a_shadow_sees_a_planted_difference_and_callers_do_not() {
    let reload = "[reload.canary]\nshadow_ms = 600000\nshadow_share = 100\nmax_difference_rate = 0.5\n\
                  [reload.guard]\nmin_requests = 20\nlatency_floor_ms = 600000";
    let host = plus_setup(reload).start();
    put_second(&host);
    let policy = wait_for_candidate(&host, 2);
    assert_eq!(
        (policy["rollout"]["stage"].as_str(), policy["rollout"]["share"].as_f64()),
        (Some("shadow"), Some(0.0))
    );
    let mut client = host.client();
    let body = json!({"model": "plus", "data": [1.0]}).to_string();
    let compared = || host.metric("hostler_shadow_requests_total");
    let mut sent = 0.0;
    while compared() < 20.0 {
        let answer = client.post("/predict", &body);
        assert_eq!(answer.result()["y"][0], 2.0);
        assert_eq!(answer.header("x-hostler-generation"), Some("1"));
        sent += 1.0;
        assert!(sent < 1000.0, "no copy is compared\n{}", host.log());
        // One copy at a time: a copy is dropped if the worker is not idle yet.
        let ended = || compared() + host.metric("hostler_shadow_dropped_total") == sent;
        eventually("the end of the copy", || ended().then_some(()), || host.log());
    }
    let policy = host.wait_for_outcome("rolled_back");
    let why = policy["last_reload"]["errors"][0].as_str().unwrap();
    assert!(why.contains("20 of 20 shadow answers differ (100 %), allowed 50 %"), "{why}");
    let counted = ["requests", "differences", "faults"]
        .map(|what| host.metric(&format!("hostler_shadow_{what}_total")));
    assert_eq!(counted, [20.0, 20.0, 0.0]);
    assert_eq!(client.post("/predict", &body).result()["y"][0], 2.0);
}

#[test]
fn a_shadow_without_a_difference_is_followed_by_the_canary() {
    let reload = "[reload.canary]\nsteps = [50]\nshadow_ms = 1000\nshadow_share = 100\nmax_difference_rate = 0\n\
                  step_ms = 100\n[reload.guard]\nmin_requests = 5\nlatency_floor_ms = 600000\nwatch_ms = 100";
    let host = plus_setup(reload).start();
    replace(&host.path("hostler.toml"), plus_manifest(reload, "timeout_ms = 5000").as_bytes());
    let body = json!({"model": "plus", "data": [1.0]}).to_string();
    let done = || {
        assert_eq!(host.post("/predict", &body).status, 200);
        host.log().contains("stage=\"proven\"").then_some(())
    };
    eventually("the new version", done, || host.log());
    assert_eq!(host.generation(), 2);
    assert!(host.metric("hostler_shadow_requests_total") >= 5.0);
    assert_eq!(host.metric("hostler_shadow_differences_total"), 0.0);
}

#[test]
fn a_copy_that_fails_is_the_guards_business_and_no_callers() {
    let reload = "[reload.canary]\nshadow_ms = 600000\nshadow_share = 100\n[reload.guard]\nmin_requests = 20";
    let host = setup(reload).start();
    replace(&host.path("hostler.toml"), manifest("fail_percent = \"100\"", reload).as_bytes());
    wait_for_candidate(&host, 2);
    let body = shot().body;
    let done = || {
        assert_eq!(host.post("/predict", &body).status, 200);
        (host.policy()["last_reload"]["outcome"] == "rolled_back").then_some(())
    };
    eventually("the shadow's end", done, || host.log());
    assert!(host.metric("hostler_shadow_faults_total") >= 20.0);
    let why = host.policy()["last_reload"]["errors"][0].as_str().unwrap().to_owned();
    assert!(why.contains("fragile:1 failed 2"), "{why}");
}
