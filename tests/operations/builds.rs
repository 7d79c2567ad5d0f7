//! Tests what must continue while a policy is built, however long the build takes: rollbacks, the
//! guard, newer files, shutdown.

use crate::support::control::{load, unload};
use crate::support::{Host, Setup, eventually, model, plugin, replace};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A build with this model does not end within a test: its check runs until it is stopped.
const LONG: &str =
    "[models.loop]\npath = \"loop.onnx\"\ntimeout_ms = 600000\nchecks = [{ file = \"long.json\" }]\n";

/// An answer that waits for a build takes longer than this.
const AT_ONCE: Duration = Duration::from_secs(10);

fn manifest(more: &str) -> String {
    format!(
        "[server]\nmodel_control = \"explicit\"\n[models.plus]\npath = \"plus.onnx\"\n[models.other]\npath = \
         \"plus.onnx\"\n{more}\n"
    )
}

fn setup(more: &str) -> Setup {
    Setup::new(&manifest(more))
        .file("plus.onnx", model("plus1"))
        .file("loop.onnx", model("loop"))
        .text("long.json", r#"{"data": {"n": [1000000000000]}, "expect": {}}"#)
}

fn plus(host: &Host) -> f64 {
    host.predict("plus", json!([1.0])).result()["y"][0].as_f64().unwrap()
}

/// Starts a build that does not end before the test does.
fn begin_long_build(host: &Host, more: &str) {
    replace(&host.path("hostler.toml"), manifest(&format!("{LONG}{more}")).as_bytes());
    host.wait_for_policy("a build", |policy| policy["building"]["phase"] == "loading");
}

fn at_once<T>(what: &str, ask: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let answer = ask();
    assert!(started.elapsed() < AT_ONCE, "{what} took {:?}", started.elapsed());
    answer
}

#[test]
fn a_rollback_is_answered_at_once_and_what_is_being_built_does_not_go_live_behind_it() {
    let host = setup("").start();
    replace(&host.path("plus.onnx"), &std::fs::read(model("plus2")).unwrap());
    host.wait_for_generation(2);
    assert_eq!(plus(&host), 3.0);
    begin_long_build(&host, "");

    let conflict = at_once("a conflict", || host.admin_post("/admin/policy/rollback?generation=7"));
    assert_eq!((conflict.status, &conflict.json()["error"]["kind"]), (409, &json!("conflict")));
    let message = conflict.json()["error"]["message"].to_string();
    assert!(message.contains("generation 7") && message.contains("restore generation 1"), "{message}");
    assert_eq!(host.admin_post("/admin/policy/rollback?generation=x").status, 400);
    assert_eq!(host.policy()["building"]["phase"], "loading", "nothing has changed");

    let record = at_once("a rollback", || host.admin_post("/admin/policy/rollback?generation=1"));
    assert_eq!((record.status, &record.json()["outcome"]), (200, &json!("rolled_back")));
    assert_eq!((plus(&host), host.generation()), (2.0, 3));
    let policy = host.wait_for_policy("no build", |policy| policy["building"].is_null());
    assert_eq!((policy["stale"].as_bool(), policy["generation"].as_u64()), (Some(true), Some(3)));
    assert_eq!(policy["last_reload"]["outcome"], "rolled_back");
    assert_eq!(host.metric("hostler_reloads_total{outcome=\"refused\"}"), 1.0);
    // The content that was being built stays refused; other files go live.
    replace(&host.path("hostler.toml"), manifest("[executors.cpu]\nworkers = 3\n").as_bytes());
    let policy = host.wait_for_generation(4);
    assert_eq!(policy["last_reload"]["outcome"], "applied");
    assert_eq!(plus(&host), 3.0);
}

#[test]
fn a_newer_manifest_takes_the_place_of_one_that_is_being_built() {
    let host = setup("").start();
    begin_long_build(&host, "");
    replace(&host.path("hostler.toml"), manifest("[executors.cpu]\nworkers = 3\n").as_bytes());
    let policy = host.wait_for_generation(2);
    assert_eq!(policy["last_reload"]["outcome"], "applied");
    assert_eq!(host.executor("cpu")["workers"], 3);
}

#[test]
fn the_operator_and_clients_are_answered_at_once_during_a_build() {
    let host = setup("").start();
    begin_long_build(&host, "");
    at_once("the policy", || host.policy());
    assert_eq!(at_once("an unload", || unload(&host, "other")).status, 200);
    assert_eq!(at_once("a request", || plus(&host)), 2.0);
    let promoted = at_once("a promotion", || host.admin_post("/admin/policy/promote"));
    assert_eq!(promoted.status, 400, "there is nothing to promote");
    let policy = host.policy();
    assert_eq!(policy["building"]["phase"], "loading");
    assert!(policy["model_control"]["unloaded"]["other"].is_array(), "{policy}");
    // A build that still includes the model does not load it again after it was unloaded.
    replace(&host.path("hostler.toml"), manifest("[executors.cpu]\nworkers = 3\n").as_bytes());
    host.wait_for_policy("the workers", |policy| policy["executors"]["cpu"]["workers"] == 3);
    assert_eq!(host.predict("other", json!([1.0])).status, 404);
    assert_eq!(load(&host, "other", None).status, 200);
    assert_eq!(host.predict("other", json!([1.0])).status, 200);
}

#[test]
fn a_signal_ends_the_host_during_a_build() {
    let mut host = setup("").start();
    begin_long_build(&host, "");
    let started = Instant::now();
    host.signal("TERM");
    assert_eq!(host.wait().code(), Some(0), "{}", host.log());
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

#[test]
fn the_guard_judges_during_a_build() {
    let guard = "[reload.guard]\nwatch_ms = 600000\nmin_requests = 20\n";
    let faulty = |every: &str| {
        format!(
            "{guard}[plugins.faulty]\npath = \"faulty.wasm\"\n[plugins.faulty.config]\nfail_every = \"{every}\"\n\
             [models.asked]\nplugin = \"faulty\"\n"
        )
    };
    let host = setup(&faulty("0")).file("faulty.wasm", plugin("faulty")).start();
    replace(&host.path("hostler.toml"), manifest(&faulty("1")).as_bytes());
    host.wait_for_generation(2);
    begin_long_build(&host, &faulty("1"));
    let body = json!({"model": "asked", "data": [1.0]}).to_string();
    let rolled_back = eventually(
        "the guard's rollback",
        || {
            host.post("/predict", &body);
            Some(host.policy()).filter(|policy| policy["last_reload"]["outcome"] == "rolled_back")
        },
        || host.log(),
    );
    assert_eq!(rolled_back["last_reload"]["trigger"], "guard");
    assert_eq!(rolled_back["building"]["phase"], "loading", "newer files are still built");
}

#[test]
fn a_file_that_never_is_quiet_does_not_keep_others_from_going_live() {
    let reload = "[reload]\nquiet_max_ms = 300\n";
    let with_labels =
        |more: &str| manifest(&format!("{more}{reload}[models.plus.labels]\ny = \"labels.txt\"\n"));
    let host =
        Setup::new(&with_labels("")).file("plus.onnx", model("plus1")).text("labels.txt", "a\n").start();
    let labels = host.path("labels.txt");
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let writer = std::thread::spawn(move || {
        let mut number = 0;
        while stopped.recv_timeout(Duration::from_millis(20))
            == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
        {
            number += 1;
            std::fs::write(&labels, format!("{number}\n")).unwrap();
        }
    });
    replace(&host.path("hostler.toml"), with_labels("[executors.cpu]\nworkers = 3\n").as_bytes());
    let policy = host
        .wait_for_policy("the change of the manifest", |policy| policy["executors"]["cpu"]["workers"] == 3);
    drop(stop);
    writer.join().unwrap();
    let warning = |record: &Value| record["warnings"].to_string().contains("labels.txt");
    assert!(warning(&policy["last_reload"]) || host.log().contains("read while still changing"), "{policy}");
}

#[test]
fn a_shortage_of_descriptors_passes_and_the_reload_is_made_again() {
    let host = setup("").start();
    let limit = |soft: Option<u64>| {
        let mut old = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        let pid = host.pid() as libc::pid_t;
        // SAFETY: reads and changes the limits of the child process; both structures live through
        // the calls.
        unsafe {
            assert_eq!(libc::prlimit(pid, libc::RLIMIT_NOFILE, std::ptr::null(), &raw mut old), 0);
            let soft = soft.unwrap_or(old.rlim_max).min(old.rlim_max);
            let new = libc::rlimit { rlim_cur: soft, rlim_max: old.rlim_max };
            assert_eq!(libc::prlimit(pid, libc::RLIMIT_NOFILE, &raw const new, std::ptr::null_mut()), 0);
        }
    };
    // Open files stay open; no new ones can be opened.
    limit(Some(3));
    replace(&host.path("plus.onnx"), &std::fs::read(model("plus2")).unwrap());
    host.wait_for_log(&["outcome=\"rejected\"", "Too many open files", "retry_in_ms"]);
    limit(None);
    host.wait_for_generation(2);
    assert_eq!(plus(&host), 3.0);
    assert!(host.metric("hostler_reload_retries_total") >= 1.0);
    assert_eq!(host.policy()["stale"], false);
}
