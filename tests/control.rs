//! Triton's extensions that look at models and load them: configuration, statistics, repository.

mod support;

use serde_json::{Value, json};
use std::time::{Duration, Instant};
use support::gather::{gathered, predict, send};
use support::load::{Load, Shot};
use support::slow::{rounds_for, within};
use support::{Answer, Host, Setup, churn, model, replace};

/// `gather` takes batches, `plain` does not; both are the same file. `loop` runs until it is stopped.
const MODELS: &str = r#"
[executors.onnx]
workers = 1
sessions = 1

[models.loop]
path = "loop.onnx"

[models.gather]
path = "gather.onnx"
max_batch_size = 8
max_queue_delay_us = 100

[models.plain]
path = "gather.onnx"
timeout_ms = 5000
"#;

fn setup(server: &str, more: &str) -> Setup {
    let manifest = format!("[server]\n{server}\n{MODELS}\n{more}");
    Setup::new(&manifest).file("loop.onnx", model("loop")).file("gather.onnx", model("gather"))
}

/// Clients may load and unload.
fn controlled(more: &str) -> Host {
    setup("model_control = \"explicit\"", more).start()
}

fn config(host: &Host, model: &str) -> Value {
    ok(host.get(&format!("/v2/models/{model}/config")))
}

/// Of a model with one version.
fn statistics(host: &Host, model: &str) -> Value {
    ok(host.get(&format!("/v2/models/{model}/stats")))["model_stats"][0].clone()
}

fn ok(answer: Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn load(host: &Host, model: &str, config: Option<&Value>) -> Answer {
    let parameters = config.map_or(json!({}), |config| json!({"config": config.to_string()}));
    load_with(host, model, &parameters)
}

fn load_with(host: &Host, model: &str, parameters: &Value) -> Answer {
    let body = json!({"parameters": parameters}).to_string();
    host.post(&format!("/v2/repository/models/{model}/load"), body)
}

fn unload(host: &Host, model: &str) -> Answer {
    host.post(&format!("/v2/repository/models/{model}/unload"), "")
}

/// The answer is 200 and has no body.
fn done(answer: &Answer) {
    assert_eq!((answer.status, answer.text().as_str()), (200, ""));
}

fn is_ready(host: &Host, model: &str) -> bool {
    host.get(&format!("/v2/models/{model}/ready")).status == 200
}

fn index(host: &Host, body: &str) -> Vec<(String, String)> {
    let index = ok(host.post("/v2/repository/index", body));
    let entry = |entry: &Value| {
        let text = |key: &str| entry[key].as_str().unwrap_or_else(|| panic!("no {key} in {entry}"));
        assert_eq!(text("reason"), if text("state") == "UNAVAILABLE" { "unloaded" } else { "" });
        (format!("{}:{}", text("name"), text("version")), text("state").to_owned())
    };
    index.as_array().expect("a list").iter().map(entry).collect()
}

/// An error in the protocol's form.
fn refused(answer: &Answer, status: u16, parts: &[&str]) {
    assert_eq!(answer.status, status, "{}", answer.text());
    let json = answer.json();
    let message = json["error"].as_str().unwrap_or_else(|| panic!("{json} is no error"));
    for part in parts {
        assert!(message.contains(part), "{message}\nlacks {part}");
    }
}

#[test]
fn a_configuration_has_the_tensors_without_their_batch() {
    let host = setup("", "").start();
    let batched = config(&host, "gather");
    let expected = json!({
        "name": "gather",
        "platform": "hostler",
        "backend": "onnx",
        "version_policy": {"all": {}},
        "max_batch_size": 8,
        "input": [{"name": "x", "data_type": "TYPE_INT64", "format": "FORMAT_NONE", "dims": [], "optional": false}],
        "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": []}],
        "instance_group": [{"name": "onnx", "kind": "KIND_CPU", "count": 1, "gpus": []}],
        "dynamic_batching": {"preferred_batch_size": [8], "max_queue_delay_microseconds": 100},
        "model_transaction_policy": {"decoupled": false},
        "parameters": {"executor": {"string_value": "onnx"}},
    });
    assert_eq!(batched, expected);
    assert_eq!(ok(host.get("/v2/models/gather/versions/1/config")), expected);
    assert_eq!(ok(host.get("/v2/models/gather"))["inputs"][0]["shape"], json!([-1]));

    let plain = config(&host, "plain");
    assert_eq!(plain["max_batch_size"], 0);
    assert_eq!(plain.get("dynamic_batching"), None);
    assert_eq!(plain["input"][0]["dims"], json!([-1]));
    assert_eq!(plain["parameters"]["timeout_ms"], json!({"string_value": "5000"}));
    refused(&host.get("/v2/models/gathr/config"), 404, &["no model \"gathr\" (did you mean \"gather\"?)"]);
    refused(&host.get("/v2/models/plain/versions/2/config"), 404, &["no version \"2\""]);
    refused(&host.post("/v2/models/plain/config", ""), 405, &["GET only"]);
}

