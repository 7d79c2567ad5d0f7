//! Tests streaming models as steps: items, how they are gathered, and pipelines that stream.

use crate::support::Host;
use crate::support::pipelines::{setup, steppers};
use serde_json::{Value, json};

const MODELS: &str = "[plugins.repeat]\npath = \"repeat.wasm\"\n[models.repeat]\nplugin = \"repeat\"\n\n\
    [plugins.one]\npath = \"stepper.wasm\"\ninstances = \"reused\"\n[plugins.one.config]\nint32 = \"true\"\nadd = \"1\"\n\
    [models.one]\nplugin = \"one\"\n\
    [plugins.picky]\npath = \"stepper.wasm\"\n[plugins.picky.config]\nint32 = \"true\"\nfail_below = \"3\"\n\
    [models.picky]\nplugin = \"picky\"\n\
    [models.p]\npipeline = \"p\"\n";

const STREAM: &str = "[pipelines.p.steps.s]\nmodel = \"repeat\"\n\
    in = { IN = \"input.IN\", DELAY = \"input.DELAY\", WAIT = { const = [0] } }\n";

fn serve(pipeline: &str) -> Host {
    setup(&format!("{}{MODELS}{pipeline}", steppers(&[]))).start()
}

fn data(elements: &[i32]) -> Value {
    json!({"IN": elements, "DELAY": vec![0; elements.len()]})
}

#[test]
fn items_are_gathered_in_their_order() {
    let host = serve(&format!(
        "[pipelines.p]\noutputs = {{ all = {{ from = \"a.y\", gather = \"stack\" }}, last = \"l.y?\", raw = {{ from = \"s.OUT\", gather = \"stack\" }} }}\n{STREAM}\
         [pipelines.p.steps.a]\nmodel = \"one\"\nin = {{ a = \"s.OUT\" }}\n\
         [pipelines.p.steps.l]\nmodel = \"one\"\nin = {{ a = {{ from = \"a.y\", gather = \"last\" }} }}\n"
    ));
    let answer = host.predict("p", data(&[5, 6, 7]));
    assert_eq!(answer.result(), json!({"all": [6, 7, 8], "last": [9], "raw": [5, 6, 7]}));
    let many: Vec<i32> = (0..100).collect();
    let plus: Vec<i32> = (1..101).collect();
    assert_eq!(host.predict("p", data(&many)).result(), json!({"all": plus, "last": [101], "raw": many}));
    // Without items there is no last one, and there are no rows.
    assert_eq!(host.predict("p", data(&[])).result(), json!({"all": [], "raw": []}));
    host.wait_for_idle("pipeline");
}

#[test]
fn a_streaming_pipeline_answers_with_its_items() {
    let host = serve(&format!(
        "[pipelines.p]\nstreaming = true\noutputs = {{ r = [\"a.y\", \"s.OUT\"], n = \"s.IDX\" }}\n{STREAM}\
         [pipelines.p.steps.a]\nmodel = \"picky\"\nin = {{ a = \"s.OUT\" }}\non_error = \"skip\"\nwhen = \"s.OUT[0] != 4\"\n"
    ));
    let body = json!({"model": "p", "data": data(&[5, 2, 4, 3])}).to_string();
    let text = host.post("/predict/stream", body).text();
    let items: Vec<Value> = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|event| event.get("result").cloned())
        .collect();
    let expected: Vec<Value> =
        [5, 2, 4, 3].iter().enumerate().map(|(n, r)| json!({"r": [r], "n": [n]})).collect();
    assert_eq!(items, expected, "{text}");
    host.predict("p", data(&[1])).refused(501, "unsupported", &["any number of responses"]);
    host.wait_for_idle("pipeline");
}

#[test]
fn an_item_that_fails_ends_the_stream_and_is_named() {
    let host = serve(&format!(
        "[pipelines.p]\noutputs = {{ all = {{ from = \"a.y\", gather = \"stack\" }} }}\n{STREAM}\
         [pipelines.p.steps.a]\nmodel = \"picky\"\nin = {{ a = \"s.OUT\" }}\n"
    ));
    host.predict("p", data(&[5, 9, 1, 7])).refused(500, "failed", &["step \"a\" (item 2)", "1 is too small"]);
    let body =
        json!({"model": "p", "data": data(&[5, 6]), "parameters": {"do": "fail", "at": 1}}).to_string();
    host.post("/predict", body).refused(500, "failed", &["step \"s\"", "asked to fail"]);
    host.wait_for_idle("pipeline");
    host.wait_for_idle("cpu");
}

fn events(text: &str) -> Vec<Value> {
    text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).collect()
}

#[test]
fn the_items_before_an_error_are_sent_before_it() {
    let host = serve(&format!(
        "[pipelines.p]\nstreaming = true\noutputs = {{ r = \"a.y\" }}\n{STREAM}\
         [pipelines.p.steps.a]\nmodel = \"picky\"\nin = {{ a = \"s.OUT\" }}\n"
    ));
    let of_the_item = json!({"model": "p", "data": data(&[5, 6, 1, 7])});
    let of_the_stream =
        json!({"model": "p", "data": data(&[5, 6, 7]), "parameters": {"do": "fail", "at": 2}});
    for (body, step) in [(of_the_item, "a"), (of_the_stream, "s")] {
        let text = host.post("/predict/stream", body.to_string()).text();
        let events = events(&text);
        let items: Vec<&Value> = events.iter().filter_map(|event| event.get("result")).collect();
        assert_eq!(items, [&json!({"r": [5]}), &json!({"r": [6]})], "{text}");
        assert_eq!(events.last().unwrap()["error"]["step"], step, "{text}");
        host.wait_for_idle("pipeline");
        host.wait_for_idle("cpu");
    }
}
