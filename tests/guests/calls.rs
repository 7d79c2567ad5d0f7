//! Tests calls to models from plugins with blocking interfaces: transformers and models. A guest
//! that waits holds no worker, so a caller and its callee can share one. Errors are returned to the
//! guest as values, and recursive calls are refused.

use crate::support::custom::{all_answers, events};
use crate::support::load::{Load, Outcome, Shot};
use crate::support::{Answer, Host, Setup, eventually, model, plugin, replace};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// The same plugin in each language.
const LANGUAGES: [&str; 3] = ["caller", "caller-py", "caller-js"];

/// Returns a setup with the plugin `caller` under each name in `callers`, with its configuration.
/// All models run on `cpu` unless `rest` has a `[policy]`.
fn setup(callers: &[(&str, &str)], rest: &str) -> Setup {
    let mut manifest = "[executors.cpu]\nkind = \"thread-pool\"\nworkers = 1\n\n".to_owned();
    for (name, config) in callers {
        manifest += &format!(
            "[plugins.{name}]\npath = \"caller.wasm\"\ninstances = \"reused\"\n\n[plugins.{name}.config]\n{config}\n\n"
        );
    }
    Setup::new(&(manifest + rest))
        .file("caller.wasm", plugin("caller"))
        .file("copy.onnx", model("copy"))
        .file("plus1.onnx", model("plus1"))
}

/// Starts a host with the models `outer`, a plugin with this configuration, and `copy`, an ONNX
/// model. Both run on the only worker of `cpu`.
fn one_worker(config: &str) -> Host {
    let models = "[models.outer]\nplugin = \"caller\"\n\n[models.copy]\npath = \"copy.onnx\"\n\n[policy]\n\
                  outer = \"cpu\"\ncopy = \"cpu\"\n";
    setup(&[("caller", config)], models).start()
}

/// Sends requests to `model` from 50 connections until it has answered `answers` more.
fn load(host: &Host, shot: Shot, model: &str, answers: u64, expected: Value) -> Outcome {
    let judge = move |answer: &Answer| {
        let right = answer.status == 200 && answer.json()["result"] == expected;
        (!right).then(|| format!("{} {}", answer.status, answer.text()))
    };
    let until = all_answers(host, model) + answers;
    let load = Load::start(host.http, 50, shot, None, judge);
    let enough = || (all_answers(host, model) >= until).then_some(());
    eventually(&format!("{answers} answers of {model}"), enough, || host.log());
    load.stop()
}

fn ask(host: &Host, model: &str, x: &[f64], parameters: Value) -> Answer {
    let body = json!({"model": model, "data": x, "parameters": parameters});
    host.post("/predict", body.to_string())
}

fn traps(host: &Host, plugin: &str) -> f64 {
    host.metric(&format!("hostler_plugin_traps_total{{plugin=\"{plugin}\"}}"))
}

// Workers

#[test]
fn a_model_and_what_it_calls_share_one_worker() {
    for deed in ["call", "start", "twice"] {
        let host = one_worker(&format!("to = \"copy\"\ndo = \"{deed}\""));
        let expected = if deed == "twice" { json!({"y": [7.0, 7.0]}) } else { json!({"y": [7.0]}) };
        let outcome = load(&host, Shot::predict("outer", &json!([7.0])), "outer", 1_000, expected);
        assert_eq!(outcome.faults, Vec::<String>::new(), "{deed}");
        assert_eq!(host.metric("hostler_executor_timeouts_total{executor=\"cpu\"}"), 0.0, "{deed}");
        host.wait_for_idle("cpu");
    }
}

#[test]
fn a_transformer_and_its_model_and_what_it_calls_share_one_worker() {
    for language in LANGUAGES {
        let setup = setup(
            &[("around", "before = \"plus\"\nafter = \"plus\"")],
            "[executors.onnx]\nkind = \"onnx\"\nworkers = 1\n\n[models.copy]\npath = \"copy.onnx\"\n\
             transformer = \"around\"\n\n[models.batched]\npath = \"copy.onnx\"\ntransformer = \"around\"\n\
             max_batch_size = 8\n\n[models.plus]\npath = \"plus1.onnx\"\n",
        )
        .file("caller.wasm", plugin(language));
        let host = setup.start();
        for name in ["copy", "batched"] {
            let shot = Shot::predict(name, &json!([7.0, 8.0]));
            let outcome = load(&host, shot, name, 300, json!([9.0, 10.0]));
            assert_eq!(outcome.faults, Vec::<String>::new(), "{language}: {name}");
            let items: Vec<Value> = (0..40).map(|item| json!({"data": [item]})).collect();
            let answer = host.post("/predict/batch", json!({"model": name, "items": items}).to_string());
            let expected: Vec<Value> = (2..42).map(|item| json!([f64::from(item)])).collect();
            assert_eq!(answer.json()["results"], json!(expected), "{language}: {}", answer.text());
        }
        assert_eq!(host.metric("hostler_executor_timeouts_total{executor=\"onnx\"}"), 0.0, "{language}");
        host.wait_for_idle("onnx");
    }
}

