//! Tests models that are served on request: a host with model control may start without them, or
//! without any model.

use crate::support::control::*;
use crate::support::{Host, Setup, model, replace};
use serde_json::json;

const EXPLICIT: &str = "[server]\nmodel_control = \"explicit\"\n";
const PLUS: &str = "[models.plus]\npath = \"plus.onnx\"\n";
const LATER: &str = "[models.later]\npath = \"later.onnx\"\nload = \"on-request\"\n";

fn states(host: &Host) -> Vec<String> {
    index(host, "").into_iter().map(|(name, state)| format!("{name} {state}")).collect()
}

fn later(host: &Host) -> String {
    let answer = host.predict("later", json!([1.0]));
    if answer.status == 200 { answer.result()["y"].to_string() } else { answer.text() }
}

#[test]
fn a_host_starts_with_no_model_and_serves_what_clients_load() {
    let host = Setup::new(EXPLICIT).file("plus.onnx", model("plus1")).start();
    assert_eq!((host.get("/v2/health/ready").status, host.get("/ready").status), (200, 200));
    assert!(index(&host, "").is_empty());
    refused(&load(&host, "plus", None), 404, &["the manifest has no model \"plus\""]);
    replace(&host.path("hostler.toml"), format!("{EXPLICIT}{PLUS}").as_bytes());
    host.wait_for_generation(2);
    assert_eq!(host.predict("plus", json!([1.0])).result()["y"], json!([2.0]));

    // Without model control nothing could ever be served.
    let (code, _, err) = Setup::new("").run(&["check", "hostler.toml"]);
    assert!(code == 1 && err.contains("the manifest serves no model"), "{err}");
}

#[test]
fn a_model_on_request_waits_for_a_client() {
    // Its file is not there yet, so it cannot have been read.
    let manifest = format!("{EXPLICIT}{PLUS}{LATER}[policy]\nlater = \"cpu\"\n");
    let host = Setup::new(&manifest).file("plus.onnx", model("plus1")).start();
    assert_eq!(states(&host), ["later:1 UNAVAILABLE", "plus:1 READY"]);
    assert!(later(&host).contains("served on request"), "{}", later(&host));
    assert_eq!(host.get("/v2/health/ready").status, 200);
    refused(&load(&host, "later", None), 503, &["failed to load 'later'", "later.onnx"]);

    replace(&host.path("later.onnx"), &std::fs::read(model("plus2")).unwrap());
    done(&load(&host, "later", None));
    assert_eq!(later(&host), "[3.0]");
    assert_eq!(states(&host), ["later:1 READY", "plus:1 READY"]);
    assert_eq!(host.policy()["model_control"]["loaded"], json!(["later"]));

    // A change of the files keeps it; an unload, and a reload by the operator, end it.
    replace(&host.path("hostler.toml"), format!("{manifest}[executors.cpu]\nworkers = 3\n").as_bytes());
    host.wait_for_policy("the workers", |policy| policy["executors"]["cpu"]["workers"] == 3);
    assert_eq!(later(&host), "[3.0]");
    done(&unload(&host, "later"));
    assert!(later(&host).contains("served on request"), "{}", later(&host));
    done(&load(&host, "later", None));
    assert_eq!(later(&host), "[3.0]");
    assert_eq!(host.admin_post("/admin/reload").json()["outcome"], "applied");
    assert_eq!(states(&host), ["later:1 UNAVAILABLE", "plus:1 READY"]);

    // From now on it is served from the start.
    replace(&host.path("hostler.toml"), manifest.replace("on-request", "at-start").as_bytes());
    host.wait_for_policy("the model", |policy| policy["routes"]["later:1"] == "cpu");
    assert_eq!(later(&host), "[3.0]");
    assert_eq!(host.policy()["model_control"], json!({"unloaded": {}, "overrides": {}}));
}

#[test]
fn a_pipeline_waits_for_its_models_on_request() {
    let pipeline = "[models.flow]\npipeline = \"flow\"\n[pipelines.flow]\ninputs = { x = \"FP32[-1]\" }\n\
        outputs = { y = \"step.y\" }\n[pipelines.flow.steps.step]\nmodel = \"later\"\nin = { x = \"input.x\" }\n";
    let setup = Setup::new(&format!("{EXPLICIT}{LATER}{pipeline}")).file("later.onnx", model("plus2"));
    let host = setup.start();
    host.predict("flow", json!({"x": [1.0]})).refused(
        503,
        "unavailable",
        &["\"later\" is served on request"],
    );
    done(&load(&host, "later", None));
    assert_eq!(host.predict("flow", json!({"x": [1.0]})).result()["y"], json!([3.0]));
}

#[test]
fn the_key_is_checked() {
    for (manifest, parts) in [
        (LATER.to_owned(), &["hostler.toml:3:8", "clients cannot load models", "model_control"][..]),
        (
            format!("{EXPLICIT}{PLUS}load = \"later\"\n"),
            &["hostler.toml:5:8", "load = \"later\" is not known", "\"on-request\""],
        ),
        (
            format!(
                "{EXPLICIT}{LATER}[models.\"later:2\"]\npath = \"later.onnx\"\n[routing.later]\nweights = {{ 1 = 1 }}\n"
            ),
            &["hostler.toml:5:8", "other versions of \"later\" are loaded at start"],
        ),
    ] {
        let setup =
            Setup::new(&manifest).file("plus.onnx", model("plus1")).file("later.onnx", model("plus2"));
        let (code, _, err) = setup.run(&["check", "hostler.toml"]);
        assert_eq!(code, 1, "{manifest}");
        for part in parts {
            assert!(err.contains(part), "{manifest}\n{err}\nlacks {part}");
        }
    }
}
