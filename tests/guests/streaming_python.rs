//! Tests streaming models in Python: many concurrent calls in one instance, and which calls an
//! exception ends.

use crate::support::streaming::{Stream, ask, at_once, elements, request};
use crate::support::{Host, Setup, plugin};
use serde_json::json;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Starts a host with the model `repeat`, in Python.
fn repeat(limits: &str) -> Host {
    let manifest = format!(
        "[plugins.repeat]\npath = \"repeat.wasm\"\n{limits}\n\n[models.repeat]\nplugin = \"repeat\"\n"
    );
    // The first host compiles the component, and the others find it in the cache.
    static STARTING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    Setup::new(&manifest).file("repeat.wasm", plugin("repeat-py")).start()
}

fn traps(host: &Host) -> f64 {
    host.metric("hostler_plugin_traps_total{plugin=\"repeat\"}")
}

#[test]
fn a_hundred_requests_wait_side_by_side_in_one_instance() {
    let host = repeat("");
    let (answers, took) = at_once(&host, 100, &request(&[1000], 0, json!({})));
    for (status, lines) in answers {
        assert_eq!((status, elements(&lines)), (200, vec![100]), "{lines:?}");
    }
    assert!(took < Duration::from_secs(50), "a hundred waits of a second took {took:?}");
    assert_eq!(host.metric("hostler_plugin_instances{plugin=\"repeat\"}"), 1.0);
    host.wait_for_idle("cpu");
}

#[test]
fn responses_come_as_they_are_made() {
    let host = repeat("");
    let mut stream = Stream::open(host.http, &request(&[0, 20_000], 0, json!({})), "*/*");
    let (first, _) = stream.part().unwrap().expect("the first response");
    assert_eq!(first, "{\"result\":{\"OUT\":[100],\"IDX\":[0]}}\n");
    // Another call overtakes it in the same instance.
    assert_eq!(elements(&ask(&host, &request(&[0, 0], 0, json!({})))), [100, 101]);
    drop(stream);
    host.wait_for_idle("cpu");
    assert_eq!(traps(&host), 0.0);
}

/// Returns the responses and the error of a call that does `deed` at its second element, while
/// another call waits in the same instance.
fn misdeed(host: &Host, deed: &str) -> (Vec<i64>, String) {
    let mut beside = Stream::open(host.http, &request(&[0, 300], 0, json!({})), "*/*");
    beside.part().unwrap().expect("it has begun");
    let lines = ask(host, &request(&[0, 0, 0], 0, json!({"do": deed, "at": 1})));
    let error = lines.last().map(|line| line["error"]["message"].to_string()).unwrap_or_default();
    assert_eq!(elements(&beside.lines()), [101], "beside {deed}");
    (elements(&lines), error)
}

#[test]
fn an_exception_ends_its_own_request_with_its_text() {
    let host = repeat("");
    for (deed, message) in [
        ("fail", "asked to fail"),
        ("trap", "KeyError: 'asked to trap'"),
        ("type", "TypeError: expected a list of tensors"),
        ("lose", "asked to fail"),
        ("timer", "use hostler_concurrent.sleep"),
        ("exit", "SystemExit: 1"),
        ("dance", "is no deed"),
    ] {
        let (elements, error) = misdeed(&host, deed);
        assert_eq!(elements, [100], "{deed}: {error}");
        assert!(error.contains(message), "{deed}: {error}");
    }
    // An exception in a task that is never awaited does not fail the call.
    assert_eq!(misdeed(&host, "orphan").0, [100, 101, 102]);
    host.wait_for_idle("cpu");
    assert_eq!(traps(&host), 0.0, "{}", host.log());
    // The log has the traceback.
    host.wait_for_log(&["in misbehave"]);
}

#[test]
fn a_request_that_goes_on_without_its_caller_is_given_up() {
    let host = repeat("");
    let mut left = Stream::open(host.http, &request(&[0, 0], 0, json!({"do": "stay", "at": 1})), "*/*");
    left.part().unwrap().expect("the first response");
    drop(left);
    host.wait_for_idle("cpu");
    assert_eq!(elements(&ask(&host, &request(&[0], 0, json!({})))), [100]);
    assert_eq!(traps(&host), 0.0, "{}", host.log());
}

#[test]
fn a_loop_costs_the_instance_and_the_next_one_serves() {
    let host = repeat("turn_ms = 200");
    let refused = Stream::open(host.http, &request(&[0], 0, json!({"do": "spin"})), "*/*");
    assert_eq!(refused.status, 500);
    assert!(refused.lines()[0]["error"]["message"].as_str().unwrap().contains("turn_ms"));
    assert_eq!(elements(&ask(&host, &request(&[0], 0, json!({})))), [100]);
    assert_eq!(traps(&host), 1.0);
}