#[test]
fn a_guest_that_waits_holds_no_worker() {
    // The callee sleeps on its own executor; meanwhile the caller's only worker serves other
    // requests.
    let host = setup(
        &[("caller", "to = \"slow\"")],
        "[executors.other]\nkind = \"thread-pool\"\nworkers = 1\n\n[plugins.faulty]\npath = \"faulty.wasm\"\n\n\
         [plugins.faulty.config]\nfast_ms = \"60000\"\n\n[models.outer]\nplugin = \"caller\"\n\n[models.slow]\n\
         plugin = \"faulty\"\n\n[models.copy]\npath = \"copy.onnx\"\n\n[policy]\nouter = \"cpu\"\ncopy = \"cpu\"\n\
         slow = \"other\"\n",
    )
    .file("faulty.wasm", plugin("faulty"))
    .start();
    let body = json!({"model": "outer", "data": [1.0]}).to_string();
    let mut waiting = host.client();
    waiting.begin("POST", "/predict", &[], body.as_bytes()).unwrap();
    let called = || (events(&host, "faulty", "calls") == 1).then_some(());
    eventually("the call of the slow model", called, || host.log());
    assert_eq!(host.predict("copy", json!([1.0])).result(), json!({"y": [1.0]}));
    assert_eq!(host.executor("other")["busy"], 1, "the slow model still works");
    waiting.leave();
    host.wait_for_idle("other");
    host.wait_for_idle("cpu");
    let late = json!({"model": "outer", "data": [1.0], "timeout_ms": 100}).to_string();
    host.post("/predict", late).refused(504, "deadline", &["the deadline of the request"]);
}

#[test]
fn a_guest_that_has_waited_goes_on_before_what_has_not_begun() {
    // When the call ends that the guest waits for, the caller's only worker has a second of other
    // work in its queue.
    const WAITING: usize = 20;
    let host = setup(
        &[("caller", "to = \"slow\"")],
        "[executors.other]\nkind = \"thread-pool\"\nworkers = 1\n\n[plugins.slow]\npath = \"faulty.wasm\"\n\n\
         [plugins.slow.config]\nfast_ms = \"200\"\n\n[plugins.queued]\npath = \"faulty.wasm\"\n\n\
         [plugins.queued.config]\nfast_ms = \"50\"\n\n[models.outer]\nplugin = \"caller\"\n\n[models.slow]\n\
         plugin = \"slow\"\n\n[models.queued]\nplugin = \"queued\"\n\n[policy]\nouter = \"cpu\"\n\
         queued = \"cpu\"\nslow = \"other\"\n",
    )
    .file("faulty.wasm", plugin("faulty"))
    .start();
    std::thread::scope(|scope| {
        let caller = scope.spawn(|| ask(&host, "outer", &[7.0], json!({})));
        let called = || (events(&host, "slow", "calls") == 1).then_some(());
        eventually("the call of the slow model", called, || host.log());
        let queued: Vec<_> =
            (0..WAITING).map(|_| scope.spawn(|| host.predict("queued", json!([1.0])).status)).collect();
        assert_eq!(caller.join().unwrap().result(), json!({"y": [7.0]}));
        assert!(events(&host, "queued", "finished") < WAITING as u64);
        assert!(queued.into_iter().all(|answer| answer.join().unwrap() == 200));
    });
    host.wait_for_idle("cpu");
}

#[test]
fn a_model_that_calls_models_takes_no_batches() {
    let models = "[models.outer]\nplugin = \"caller\"\nmax_batch_size = 4\n";
    let log = setup(&[("caller", "")], models).try_start().map(|_| ()).unwrap_err();
    assert!(log.contains("max_batch_size is 4, but the plugin calls other models"), "{log}");
}

