//! Tests models that call models, in Rust and in Python: two concurrent calls, a stream passed on,
//! and calls that fail, exceed their deadline, recurse or lose their client.

use crate::support::streaming::{Stream, ask, connect, elements, request, send};
use crate::support::{Host, Setup, plugin};
use serde_json::json;
use std::sync::{Mutex, PoisonError};

const ROUTERS: [&str; 2] = ["router", "router-py"];

/// Starts a host with the model `router` in one language, which calls `first` and `second`; both
/// are `faulty` with this configuration.
fn router(language: &str, first: &str, faulty: &str) -> Host {
    // The first host compiles the component, and the others find it in the cache.
    static STARTING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    Setup::new(&format!(
        "[executors.cpu]\nworkers = 4\n\n[plugins.router]\npath = \"router.wasm\"\n\n[plugins.router.config]\n\
         first = \"{first}\"\nsecond = \"second\"\n\n[plugins.faulty]\npath = \"faulty.wasm\"\n\
         instances = \"reused\"\n\n[plugins.faulty.config]\n{faulty}\n\n[models.router]\nplugin = \"router\"\n\n\
         [models.first]\nplugin = \"faulty\"\n\n[models.second]\nplugin = \"faulty\"\n"
    ))
    .file("router.wasm", plugin(language))
    .file("faulty.wasm", plugin("faulty"))
    .start()
}

fn traps(host: &Host) -> f64 {
    host.metric("hostler_plugin_traps_total{plugin=\"router\"}")
}

#[test]
fn the_answers_of_two_models_are_joined() {
    for language in ROUTERS {
        let host = router(language, "first", "fast_ms = \"150\"");
        assert_eq!(
            host.predict("router", json!([1.0, 2.0])).result(),
            json!({"first": [1.0, 2.0], "second": [1.0, 2.0]})
        );
        host.wait_for_idle("cpu");
    }
}

#[test]
fn both_models_are_asked_at_once_while_one_request_waits_and_stop_with_it() {
    for language in ROUTERS {
        let host = router(language, "first", "fast_ms = \"600000\"");
        let mut asked = connect(host.http).unwrap();
        send(&mut asked, &json!({"model": "router", "data": [1.0]}), "*/*").unwrap();
        host.wait_for_policy("two busy workers", |policy| policy["executors"]["cpu"]["busy"] == 2);
        drop(asked);
        host.wait_for_idle("cpu");
    }
}

#[test]
fn what_a_model_answers_is_never_a_trap() {
    for language in ROUTERS {
        let host = router(language, "nobody", "");
        let error = host.predict("router", json!([1.0]));
        let error = error.refused(500, "failed", &["failed with not_found: no model \"nobody\""]);
        assert_eq!(error["plugin"], "router");
        assert_eq!(traps(&host), 0.0);

        let host = router(language, "first", "fail_every = \"1\"");
        host.predict("router", json!([1.0])).refused(503, "unavailable", &["as its config says"]);
        assert_eq!(traps(&host), 0.0);

        let host = router(language, "first", "fast_ms = \"600000\"");
        let body = json!({"model": "router", "data": [1.0], "parameters": {"each_ms": 50}});
        host.post("/predict", body.to_string()).refused(504, "deadline", &["within 50000 us"]);
        assert_eq!(traps(&host), 0.0);
        // The calls that it made are cancelled too.
        host.wait_for_idle("cpu");
    }
}

#[test]
fn a_circle_ends_with_an_error() {
    for language in ROUTERS {
        let host = router(language, "router", "");
        let circle = "recursive model call: \"router:1\" -> \"router:1\"";
        host.predict("router", json!([1.0])).refused(500, "failed", &[circle]);
        assert_eq!(traps(&host), 0.0);
        host.wait_for_idle("cpu");
    }
}

#[test]
fn a_stream_is_passed_on_and_ends_with_its_caller() {
    for language in ["repeat", "repeat-py"] {
        let host = Setup::new(
            "[plugins.repeat]\npath = \"repeat.wasm\"\n\n[models.repeat]\nplugin = \"repeat\"\n\n[models.inner]\n\
             plugin = \"repeat\"\n",
        )
        .file("repeat.wasm", plugin(language))
        .start();
        let through = json!({"through": "inner"});
        assert_eq!(elements(&ask(&host, &request(&[0, 10, 0], 0, through.clone()))), [100, 101, 102]);
        let lines = ask(&host, &request(&[0, 0], 0, json!({"through": "inner", "do": "fail", "at": 1})));
        assert_eq!((elements(&lines), lines.len()), (vec![100], 2), "{language}: {lines:?}");
        let mut left = Stream::open(host.http, &request(&[0, 30_000], 0, through), "*/*");
        left.part().unwrap().expect("the first response");
        drop(left);
        host.wait_for_idle("cpu");
    }
}