#[test]
fn a_configuration_names_every_datatype_and_the_transformer() {
    let manifest = "[models.all]\npath = \"all.onnx\"\n";
    let host = Setup::new(manifest).file("all.onnx", model("datatypes")).start();
    let inputs = config(&host, "all")["input"].clone();
    let types = inputs.as_array().unwrap().iter().map(|input| {
        (input["name"].as_str().unwrap().to_owned(), input["data_type"].as_str().unwrap().to_owned())
    });
    for (name, data_type) in types {
        let known = if name == "string" || name == "bytes" {
            "TYPE_STRING".into()
        } else {
            format!("TYPE_{}", name.to_uppercase())
        };
        assert_eq!(data_type, known, "{inputs}");
    }
    let host = churn::setup("").start();
    assert_eq!(config(&host, "bankchurn")["parameters"]["transformer"], json!({"string_value": "churn"}));
}

#[test]
fn statistics_count_answers_and_failures_and_what_they_took() {
    let host = setup("", "").start();
    let fresh = statistics(&host, "plain");
    assert_eq!((&fresh["last_inference"], &fresh["inference_count"]), (&json!(0), &json!(0)), "{fresh}");
    assert_eq!(fresh["batch_stats"], json!([]));
    for x in 0..5 {
        host.predict("plain", json!([x])).result();
    }
    let infer = json!({"inputs": [{"name": "x", "datatype": "INT64", "shape": [3], "data": [1, 2, 3]}]});
    ok(host.post("/v2/models/plain/infer", infer.to_string()));
    // Two of three items go well.
    let items = json!({"model": "plain", "items": [{"data": [1]}, {"data": ["one"]}, {"data": [2]}]});
    ok(host.post("/predict/batch", items.to_string()));
    // The model fails, and the caller does.
    assert_ne!(host.predict("plain", json!([99])).status, 200);
    assert_eq!(host.predict("plain", json!(["one"])).status, 400);

    let stats = statistics(&host, "plain");
    assert_eq!((&stats["name"], &stats["version"]), (&json!("plain"), &json!("1")));
    assert!(stats["last_inference"].as_u64().unwrap() > 1_600_000_000_000, "{stats}");
    assert_eq!((&stats["inference_count"], &stats["execution_count"]), (&json!(8), &json!(8)), "{stats}");
    let infer = &stats["inference_stats"];
    assert_eq!((&infer["success"]["count"], &infer["fail"]["count"]), (&json!(8), &json!(3)), "{stats}");
    let ns = |part: &str| infer[part]["ns"].as_u64().unwrap();
    for part in ["queue", "compute_input", "compute_infer", "compute_output"] {
        assert_eq!(infer[part]["count"], 8, "{part}: {stats}");
    }
    let parts = ns("queue") + ns("compute_input") + ns("compute_infer") + ns("compute_output");
    assert!(ns("compute_infer") > 0 && parts <= ns("success"), "{stats}");
    assert_eq!(infer["cache_hit"], json!({"count": 0, "ns": 0}));
    let batches = stats["batch_stats"].as_array().unwrap();
    assert_eq!((batches.len(), &batches[0]["batch_size"]), (1, &json!(1)), "{stats}");
    assert_eq!(batches[0]["compute_infer"]["count"], 8, "{stats}");
    // The same file under another name has its own.
    assert_eq!(statistics(&host, "gather")["inference_stats"]["success"]["count"], 0);
    let all = ok(host.get("/v2/models/stats"));
    assert_eq!(all["model_stats"].as_array().unwrap().len(), 3);
    assert_eq!(ok(host.get("/v2/models/plain/versions/1/stats"))["model_stats"][0]["inference_count"], 8);
    refused(&host.get("/v2/models/none/stats"), 404, &["no model \"none\""]);
    refused(&host.get("/v2/models/plain/versions/2/stats"), 404, &["no version \"2\""]);
}

