//! Tests one transformer in three languages: Rust, Python and JavaScript return the same bytes.

use crate::support::churn;
use base64::Engine as _;
use hostler::cancel::Cancel;
use hostler::config::{Instances, PluginLimits};
use hostler::error::{Error, Kind};
use hostler::metrics::Metrics;
use hostler::plugin::{Engine, Plugin, Transformer};
use hostler::predict::{CallContext, Datatype, JsonText, Payload, Tensor, parameter};
use serde_json::Value;
use std::sync::Arc;

const LANGUAGES: [&str; 3] = ["churn", "churn-py", "churn-js"];

fn cases() -> Value {
    let text = std::fs::read_to_string(crate::support::root().join("tests/data/churn_cases.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

struct Bench {
    engine: Arc<Engine>,
    runtime: tokio::runtime::Runtime,
}

impl Bench {
    fn new() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Bench { engine: crate::support::engine(8), runtime }
    }

    fn transformer(&self, language: &str, scaling: &str) -> Arc<Transformer> {
        let limits = PluginLimits { instances: Some(Instances::Reused), ..PluginLimits::default() };
        let assets = [("scaling".to_owned(), scaling.to_owned().into())].into();
        let metrics = Metrics::new();
        let mut spec = self.engine.plugin_spec(language.into(), limits, &metrics);
        spec.assets = assets;
        let wasm = std::fs::read(crate::support::plugin(language)).unwrap();
        let plugin = Plugin::load(&self.engine, spec, &wasm, &metrics, &Cancel::default()).unwrap();
        Arc::new(self.runtime.block_on(plugin.transformer(&metrics)).unwrap())
    }
}

fn context(case: &Value) -> Arc<CallContext> {
    let mut context = CallContext::new("case".into(), "bankchurn".into(), "1".into(), None);
    for (name, value) in case["parameters"].as_object().into_iter().flatten() {
        context.parameters.push((name.clone(), parameter(name, value).unwrap()));
    }
    if let Some(note) = case["note"].as_str() {
        context.set_note(note.to_owned().into());
    }
    Arc::new(context)
}

fn bytes(value: &Value) -> bytes::Bytes {
    base64::prelude::BASE64_STANDARD.decode(value.as_str().unwrap()).unwrap().into()
}

fn tensors(list: &Value) -> Vec<Tensor> {
    let tensor = |tensor: &Value| {
        let shape = tensor["shape"].as_array().unwrap().iter().map(|dimension| dimension.as_i64().unwrap());
        let datatype = Datatype::parse(tensor["datatype"].as_str().unwrap()).unwrap();
        let name = tensor["name"].as_str().unwrap();
        Tensor::new(name, datatype, shape.collect(), bytes(&tensor["base64"])).unwrap()
    };
    list.as_array().unwrap().iter().map(tensor).collect()
}

fn input(case: &Value) -> Payload {
    if let Some(json) = case["json"].as_str() {
        // Invalid JSON reaches a plugin only as bytes with the content type of JSON.
        let text = bytes::Bytes::from(json.to_owned());
        return JsonText::parse(text.clone()).map_or_else(
            |_| Payload::Bytes { content_type: "application/json".into(), data: text },
            Payload::Json,
        );
    }
    if case["tensors"].is_array() {
        return Payload::Tensors(tensors(&case["tensors"]));
    }
    let blob = &case["bytes"];
    let content_type = blob["content_type"].as_str().unwrap().to_owned();
    Payload::Bytes { content_type, data: bytes(&blob["base64"]) }
}

fn assert_error(name: &str, expected: &Value, error: &Error) {
    let kind = Kind::ALL.into_iter().find(|kind| kind.as_str().replace('_', "-") == expected["kind"]);
    assert_eq!(Some(error.kind()), kind, "{name}: {error:?}");
    // The host escapes control characters that a terminal would act on.
    let shown = Error::invalid(expected["message"].as_str().unwrap());
    assert_eq!(error.message(), shown.message(), "{name}");
    assert_eq!(error.field_name(), expected["field"].as_str(), "{name}");
}

#[test]
fn preprocess_gives_the_same_tensors_and_errors() {
    let (bench, cases) = (Bench::new(), cases());
    for language in LANGUAGES {
        let transformer = bench.transformer(language, &cases["scaling"].to_string());
        for case in cases["preprocess"].as_array().unwrap() {
            let name = format!("{language}: {}", case["name"]);
            let payload = input(case);
            let context = context(case);
            let outcome = bench.runtime.block_on(transformer.session().preprocess(&context, payload.clone()));
            match (outcome, &case["error"], &case["rows"]) {
                (Err(error), expected @ Value::Object(_), _) => assert_error(&name, expected, &error),
                (Ok(made), Value::Null, Value::Array(rows)) => {
                    let floats = rows.iter().flat_map(|row| row.as_array().unwrap());
                    let expected: Vec<u8> =
                        floats.flat_map(|float| (float.as_f64().unwrap() as f32).to_le_bytes()).collect();
                    assert_eq!((made.len(), made[0].name()), (1, "input"), "{name}");
                    assert_eq!(made[0].shape(), [rows.len() as i64, 18], "{name}");
                    assert_eq!(made[0].data(), &expected, "{name}");
                }
                (Ok(made), Value::Null, _) => match payload {
                    Payload::Tensors(given) => assert_eq!(made, given, "{name}"),
                    other => panic!("{name}: {other:?} cannot pass"),
                },
                (outcome, expected, _) => panic!("{name}: got {outcome:?}, expected {expected}"),
            }
        }
    }
}

#[test]
fn postprocess_gives_the_same_answers_and_errors() {
    let (bench, cases) = (Bench::new(), cases());
    for language in LANGUAGES {
        let transformer = bench.transformer(language, &cases["scaling"].to_string());
        for case in cases["postprocess"].as_array().unwrap() {
            let name = format!("{language}: {}", case["name"]);
            let outputs = tensors(&case["outputs"]);
            let outcome =
                bench.runtime.block_on(transformer.session().postprocess(&context(case), outputs.clone()));
            match (outcome, case["answer"].as_str()) {
                (Ok(Payload::Json(text)), Some(answer)) => assert_eq!(text.as_str(), answer, "{name}"),
                (Ok(Payload::Tensors(made)), None) => assert_eq!(made, outputs, "{name}"),
                (Err(error), None) => assert_error(&name, &case["error"], &error),
                (outcome, answer) => panic!("{name}: got {outcome:?}, expected {answer:?}"),
            }
        }
    }
}

#[test]
fn a_bad_asset_is_the_same_error() {
    let (bench, cases) = (Bench::new(), cases());
    let good = cases["preprocess"][0]["json"].as_str().unwrap().to_owned();
    for language in LANGUAGES {
        for case in cases["bad_scalings"].as_array().unwrap() {
            let transformer = bench.transformer(language, case["text"].as_str().unwrap());
            let payload = Payload::Json(JsonText::parse(good.clone().into()).unwrap());
            let error = bench.runtime.block_on(transformer.session().preprocess(&context(case), payload));
            assert_error(
                &format!("{language}: {}", case["name"]),
                &cases["bad_scaling_error"],
                &error.unwrap_err(),
            );
        }
    }
}

#[test]
fn all_rows_have_scikit_learns_probability_and_the_same_bytes() {
    let rows = churn::rows();
    let mut answers: Vec<(&str, Vec<String>)> = Vec::new();
    for language in LANGUAGES {
        let setup =
            churn::setup("instances = \"reused\"").file("churn.wasm", crate::support::plugin(language));
        let host = setup.start();
        let mut texts = Vec::new();
        for chunk in rows.chunks(100) {
            let items: Vec<Value> =
                chunk.iter().map(|(record, _)| serde_json::json!({"data": record})).collect();
            let body = serde_json::json!({"model": "bankchurn", "items": items});
            let answer = host.post("/predict/batch", body.to_string());
            assert_eq!(answer.status, 200, "{language}: {}", answer.text());
            assert_eq!(answer.json()["errors"], serde_json::json!([]), "{language}");
            for (result, (_, expected)) in answer.json()["results"].as_array().unwrap().iter().zip(chunk) {
                let got = result["probability"].as_f64().unwrap();
                assert!((got - expected).abs() <= 1e-5, "{language}: {got} instead of {expected}");
            }
            let text = answer.text();
            let results = text.split_once("\"results\":").unwrap().1.to_owned();
            texts.push(results);
        }
        answers.push((language, texts));
    }
    for (language, texts) in &answers[1..] {
        assert_eq!(texts, &answers[0].1, "{language} and {} differ", answers[0].0);
    }
}