// Called models

#[test]
fn a_call_finds_its_model_as_a_client_does() {
    let host = setup(
        &[("caller", ""), ("leaf", "")],
        "[executors.passed]\nkind = \"custom\"\nplugin = \"pass\"\ninner = \"cpu\"\n\n[plugins.pass]\n\
         path = \"pass.wasm\"\n\n[models.outer]\nplugin = \"caller\"\n\n[models.\"n:1\"]\npath = \"copy.onnx\"\n\n\
         [models.\"n:2\"]\npath = \"plus1.onnx\"\n\n[routing.n]\nweights = { 1 = 0, 2 = 100 }\n\n[models.custom]\n\
         path = \"plus1.onnx\"\n\n[models.leaf]\nplugin = \"leaf\"\n\n[policy]\nouter = \"cpu\"\ncustom = \"passed\"\n",
    )
    .file("pass.wasm", plugin("pass"))
    .start();
    let y = |parameters: Value| ask(&host, "outer", &[3.0], parameters).result()["y"].clone();
    assert_eq!(y(json!({"to": "n"})), json!([4.0]), "the routing rule gives version 2");
    assert_eq!(y(json!({"to": "n", "version": "1"})), json!([3.0]));
    assert_eq!(y(json!({"to": "custom"})), json!([4.0]));
    // The client named neither model, so these are failures of the plugin (500), not 404.
    for (to, part) in [
        (json!({"to": "nobody"}), "failed with not_found: no model \"nobody\""),
        (json!({"to": "n", "version": "9"}), "no version \"9\""),
    ] {
        let error = ask(&host, "outer", &[3.0], to).refused(500, "failed", &["plugin \"caller\"", part]);
        assert_eq!(error["plugin"], "caller");
        host.wait_for_log(&["ERROR", "failed", part]);
    }
    assert_eq!(traps(&host, "caller"), 0.0);
}

#[test]
fn id_and_parameters_are_inherited() {
    let models = "[models.outer]\nplugin = \"caller\"\n\n[models.leaf]\nplugin = \"leaf\"\n";
    let host = setup(&[("caller", "to = \"leaf\""), ("leaf", "")], models).start();
    let body = json!({"model": "outer", "data": [3.0], "parameters": {"offset": 0.5}}).to_string();
    let headers = [("content-type", "application/json"), ("x-request-id", "of-the-caller")];
    let answer = host.client().request("POST", "/predict", &headers, body.as_bytes());
    assert_eq!(answer.result(), json!({"y": [3.5]}));
    host.wait_for_log(&["leaf leaf of-the-caller"]);
}

#[test]
fn a_stream_is_read_one_response_after_the_other() {
    let host = setup(
        &[("streams", "to = \"repeat\"\ndo = \"stream\""), ("caller", "to = \"repeat\"")],
        "[plugins.repeat]\npath = \"repeat.wasm\"\n\n[models.outer]\nplugin = \"caller\"\n\n[models.streams]\n\
         plugin = \"streams\"\n\n[models.repeat]\nplugin = \"repeat\"\n",
    )
    .file("repeat.wasm", plugin("repeat"))
    .start();
    let many: Vec<f64> = (0..40).map(f64::from).collect();
    for x in [&many[..], &[], &[5.0]] {
        let answer = ask(&host, "streams", x, json!({}));
        assert_eq!(answer.result()["y"], json!(x));
    }
    let answer = ask(&host, "outer", &[1.0], json!({}));
    answer.refused(
        500,
        "failed",
        &["failed with unsupported: model \"repeat:1\" returns any number of responses; start a call"],
    );
    assert_eq!(traps(&host, "caller"), 0.0);
    host.wait_for_idle("cpu");
}

// Errors

#[test]
fn what_a_model_answers_is_a_value() {
    let host = setup(
        &[("caller", "to = \"bad\"")],
        "[plugins.faulty]\npath = \"faulty.wasm\"\n\n[plugins.faulty.config]\nfail_every = \"1\"\n\n\
         [models.outer]\nplugin = \"caller\"\n\n[models.bad]\nplugin = \"faulty\"\n",
    )
    .file("faulty.wasm", plugin("faulty"))
    .start();
    for deed in ["call", "start"] {
        let answer = ask(&host, "outer", &[1.0], json!({"do": deed}));
        answer.refused(503, "unavailable", &["as its config says"]);
    }
    assert_eq!(ask(&host, "outer", &[1.0], json!({"do": "catch"})).result(), json!({"y": [-1.0]}));
    let empty = ask(&host, "outer", &[1.0], json!({"to": "nobody", "do": "catch"}));
    assert_eq!(empty.result(), json!({"y": [-1.0]}));
    assert_eq!(traps(&host, "caller"), 0.0);
}