#[test]
fn a_shared_run_counts_once_with_its_rows() {
    let host = setup("", "").start();
    let request = |rows: &[i64]| ("/predict", predict("gather", json!(rows)));
    for answer in gathered(&host, &[request(&[1]), request(&[2, 3]), request(&[4])]) {
        answer.result();
    }
    host.predict("gather", json!([5])).result();
    // More rows than may be put together run alone, and are no size of a batch.
    host.predict("gather", json!([1, 2, 3, 4, 5, 6, 7, 8, 9])).result();
    let stats = statistics(&host, "gather");
    assert_eq!((&stats["inference_count"], &stats["execution_count"]), (&json!(14), &json!(3)), "{stats}");
    assert_eq!(stats["inference_stats"]["success"]["count"], 5, "{stats}");
    let sizes: Vec<_> = stats["batch_stats"]
        .as_array()
        .unwrap()
        .iter()
        .map(|batch| {
            (batch["batch_size"].as_u64().unwrap(), batch["compute_infer"]["count"].as_u64().unwrap())
        })
        .collect();
    assert_eq!(sizes, [(1, 1), (4, 1)], "{stats}");
}

#[test]
fn statistics_go_on_while_their_route_is_the_same() {
    let host = setup("", "").start();
    host.predict("plain", json!([1])).result();
    host.predict("gather", json!([1])).result();
    let counts = || {
        let count = |model| statistics(&host, model)["inference_count"].as_u64().unwrap();
        (count("plain"), count("gather"))
    };
    let manifest = |delay: u32, timeout: u32| {
        let text = MODELS.replace("delay_us = 100", &format!("delay_us = {delay}"));
        text.replace("timeout_ms = 5000", &format!("timeout_ms = {timeout}"))
    };
    replace(&host.path("hostler.toml"), manifest(100, 4000).as_bytes());
    host.wait_for_generation(2);
    assert_eq!(counts(), (1, 1));
    replace(&host.path("hostler.toml"), manifest(200, 4000).as_bytes());
    host.wait_for_generation(3);
    assert_eq!(counts(), (1, 0), "gather is batched in another way");
}

#[test]
fn model_control_is_off_unless_the_manifest_allows_it() {
    for server in ["", "model_control = \"none\""] {
        let host = setup(server, "").start();
        for answer in [load(&host, "plain", None), unload(&host, "plain"), load(&host, "none", None)] {
            refused(
                &answer,
                503,
                &["explicit model load / unload is not allowed", "model_control = \"explicit\""],
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
    // Again is no error.
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
    // Of what is served as the manifest says, nothing changes.
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
    // A reload by a change of files leaves it so.
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
    // Numbers may be texts, as JSON of protobuf has them.
    done(&load(&host, "plain", Some(&json!({"max_batch_size": "16"}))));
    assert_eq!(config(&host, "plain")["max_batch_size"], 16);
    assert_eq!(config(&host, "plain")["input"][0]["dims"], json!([]));
    assert_eq!(three(), 1);
    let overlay = json!({"unloaded": {}, "overrides": {"plain": {"max_batch_size": 16}}});
    assert_eq!(host.policy()["model_control"], overlay);
    // A change of files leaves it, a load takes its place.
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
    // Who sends back all that it was given changes what it changes.
    let mut whole = now;
    whole["max_batch_size"] = json!(2);
    done(&load(&host, "plain", Some(&whole)));
    assert_eq!(config(&host, "plain")["max_batch_size"], 2);
    // Triton's way to say that requests run alone.
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
            &["file:1/model.onnx", "files are not taken from requests"],
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
    let odd = host.post("/v2/repository/models/plain/unload", r#"{"parameters": {"unload_dependents": 3}}"#);
    refused(&odd, 400, &["unload_dependents"]);
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
fn an_unload_waits_for_what_runs_and_stops_nothing() {
    let host = controlled("");
    let rounds = rounds_for(&host, Duration::from_secs(2));
    let mut running = send(&host, "/predict", &within(support::slow::rounds(rounds), 60_000));
    host.wait_for_policy("it to run", |policy| policy["executors"]["onnx"]["busy"] == 1);
    let http = host.http;
    let unloading = std::thread::spawn(move || {
        let answer = support::Client::new(http).post("/v2/repository/models/loop/unload", "");
        (answer, Instant::now())
    });
    host.wait_for_generation(2);
    assert!(!is_ready(&host, "loop"));
    assert_eq!(host.executor("onnx")["busy"], 1, "it runs on");
    let answer = running.receive().expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answered = Instant::now();
    let (unloaded, at) = unloading.join().unwrap();
    done(&unloaded);
    // The two answers come from one moment, over two connections.
    assert!(at + Duration::from_millis(500) > answered, "the unload was answered before the request");
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
    // Nothing of the files was refused.
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
    // Files that are mended are.
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
        refused(&answer, 503, &["is on its way to all requests"]);
    }
    assert!(is_ready(&host, "gather"));
    assert_eq!(host.admin_post("/admin/policy/promote").status, 200);
    done(&unload(&host, "gather"));
}
