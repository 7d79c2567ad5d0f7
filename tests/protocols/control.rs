//! Triton's extensions for loading and unloading models, over HTTP.

use crate::support::control::*;
use crate::support::gather::{gathered, predict, send};
use crate::support::load::{Load, Shot};
use crate::support::slow::{rounds_for, within};
use crate::support::{Answer, Setup, model, replace};
use serde_json::json;
use std::io::Write;
use std::time::Duration;

#[test]
fn model_control_is_off_unless_the_manifest_allows_it() {
    for server in ["", "model_control = \"none\""] {
        let host = setup(server, "").start();
        for answer in [load(&host, "plain", None), unload(&host, "plain"), load(&host, "none", None)] {
            refused(
                &answer,
                503,
                &[
                    "explicit model load / unload is not allowed if polling is enabled",
                    "model_control = \"explicit\"",
                ],
            );
        }
        assert!(is_ready(&host, "plain"));
        assert_eq!(index(&host, "").len(), 3);
        assert_eq!(host.generation(), 1);
    }
    let error = setup("model_control = \"poll\"", "").try_start().err().expect("it is refused");
    assert!(error.contains("model_control = \"poll\" is not known"), "{error}");
}

#[test]
fn a_model_goes_and_comes_back() {
    let host = controlled("");
    let all = |plain: &str| {
        [("gather:1", "READY"), ("loop:1", "READY"), ("plain:1", plain)]
            .map(|(name, state)| (name.to_owned(), state.to_owned()))
            .to_vec()
    };
    assert_eq!(index(&host, ""), all("READY"));
    done(&unload(&host, "plain"));
    assert!(!is_ready(&host, "plain") && is_ready(&host, "gather"));
    assert_eq!(index(&host, "{}"), all("UNAVAILABLE"));
    assert_eq!(index(&host, r#"{"ready": true}"#), all("")[..2]);
    host.predict("plain", json!([1])).refused(404, "not_found", &["model \"plain\" was unloaded by request"]);
    refused(&host.get("/v2/models/plain/stats"), 404, &["unloaded by request"]);
    // A repeated unload is not an error.
    done(&unload(&host, "plain"));
    let policy = host.policy();
    assert_eq!(policy["model_control"], json!({"unloaded": {"plain": ["1"]}, "overrides": {}}));
    assert_eq!(policy["last_reload"]["trigger"], json!({"model_control": "unload plain"}));
    assert_eq!(policy["last_reload"]["changes"], json!(["model \"plain:1\": removed"]));
    assert_eq!((&policy["generation"], &policy["stale"]), (&json!(2), &json!(false)));

    done(&load(&host, "plain", None));
    assert!(is_ready(&host, "plain"));
    host.predict("plain", json!([1])).result();
    assert_eq!(index(&host, ""), all("READY"));
    let policy = host.policy();
    assert_eq!(policy["model_control"], json!({"unloaded": {}, "overrides": {}}));
    assert_eq!(policy["last_reload"]["trigger"], json!({"model_control": "load plain"}));
    // Loading a model that is already served as in the manifest changes nothing.
    done(&load(&host, "plain", None));
    assert_eq!(host.generation(), 3);
}

#[test]
fn the_last_model_can_go() {
    let setup = Setup::new("[server]\nmodel_control = \"explicit\"\n[models.plus]\npath = \"plus.onnx\"\n");
    let host = setup.file("plus.onnx", model("plus1")).start();
    done(&unload(&host, "plus"));
    assert_eq!(index(&host, ""), [("plus:1".to_owned(), "UNAVAILABLE".to_owned())]);
    done(&load(&host, "plus", None));
    assert_eq!(host.predict("plus", json!([1.0])).result()["y"], json!([2.0]));
}

#[test]
fn all_versions_go_with_their_rule_and_their_executor() {
    let more = "[models.\"two:a\"]\npath = \"gather.onnx\"\n[models.\"two:b\"]\npath = \"gather.onnx\"\n\
        [routing.two]\nweights = { a = 1, b = 1 }\n[policy]\n\"two:a\" = \"cpu\"\n";
    let host = controlled(more);
    done(&unload(&host, "two"));
    let states = index(&host, "");
    for version in ["two:a", "two:b"] {
        assert!(states.contains(&(version.to_owned(), "UNAVAILABLE".to_owned())), "{states:?}");
    }
    // A reload because of changed files does not change this.
    let text = std::fs::read_to_string(host.path("hostler.toml")).unwrap();
    replace(&host.path("hostler.toml"), text.replace("= 5000", "= 4000").as_bytes());
    host.wait_for_generation(3);
    assert!(!is_ready(&host, "two"));
    done(&load(&host, "two", None));
    assert_eq!(host.policy()["routes"]["two:a"], "cpu");
}

#[test]
fn overrides_take_effect_and_a_load_without_them_takes_them_back() {
    let host = controlled("");
    let three = || {
        let requests: Vec<_> = [1, 2, 3].map(|x| ("/predict", predict("plain", json!([x])))).into();
        let before = statistics(&host, "plain")["execution_count"].as_u64().unwrap();
        gathered(&host, &requests).iter().for_each(|answer| drop(answer.result()));
        statistics(&host, "plain")["execution_count"].as_u64().unwrap() - before
    };
    assert_eq!(three(), 3);
    // Numbers may be strings, as in the JSON form of protobuf.
    done(&load(&host, "plain", Some(&json!({"max_batch_size": "16"}))));
    assert_eq!(config(&host, "plain")["max_batch_size"], 16);
    assert_eq!(config(&host, "plain")["input"][0]["dims"], json!([]));
    assert_eq!(three(), 1);
    let overlay = json!({"unloaded": {}, "overrides": {"plain": {"max_batch_size": 16}}});
    assert_eq!(host.policy()["model_control"], overlay);
    // A reload because of changed files keeps the override; another load replaces it.
    replace(&host.path("gather.onnx"), &std::fs::read(model("identity")).unwrap());
    let text = std::fs::read_to_string(host.path("hostler.toml")).unwrap();
    replace(&host.path("gather.onnx"), &std::fs::read(model("gather")).unwrap());
    replace(
        &host.path("hostler.toml"),
        text.replace("queue_delay_us = 100", "queue_delay_us = 0").as_bytes(),
    );
    host.wait_for_policy("the change of files", |policy| {
        policy["description"]["model \"gather:1\""]["max_queue_delay_us"] == "0"
    });
    assert_eq!(config(&host, "plain")["max_batch_size"], 16);

    let own = json!({"timeout_ms": 700, "dynamic_batching": {"max_queue_delay_microseconds": 50}, "max_batch_size": 4});
    done(&load(&host, "plain", Some(&own)));
    let now = config(&host, "plain");
    assert_eq!(now["dynamic_batching"]["max_queue_delay_microseconds"], 50, "{now}");
    assert_eq!(now["parameters"]["timeout_ms"]["string_value"], "700", "{now}");
    // A client that sends back the whole configuration with one change makes only that change.
    let mut whole = now;
    whole["max_batch_size"] = json!(2);
    done(&load(&host, "plain", Some(&whole)));
    assert_eq!(config(&host, "plain")["max_batch_size"], 2);
    // Triton's notation for a model whose requests run alone.
    done(&load(&host, "gather", Some(&json!({"max_batch_size": 0}))));
    assert_eq!(config(&host, "gather")["max_batch_size"], 0);

    done(&load(&host, "plain", None));
    assert_eq!(config(&host, "plain")["max_batch_size"], 0);
    assert_eq!(config(&host, "plain")["parameters"]["timeout_ms"]["string_value"], "5000");
    assert_eq!(three(), 3);
}

#[test]
fn what_cannot_be_loaded_is_refused_and_changes_nothing() {
    let host = setup("model_control = \"explicit\"", "[models.fixed]\npath = \"fixed.onnx\"\n")
        .file("fixed.onnx", model("fixed"))
        .start();
    let config = |text: &str| json!({"config": text});
    let cases = [
        ("plain", config("\"parameters\": {"), 400, &["failed to load 'plain'", "not a JSON object"][..]),
        ("plain", config("[]"), 400, &["failed to load 'plain'", "not a JSON object"]),
        ("plain", json!({"config": {"max_batch_size": 1}}), 400, &["it must be a text"]),
        (
            "plain",
            config(r#"{"max_batch_sizes": 3}"#),
            400,
            &["\"max_batch_sizes\"", "did you mean \"max_batch_size\"?"],
        ),
        ("plain", config(r#"{"path": "/etc/passwd"}"#), 400, &["\"path\"", "only the manifest can set it"]),
        ("plain", config(r#"{"max_batch_size": "many"}"#), 400, &["max_batch_size", "whole number"]),
        (
            "plain",
            config(r#"{"max_batch_size": 100000}"#),
            400,
            &["failed to load", "it must be from 1 to 1024"],
        ),
        ("plain", config(r#"{"timeout_ms": 0}"#), 400, &["failed to load", "timeout_ms must be at least 1"]),
        ("plain", config(r#"{"max_queue_delay_us": 9}"#), 400, &["does nothing without max_batch_size"]),
        ("plain", config(r#"{"name": "other"}"#), 400, &["\"name\" has no counterpart"]),
        (
            "fixed",
            config(r#"{"max_batch_size": 4}"#),
            400,
            &["failed to load 'fixed'", "needs a free first dimension"],
        ),
        (
            "plain",
            json!({"file:1/model.onnx": "AAAA"}),
            400,
            &["file:1/model.onnx", "Invalid file path: files are not taken from requests"],
        ),
        ("plain", json!({"config": "{}", "file:a": "AAAA"}), 400, &["files are not taken from requests"]),
        ("plain", json!({"priority": 1}), 400, &["parameter \"priority\" is not known"]),
        ("wrong", json!({}), 404, &["failed to load 'wrong'", "no model \"wrong\""]),
        ("plane", json!({}), 404, &["did you mean \"plain\"?"]),
    ];
    for (name, parameters, status, parts) in cases {
        refused(&load_with(&host, name, &parameters), status, parts);
    }
    let huge = json!({"file:1/model.onnx": "A".repeat(20 << 20)});
    assert_eq!(load_with(&host, "plain", &huge).status, 413);
    let nested = format!("{}{}", "[".repeat(250_000), "]".repeat(250_000));
    refused(&load_with(&host, "plain", &config(&nested)), 400, &["failed to load 'plain'"]);
    refused(&host.post("/v2/repository/models/plain/load", "{\"parameters\": 3}"), 400, &["the body is not"]);
    refused(&unload(&host, "wrong"), 404, &["failed to unload 'wrong'"]);
    for (parameters, part) in [
        (json!({"unload_dependents": 3}), "parameter \"unload_dependents\" is 3; it is true or false"),
        (json!({"unload_all": true}), "parameter \"unload_all\" is not known; unload_dependents is"),
    ] {
        let body = json!({ "parameters": parameters }).to_string();
        refused(
            &host.post("/v2/repository/models/plain/unload", body),
            400,
            &["failed to unload 'plain'", part],
        );
    }
    refused(&host.get("/v2/repository/index"), 405, &["POST only"]);
    refused(&host.get("/v2/repository/models/plain/load"), 405, &["POST only"]);
    refused(&host.post("/v2/repository/index", "{\"ready\": 3}"), 400, &["the body is not"]);
    let policy = host.policy();
    assert_eq!((&policy["generation"], &policy["stale"]), (&json!(1), &json!(false)), "{}", host.log());
    assert_eq!(policy["model_control"], json!({"unloaded": {}, "overrides": {}}));
    host.predict("plain", json!([1])).result();
    done(&host.post("/v2/repository/models/plain/unload", r#"{"parameters": {"unload_dependents": true}}"#));
}

#[test]
fn bodies_that_are_packed_are_read() {
    let host = controlled("");
    let packed = |body: &str| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(body.as_bytes()).and_then(|()| encoder.finish()).unwrap()
    };
    let post = |path: &str, body: &[u8]| {
        host.client().request(
            "POST",
            &format!("/v2/repository/{path}"),
            &[("content-encoding", "gzip")],
            body,
        )
    };
    let sixteen = json!({"parameters": {"config": "{\"max_batch_size\": 16}"}}).to_string();
    done(&post("models/plain/load", &packed(&sixteen)));
    assert_eq!(config(&host, "plain")["max_batch_size"], 16);
    done(&post("models/plain/unload", &packed("{\"parameters\": {\"unload_dependents\": true}}")));
    assert_eq!(ok(post("index", &packed("{\"ready\": true}"))).as_array().map(Vec::len), Some(2));
    for path in ["index", "models/plain/load", "models/plain/unload"] {
        refused(&post(path, b"garbage"), 400, &["the body is not gzip, as its Content-Encoding says"]);
        refused(&post(path, &packed(&" ".repeat(17 << 20))), 413, &["unpacks to over 16 MB"]);
    }
}

#[test]
fn an_unload_waits_for_what_runs_and_stops_nothing() {
    let host = controlled("");
    let rounds = rounds_for(&host, Duration::from_secs(4));
    let mut running = send(&host, "/predict", &within(crate::support::slow::rounds(rounds), 60_000));
    host.wait_for_policy("it to run", |policy| policy["executors"]["onnx"]["busy"] == 1);
    let http = host.http;
    let unloading = std::thread::spawn(move || {
        crate::support::Client::new(http).post("/v2/repository/models/loop/unload", "")
    });
    host.wait_for_generation(2);
    assert!(!is_ready(&host, "loop"));
    let is_unloaded = unloading.is_finished();
    assert_eq!(host.executor("onnx")["busy"], 1, "it runs on");
    assert!(!is_unloaded, "the unload was answered before the request");
    let answer = running.receive().expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    done(&unloading.join().unwrap());
}

#[test]
fn others_are_served_all_the_time() {
    let host = controlled("");
    let shot = Shot::predict("gather", &json!([3]));
    let good = |answer: &Answer| {
        let right = answer.status == 200 && answer.json()["result"]["y"] == json!([0.3]);
        (!right).then(|| format!("{} {}", answer.status, answer.text()))
    };
    let traffic = Load::start(host.http, 8, shot, None, good);
    for round in 0..20 {
        done(&unload(&host, "plain"));
        assert!(!is_ready(&host, "plain"));
        let size = json!({"max_batch_size": 2 + round});
        done(&load(&host, "plain", (round % 2 == 0).then_some(&size)));
        assert!(is_ready(&host, "plain"));
    }
    let outcome = traffic.stop();
    assert_eq!(outcome.faults, Vec::<String>::new(), "of {}", outcome.answers);
    assert!(outcome.answers > 100, "{}", outcome.answers);
}

#[test]
fn an_operators_reload_is_by_the_manifest_alone() {
    let host = controlled("");
    done(&unload(&host, "plain"));
    done(&load(&host, "gather", Some(&json!({"max_batch_size": 2}))));
    let record = ok(host.admin_post("/admin/reload?dry_run=true"));
    assert!(record["changes"].as_array().unwrap().contains(&json!("model \"plain:1\": added")), "{record}");
    assert!(!is_ready(&host, "plain"));
    assert_eq!(ok(host.admin_post("/admin/reload"))["outcome"], "applied");
    assert!(is_ready(&host, "plain"));
    assert_eq!(config(&host, "gather")["max_batch_size"], 8);
    assert_eq!(host.policy()["model_control"], json!({"unloaded": {}, "overrides": {}}));
}

#[test]
fn a_rollback_takes_back_a_load_and_not_an_unload() {
    let host = controlled("");
    done(&load(&host, "gather", Some(&json!({"max_batch_size": 2}))));
    done(&unload(&host, "plain"));
    let record = ok(host.admin_post("/admin/policy/rollback"));
    assert_eq!(record["outcome"], "rolled_back");
    assert_eq!(config(&host, "gather")["max_batch_size"], 8);
    assert!(!is_ready(&host, "plain"), "its memory is free, so it is not there to come back");
    let policy = host.policy();
    assert_eq!(policy["model_control"], json!({"unloaded": {"plain": ["1"]}, "overrides": {}}));
    assert_eq!(policy["stale"], false);
    // The rollback did not mark the files as refused: loads still work.
    done(&load(&host, "gather", Some(&json!({"max_batch_size": 2}))));
    done(&load(&host, "plain", None));
    host.predict("plain", json!([1])).result();
}

#[test]
fn what_was_rolled_back_does_not_come_with_a_load() {
    let host = controlled("");
    let good = std::fs::read_to_string(host.path("hostler.toml")).unwrap();
    replace(&host.path("hostler.toml"), good.replace("= 5000", "= 4000").as_bytes());
    host.wait_for_generation(2);
    ok(host.admin_post("/admin/policy/rollback"));
    done(&unload(&host, "gather"));
    refused(&load(&host, "gather", None), 503, &["failed to load 'gather'", "was rolled back"]);
    assert_eq!(host.policy()["description"]["model \"plain:1\""]["timeout_ms"], "5000");
    // Fixed files are loaded.
    replace(&host.path("hostler.toml"), good.replace("= 5000", "= 3000").as_bytes());
    host.wait_for_policy("the mended files", |policy| {
        policy["description"]["model \"plain:1\""]["timeout_ms"] == "3000"
    });
    assert!(!is_ready(&host, "gather"));
    done(&load(&host, "gather", None));
    assert!(is_ready(&host, "gather"));
}

#[test]
fn a_load_reads_the_files_anew() {
    let manifest = "[server]\nmodel_control = \"explicit\"\n[models.plus]\npath = \"plus.onnx\"\n\
        [models.other]\npath = \"other.onnx\"\n[reload]\nmode = \"manual\"\n";
    let setup = Setup::new(manifest).file("plus.onnx", model("plus1"));
    let host = setup.file("other.onnx", model("plus1")).start();
    let plus = || host.predict("plus", json!([1.0])).result()["y"][0].clone();
    replace(&host.path("plus.onnx"), &std::fs::read(model("plus2")).unwrap());
    done(&unload(&host, "other"));
    assert_eq!(plus(), 2.0, "an unload reads nothing");
    done(&load(&host, "plus", None));
    assert_eq!(plus(), 3.0);
    replace(&host.path("plus.onnx"), b"junk");
    refused(&load(&host, "plus", None), 503, &["failed to load 'plus'", "ONNX Runtime cannot load it"]);
    assert_eq!(plus(), 3.0);
    done(&unload(&host, "plus"));
    refused(&load(&host, "plus", None), 503, &["failed to load 'plus'"]);
    replace(&host.path("plus.onnx"), &std::fs::read(model("plus1")).unwrap());
    done(&load(&host, "plus", None));
    assert_eq!(plus(), 2.0);
}

#[test]
fn a_load_goes_live_at_once_and_not_beside_a_canary() {
    let canary = "[reload.canary]\nsteps = [50]\nstep_ms = 600000\n";
    let host = controlled(canary);
    done(&unload(&host, "plain"));
    done(&load(&host, "plain", Some(&json!({"max_batch_size": 4}))));
    assert_eq!(config(&host, "plain")["max_batch_size"], 4);
    assert_eq!(host.policy()["rollout"]["stage"], "watch");
    let text = std::fs::read_to_string(host.path("hostler.toml")).unwrap();
    replace(&host.path("hostler.toml"), text.replace("= 5000", "= 4000").as_bytes());
    host.wait_for_policy("the canary", |policy| policy["rollout"]["stage"] == "canary");
    for answer in [load(&host, "gather", None), unload(&host, "gather")] {
        refused(&answer, 503, &["is being rolled out"]);
    }
    assert!(is_ready(&host, "gather"));
    assert_eq!(host.admin_post("/admin/policy/promote").status, 200);
    done(&unload(&host, "gather"));
}