#[test]
fn a_transformer_in_any_language_passes_an_error_on() {
    for language in LANGUAGES {
        let host = setup(
            &[("around", "")],
            "[plugins.bad]\npath = \"faulty.wasm\"\nconfig = { fail_every = \"1\" }\n\n[plugins.slow]\n\
             path = \"faulty.wasm\"\nconfig = { fast_ms = \"60000\" }\n\n[models.bad]\nplugin = \"bad\"\n\n\
             [models.slow]\nplugin = \"slow\"\n\n[models.copy]\npath = \"copy.onnx\"\ntransformer = \"around\"\n",
        )
        .file("caller.wasm", plugin(language))
        .file("faulty.wasm", plugin("faulty"))
        .start();
        for place in ["before", "after"] {
            for (to, status, kind, part) in [
                ("nobody", 500, "failed", "no model \"nobody\""),
                ("bad", 503, "unavailable", "as its config says"),
                ("slow", 504, "deadline", "has not answered within 50000 us"),
            ] {
                let answer = ask(&host, "copy", &[1.0], json!({place: to, "within_us": "50000"}));
                answer.refused(status, kind, &[part]);
            }
        }
        assert_eq!(ask(&host, "copy", &[1.0], json!({})).result(), json!([1.0]), "{language}");
        assert_eq!(traps(&host, "around"), 0.0, "{language}");
    }
}

#[test]
fn a_model_that_is_not_ready_is_a_value_that_names_it() {
    let host = setup(
        &[("caller", "do = \"stream\"")],
        "[plugins.tired]\npath = \"repeat.wasm\"\nconfig = { unready = \"1000\" }\n\n[plugins.broken]\n\
         path = \"repeat.wasm\"\n\n[models.outer]\nplugin = \"caller\"\n\n[models.sleeps]\nplugin = \"tired\"\n\n\
         [models.traps]\nplugin = \"broken\"\n\n[models.copy]\npath = \"copy.onnx\"\n",
    )
    .file("repeat.wasm", plugin("repeat"))
    .start();
    let quarantined = || {
        let data = json!({"IN": [1], "DELAY": [0], "WAIT": [0]});
        let body = json!({"model": "traps", "data": data, "parameters": {"do": "trap"}});
        host.post("/predict/stream", body.to_string());
        (host.policy()["plugins"]["broken"]["replicas"][0]["state"] == "quarantined").then_some(())
    };
    eventually("the quarantine", quarantined, || host.log());
    for (name, plugin, why) in
        [("sleeps", "tired", "it reports that it is not ready"), ("traps", "broken", "it is quarantined")]
    {
        assert_eq!(host.get(&format!("/v2/models/{name}/ready")).status, 503);
        let (named, plugin) = (format!("model \"{name}:1\""), format!("plugin \"{plugin}\""));
        let answer = ask(&host, "outer", &[1.0], json!({"to": name}));
        answer.refused(503, "unavailable", &[&named, &plugin, why]);
        let caught = ask(&host, "outer", &[1.0], json!({"to": name, "do": "catch"}));
        assert_eq!(caught.result(), json!({"y": [-1.0]}), "{name}");
        host.wait_for_log(&["caught: ", &plugin, why]);
    }
    assert_eq!(traps(&host, "caller"), 0.0);
    assert_eq!(host.predict("copy", json!([1.0])).result(), json!({"y": [1.0]}));
    host.wait_for_idle("cpu");
}

