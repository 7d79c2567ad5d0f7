//! Tests pipelines that change while they serve: every answer is entirely from one graph, and the
//! guard judges models by their calls in pipelines.

use crate::support::control::{done, is_ready, load, unload};
use crate::support::load::{Load, Shot};
use crate::support::pipelines::{manifest, setup, steppers};
use crate::support::{Answer, repeats, replace};
use serde_json::{Value, json};

const MODELS: &[(&str, &str)] =
    &[("one", "add = \"1\""), ("ten", "add = \"10\""), ("both", "inputs = \"a,b\"")];

/// Graphs whose answers show which graph returned both outputs.
fn graph(number: usize) -> String {
    let steps = number % 4 + 1;
    let mut text = format!("[pipelines.p]\noutputs = {{ r = \"s{}.y\", n = \"n.y\" }}\n", steps - 1);
    for step in 0..steps {
        let from = if step == 0 { "input.x".to_owned() } else { format!("s{}.y", step - 1) };
        let model = if (number / 4 + step).is_multiple_of(2) { "one" } else { "ten" };
        text += &format!("[pipelines.p.steps.s{step}]\nmodel = \"{model}\"\nin = {{ a = \"{from}\" }}\n");
    }
    text += "[pipelines.p.steps.n]\nmodel = \"both\"\n";
    text + &format!("in = {{ a = {{ const = [{number}.0] }}, b = {{ const = [0.0] }} }}\n")
}

fn answer(number: usize) -> Value {
    let steps = number % 4 + 1;
    let sum: usize = (0..steps).map(|step| if (number / 4 + step).is_multiple_of(2) { 1 } else { 10 }).sum();
    json!({"r": [sum as f64], "n": [number as f64]})
}

fn swaps() -> usize {
    repeats(20)
}

#[test]
fn every_answer_is_wholly_one_graphs() {
    let host = setup(&manifest(MODELS, &graph(0))).start();
    let judge = |reply: &Answer| {
        let result = if reply.status == 200 { reply.result() } else { Value::Null };
        let number = result["n"][0].as_f64().unwrap_or(-1.0);
        let is_right = number >= 0.0 && result == answer(number as usize);
        (!is_right).then(|| reply.text())
    };
    let load = Load::start(host.http, 50, Shot::predict("p", &json!({"x": [0]})), None, judge);
    for number in 1..=swaps() {
        replace(&host.path("hostler.toml"), manifest(MODELS, &graph(number % 8)).as_bytes());
        let record = host.admin_post("/admin/reload").json();
        let outcome = record["outcome"].as_str().unwrap();
        assert!(outcome == "applied" || outcome == "unchanged", "{record}");
    }
    let outcome = load.stop();
    assert_eq!(outcome.faults, Vec::<String>::new());
    eprintln!("{} answers through {} swaps", outcome.answers, swaps());
    host.wait_for_idle("pipeline");
}

#[test]
fn a_bad_version_of_an_inner_model_is_taken_back_though_its_step_is_skipped() {
    let text = |config: &str| {
        let reload = "[reload.canary]\nsteps = [50]\nstep_ms = 600000\n[reload.guard]\nmin_requests = 40\n";
        format!(
            "{}[plugins.bad]\npath = \"stepper.wasm\"\n[plugins.bad.config]\n{config}\n[models.bad]\nplugin = \"bad\"\n\
             [models.p]\npipeline = \"p\"\n[pipelines.p]\noutputs = {{ r = [\"a.y\", \"input.x\"] }}\n\
             [pipelines.p.steps.a]\nmodel = \"bad\"\nin = {{ a = \"input.x\" }}\non_error = \"skip\"\n{reload}",
            steppers(&[])
        )
    };
    let host = setup(&text("add = \"0\"")).start();
    let load = Load::start(host.http, 4, Shot::predict("p", &json!({"x": [1]})), None, |answer: &Answer| {
        (answer.status != 200).then(|| answer.text())
    });
    replace(&host.path("hostler.toml"), text("fail_below = \"5\"").as_bytes());
    let policy = host.wait_for_outcome("rolled_back");
    let outcome = load.stop();
    assert_eq!(outcome.faults, Vec::<String>::new(), "no caller has seen it");
    let why = policy["last_reload"]["errors"][0].as_str().unwrap();
    assert!(why.contains("bad:1 failed "), "{why}");
}

#[test]
fn an_unloaded_model_makes_its_pipelines_unavailable_until_it_is_back() {
    let outer = "[pipelines.p]\noutputs = { r = \"a.y\" }\n\
                 [pipelines.p.steps.a]\nmodel = \"one\"\nin = { a = \"input.x\" }\n\
                 [models.q]\npipeline = \"q\"\n[pipelines.q]\noutputs = { r = \"a.r\" }\n\
                 [pipelines.q.steps.a]\nmodel = \"p\"\nin = { x = \"input.x\" }\n";
    let text = format!("[server]\nmodel_control = \"explicit\"\n{}", manifest(MODELS, outer));
    let host = setup(&text).start();
    let ask = |model: &str| host.predict(model, json!({"x": [1]}));
    assert_eq!(ask("q").result(), json!({"r": [2.0]}));
    done(&unload(&host, "one"));
    for model in ["p", "q"] {
        ask(model).refused(503, "unavailable", &["model \"one\" was unloaded by request"]);
        assert!(!is_ready(&host, model));
    }
    assert_eq!(host.get("/ready").status, 200, "a client's unload is not the host's trouble");
    done(&load(&host, "one", None));
    assert_eq!(ask("q").result(), json!({"r": [2.0]}));
    assert!(is_ready(&host, "q"));
    // Unloads the model with its dependents: they are unloaded too, not broken.
    let body = json!({"parameters": {"unload_dependents": true}}).to_string();
    done(&host.post("/v2/repository/models/one/unload", body));
    for model in ["one", "p", "q"] {
        ask(model).refused(404, "not_found", &["was unloaded by request"]);
    }
}
