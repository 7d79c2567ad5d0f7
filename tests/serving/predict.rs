//! The plain interface: the same prediction by each of its routes.

use crate::support::{Answer, churn, example};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Returns the first of the committed records.
fn record() -> Value {
    churn::rows()[0].0.clone()
}

/// Checks the answer to `record()`, given as text: scikit-learn's probability, printed with six
/// decimals.
fn check_answer(text: &str) {
    let answer: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"));
    let probability = answer["probability"].as_f64().unwrap_or_else(|| panic!("no probability in {text}"));
    let expected = churn::rows()[0].1;
    assert!((probability - expected).abs() <= 1e-5, "{text}, not {expected}");
    let risk = match probability {
        p if p >= 0.7 => "high",
        p if p >= 0.4 => "medium",
        _ => "low",
    };
    let churn = probability >= 0.5;
    assert_eq!(text, format!(r#"{{"churn":{churn},"probability":{probability:.6},"risk":"{risk}"}}"#));
}

/// Computes the 18 features of a record as `examples/bankchurn/features.py` does.
fn features(record: &Value) -> Vec<f64> {
    let scaling: Value =
        serde_json::from_str(&std::fs::read_to_string(example("bankchurn/scaling.json")).unwrap()).unwrap();
    let numerics = [
        "credit_score",
        "age",
        "tenure",
        "balance",
        "num_of_products",
        "has_cr_card",
        "is_active_member",
        "estimated_salary",
        "points_earned",
    ];
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| value.as_bool().unwrap().into());
    let mut row: Vec<f64> = numerics
        .iter()
        .enumerate()
        .map(|(index, name)| {
            let (mean, scale) = (number(&scaling["mean"][index]), number(&scaling["scale"][index]));
            (number(&record[name]) - mean) / scale
        })
        .collect();
    for (name, words) in [
        ("geography", &["France", "Germany", "Spain"][..]),
        ("gender", &["Female", "Male"]),
        ("card_type", &["DIAMOND", "GOLD", "PLATINUM", "SILVER"]),
    ] {
        row.extend(words.iter().map(|word| if record[name] == **word { 1.0 } else { 0.0 }));
    }
    row
}

fn leaving(answer: &Answer) -> Vec<f64> {
    let rows = answer.result()["probabilities"].as_array().unwrap().clone();
    rows.iter().map(|row| row[1].as_f64().unwrap()).collect()
}

#[test]
fn a_record_is_answered_with_model_version_id_and_result() {
    let host = churn::setup("").start();
    let body = json!({"model": "bankchurn", "data": record()}).to_string();
    for version in ["", r#""version":"1","#, r#""version":1,"#] {
        let body = body.replacen('{', &format!("{{{version}"), 1);
        let answer = host.client().request("POST", "/predict", &[("x-request-id", "a-1")], body.as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
        let text = answer.text();
        let result = text.strip_prefix(r#"{"model":"bankchurn","version":"1","id":"a-1","result":"#);
        check_answer(result.and_then(|rest| rest.strip_suffix('}')).unwrap_or_else(|| panic!("{text}")));
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
}

#[test]
fn a_model_without_a_transformer_takes_tensors_by_name_or_alone() {
    let host = churn::setup("").start();
    let row = features(&record());
    for data in [json!({"input": [row]}), json!([row])] {
        let answer = host.predict("bankchurn-raw", data);
        let names: Vec<String> = answer.result().as_object().unwrap().keys().cloned().collect();
        assert_eq!(names, ["probabilities"]);
        assert!((leaving(&answer)[0] - churn::rows()[0].1).abs() <= 1e-5, "{}", answer.text());
    }
    let answer = host.predict("bankchurn-raw", json!(row));
    let error = answer.refused(
        400,
        "invalid_input",
        &["input \"input\": expected shape [-1,18], got [18]: wrap the value in one more list"],
    );
    assert_eq!(error["field"], "input");
    assert_eq!(error["model"], "bankchurn-raw:1");
}

#[test]
fn the_body_is_the_input_under_a_models_own_path() {
    let host = churn::setup("").start();
    let record = record().to_string();
    let json = "application/json";
    let ask = |path: &str, kind: &str, body: &str| {
        host.client().request("POST", path, &[("content-type", kind)], body.as_bytes())
    };
    for (path, kind) in [
        ("/predict/bankchurn", json),
        ("/predict/bankchurn:1", json),
        ("/predict/bankchurn%3A1", json),
        ("/predict/%62ankchurn", "application/json; charset=utf-8"),
        ("/predict/bankchurn?explain=false&timeout_ms=5000", json),
        ("/predict/bankchurn?", json),
    ] {
        let answer = ask(path, kind, &record);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        let text = answer.text();
        let result = text.split_once("\"result\":").and_then(|(_, rest)| rest.strip_suffix('}'));
        check_answer(result.unwrap_or_else(|| panic!("{path}: {text}")));
    }
    for path in ["/predict/bankchurn?explain=true", "/predict/bankchurn?explain"] {
        assert!(ask(path, json, &record).result()["contributions"].is_object(), "{path}");
    }
    for (path, kind, status, error, parts) in [
        ("/predict/bankchrun", json, 404, "not_found", &["did you mean \"bankchurn\"?"][..]),
        ("/predict/bankchurn:2", json, 404, "not_found", &["no version \"2\"", "versions: 1"]),
        ("/predict/bankchurn?timeout_ms=0", json, 400, "invalid_input", &["timeout_ms is 0", "at least 1"]),
        ("/predict/bankchurn?timeout_ms=soon", json, 400, "invalid_input", &["timeout_ms is \"soon\""]),
        ("/predict/bankchurn?explain=maybe", json, 400, "invalid_input", &["explain"]),
        ("/predict/bankchurn?a=%ff", json, 400, "invalid_input", &["not UTF-8"]),
        ("/predict/bankchurn", "image/jpeg", 501, "unsupported", &["image/jpeg", "application/json"]),
        ("/predict/bankchurn-raw", "image/jpeg", 501, "unsupported", &["no transformer", "application/json"]),
    ] {
        ask(path, kind, &record).refused(status, error, parts);
    }
    assert_eq!(ask("/predict/bankchurn", json, &record).status, 200);
}

#[test]
fn every_answer_says_which_request_and_which_policy_it_belongs_to() {
    let host = churn::setup("").start();
    let good = json!({"model": "bankchurn", "data": record()}).to_string();
    let bad = json!({"model": "bankchurn", "data": {}}).to_string();
    let long = "x".repeat(129);
    for (sent, echoed) in [
        (Some("order-17/3"), true),
        (Some(&*"x".repeat(128)), true),
        (Some(&*long), false),
        (Some("two words"), false),
        (Some("\u{fc}mlaut"), false),
        (None, false),
    ] {
        for (body, status) in [(&good, 200), (&bad, 400)] {
            let headers: Vec<_> = sent.map(|id| ("x-request-id", id)).into_iter().collect();
            let answer = host.client().request("POST", "/predict", &headers, body.as_bytes());
            assert_eq!(answer.status, status);
            let id = answer.header("x-request-id").expect("an id");
            assert_eq!(Some(id) == sent, echoed, "{sent:?} gave {id}");
            assert!(echoed || (id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())), "{id}");
            assert_eq!(answer.header("x-hostler-generation"), Some("1"));
            let json = answer.json();
            let said = if status == 200 { &json["id"] } else { &json["error"]["request_id"] };
            assert_eq!(said, id);
        }
    }
    let ids: BTreeSet<String> = (0..20)
        .map(|_| host.post("/predict", &good).header("x-request-id").expect("an id").to_owned())
        .collect();
    assert_eq!(ids.len(), 20, "made ids are unique");
}

#[test]
fn misspelt_model_is_404_and_names_the_nearest() {
    let host = churn::setup("").start();
    for (name, version, parts) in [
        ("bankchrun", None, &["no model \"bankchrun\" (did you mean \"bankchurn\"?)"][..]),
        ("BANKCHURN", None, &["did you mean \"bankchurn\"?"]),
        ("bankchurn_raw", None, &["did you mean \"bankchurn-raw\"?"]),
        ("bankchurn:1", None, &["(send \"model\": \"bankchurn\", \"version\": \"1\")"]),
        ("bankchurn", Some("2"), &["model \"bankchurn\" has no version \"2\"", "versions: 1"]),
    ] {
        let mut body = json!({"model": name, "data": record()});
        if let Some(version) = version {
            body["version"] = version.into();
        }
        host.post("/predict", body.to_string()).refused(404, "not_found", parts);
    }
    let message =
        host.predict("translator", json!(1)).refused(404, "not_found", &["no model \"translator\""]);
    assert!(!message.to_string().contains("did you mean"), "nothing is near: {message}");
    assert_eq!(host.predict("bankchurn", record()).status, 200);
}

#[test]
fn a_faulty_record_is_400_and_names_the_field() {
    let host = churn::setup("").start();
    let with = |name: &str, value: Value| {
        let mut record = record();
        record[name] = value;
        record
    };
    let without = |name: &str| {
        let mut record = record();
        record.as_object_mut().unwrap().remove(name);
        record
    };
    for (data, field, part) in [
        (without("age"), Some("age"), "age: expected a whole number from 18 to 100, got nothing"),
        (with("agee", 3.into()), Some("agee"), "unknown field \"agee\": did you mean age?"),
        (with("gender", 3.into()), Some("gender"), "gender: expected one of Female, Male, got 3"),
        (with("age", "42".into()), Some("age"), "got the text \"42\""),
        (with("tenure", 11.into()), Some("tenure"), "tenure: expected a whole number from 0 to 10, got 11"),
        (with("has_cr_card", 1.into()), Some("has_cr_card"), "has_cr_card: expected true or false, got 1"),
        (json!([1]), None, "expected an object"),
    ] {
        let error = host.predict("bankchurn", data).refused(400, "invalid_input", &[part]);
        assert_eq!(error["field"].as_str(), field);
        assert_eq!(error["plugin"], "churn");
        assert_eq!(error["model"], "bankchurn:1");
        assert_eq!(host.predict("bankchurn", record()).status, 200);
    }
}

#[test]
fn all_rows_agree_with_scikit_learn() {
    let host = churn::setup("").start();
    let rows = churn::rows();
    assert_eq!(rows.len(), 1000);
    for (start, rows) in rows.chunks(100).enumerate() {
        let items: Vec<Value> = rows.iter().map(|(record, _)| json!({"data": record})).collect();
        let answer =
            host.post("/predict/batch", json!({"model": "bankchurn", "items": items}).to_string()).json();
        assert_eq!(answer["errors"], json!([]));
        for (index, (result, (_, expected))) in
            answer["results"].as_array().unwrap().iter().zip(rows).enumerate()
        {
            let probability = result["probability"].as_f64().unwrap();
            let row = start * 100 + index;
            assert!((probability - expected).abs() <= 1e-5, "row {row}: {probability}, not {expected}");
            assert_eq!(result["churn"], probability >= 0.5, "row {row}");
        }
    }
}

#[test]
fn an_explanation_says_what_the_probability_loses_without_each_field() {
    let host = churn::setup("").start();
    // The features that represent each field.
    let spans: BTreeMap<&str, std::ops::Range<usize>> = [
        ("credit_score", 0..1),
        ("age", 1..2),
        ("tenure", 2..3),
        ("balance", 3..4),
        ("num_of_products", 4..5),
        ("has_cr_card", 5..6),
        ("is_active_member", 6..7),
        ("estimated_salary", 7..8),
        ("points_earned", 8..9),
        ("geography", 9..12),
        ("gender", 12..14),
        ("card_type", 14..18),
    ]
    .into();
    for (record, _) in churn::rows().into_iter().step_by(250) {
        let body = json!({"model": "bankchurn", "data": record, "parameters": {"explain": true}});
        let explained = host.post("/predict", body.to_string()).result();
        let plain = host.predict("bankchurn", record.clone()).result();
        assert_eq!(explained["probability"], plain["probability"]);
        assert_eq!(plain.get("contributions"), None);
        let contributions = explained["contributions"].as_object().unwrap();
        assert_eq!(
            contributions.keys().map(|name| &**name).collect::<BTreeSet<_>>(),
            spans.keys().copied().collect()
        );
        let occluded: Vec<Vec<f64>> = spans
            .values()
            .map(|span| {
                let mut row = features(&record);
                row[span.clone()].fill(0.0);
                row
            })
            .collect();
        let without = leaving(&host.predict("bankchurn-raw", json!(occluded)));
        let probability = plain["probability"].as_f64().unwrap();
        for (name, without) in spans.keys().zip(without) {
            let said = contributions[*name].as_f64().unwrap();
            assert!((said - (probability - without)).abs() < 1e-5, "{name}: {said}");
        }
        let total: f64 = contributions.values().map(|value| value.as_f64().unwrap().abs()).sum();
        assert!(total > 0.001, "some field matters: {explained}");
    }
}