#[test]
fn a_call_may_have_less_time_than_its_caller() {
    for executor in ["cpu", "other"] {
        let host = setup(
            &[("endless", "to = \"faulty\"")],
            &format!(
                "[executors.other]\nkind = \"thread-pool\"\nworkers = 1\n\n[models.copy]\npath = \"copy.onnx\"\n\n\
                 [plugins.faulty]\npath = \"faulty.wasm\"\n\n[plugins.faulty.config]\nfast_ms = \"60000\"\n\n[models.faulty]\n\
                 plugin = \"faulty\"\n\n[models.endless]\nplugin = \"endless\"\n\n[policy]\n\
                 copy = \"cpu\"\nendless = \"cpu\"\nfaulty = \"{executor}\"\n"
            ),
        )
        .file("faulty.wasm", plugin("faulty"))
        .start();
        let started = Instant::now();
        for deed in ["call", "start"] {
            let answer = ask(&host, "endless", &[1.0], json!({"within_us": "50000", "do": deed}));
            answer.refused(504, "deadline", &["has not answered within 50000 us"]);
        }
        let caught = ask(&host, "endless", &[1.0], json!({"within_us": "50000", "do": "catch"}));
        assert_eq!(caught.result(), json!({"y": [-1.0]}), "{executor}: it goes on");
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
        // The called model is stopped, and the workers are free.
        host.wait_for_idle(executor);
        assert_eq!(host.predict("copy", json!([1.0])).result(), json!({"y": [1.0]}));
        assert_eq!(traps(&host, "endless"), 0.0);
    }
}

#[test]
fn a_circle_ends_where_it_closes() {
    let models =
        "[models.a]\nplugin = \"a\"\n\n[models.b]\nplugin = \"b\"\n\n[models.itself]\nplugin = \"itself\"\n";
    let callers = [("a", "to = \"b\""), ("b", "to = \"a\""), ("itself", "to = \"itself\"")];
    let host = setup(&callers, models).start();
    let circle = "recursive model call: \"a:1\" -> \"b:1\" -> \"a:1\"";
    host.predict("a", json!([1.0])).refused(500, "failed", &[circle]);
    let circle = "recursive model call: \"itself:1\" -> \"itself:1\"";
    host.predict("itself", json!([1.0])).refused(500, "failed", &[circle]);
    for name in ["a", "b", "itself"] {
        assert_eq!(traps(&host, name), 0.0);
    }
    host.wait_for_idle("cpu");
}

#[test]
fn calls_have_a_depth_that_is_told() {
    let names: Vec<String> = (0..10).map(|depth| format!("m{depth}")).collect();
    let configs: Vec<String> = (1..=10).map(|depth| format!("to = \"m{depth}\"")).collect();
    let callers: Vec<_> = names.iter().zip(&configs).map(|(name, config)| (&**name, &**config)).collect();
    let models: Vec<String> =
        (0..10).map(|depth| format!("[models.m{depth}]\nplugin = \"m{depth}\"\n")).collect();
    let models = models.join("\n") + "\n[models.m10]\npath = \"copy.onnx\"\n";
    let host = setup(&callers, &models).start();
    assert_eq!(host.predict("m2", json!([1.0])).result(), json!({"y": [1.0]}), "eight calls");
    let path = "model calls nested more than 8 deep: \"m1:1\" -> \"m2:1\" -> \"m3:1\" -> \"m4:1\" -> \"m5:1\" -> \"m6:1\" -> \
                \"m7:1\" -> \"m8:1\" -> \"m9:1\" -> \"m10:1\"";
    host.predict("m1", json!([1.0])).refused(500, "failed", &[path]);
}

// Reloads

#[test]
fn a_request_calls_one_snapshot_while_models_are_swapped() {
    let host = setup(
        &[("caller", "to = \"target\"\ndo = \"twice\"")],
        "[models.outer]\nplugin = \"caller\"\n\n[models.target]\npath = \"target.onnx\"\n",
    )
    .file("target.onnx", model("plus1"))
    .start();
    let judge = |answer: &Answer| {
        let result = (answer.status == 200).then(|| answer.json()["result"]["y"].clone());
        let allowed = [json!([1.0, 1.0]), json!([2.0, 2.0])];
        let right = result.is_some_and(|result| allowed.contains(&result));
        (!right).then(|| format!("{} {}", answer.status, answer.text()))
    };
    let running = Load::start(host.http, 8, Shot::predict("outer", &json!([0.0])), None, judge);
    for swap in 0..10 {
        let before = all_answers(&host, "outer");
        let name = if swap % 2 == 0 { "plus2" } else { "plus1" };
        replace(&host.path("target.onnx"), &std::fs::read(model(name)).unwrap());
        host.wait_for_generation(swap + 2);
        let enough = || (all_answers(&host, "outer") >= before + 50).then_some(());
        eventually("answers between two swaps", enough, || host.log());
    }
    let outcome = running.stop();
    assert_eq!(outcome.faults, Vec::<String>::new());
}
