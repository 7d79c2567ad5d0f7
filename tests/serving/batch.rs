//! `/predict/batch`: one request with many items. Each item has its own answer; all items share one
//! slot in the queue.

use crate::support::{Host, Setup, churn, eventually, model};
use serde_json::{Value, json};

/// Far more steps than any test waits for. The run stops soon after its client disconnects.
const ENDLESS: i64 = 1_000_000_000;

/// Starts a host with one worker of each kind, so that queued work is observable.
fn narrow(queue: usize) -> Host {
    let manifest = format!(
        "[executors.onnx]\nworkers = 1\nqueue = {queue}\n[models.plus]\npath = \"plus.onnx\"\n[models.loop]\npath = \
         \"loop.onnx\"\n"
    );
    Setup::new(&manifest).file("plus.onnx", model("plus1")).file("loop.onnx", model("loop")).start()
}

fn body(model: &str, data: impl IntoIterator<Item = Value>) -> String {
    let items: Vec<Value> = data.into_iter().map(|data| json!({"data": data})).collect();
    json!({"model": model, "items": items}).to_string()
}

fn post(path: &str, body: &str) -> Vec<u8> {
    format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn gauge(host: &Host, name: &str) -> f64 {
    host.metric(&format!("hostler_executor_{name}{{executor=\"onnx\"}}"))
}

fn wait_for_gauge(host: &Host, name: &str, expected: f64) {
    let what = format!("{name} to be {expected}");
    eventually(&what, || (gauge(host, name) == expected).then_some(()), || gauge(host, name).to_string());
}

#[test]
fn results_are_in_the_order_of_the_items() {
    let manifest = "[models.plus]\npath = \"plus.onnx\"\n";
    let host = Setup::new(manifest).file("plus.onnx", model("plus1")).start();
    for count in [0, 1, 2, 50, 1000] {
        let answer = host.post("/predict/batch", body("plus", (0..count).map(|x| json!([x]))));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let id = answer.header("x-request-id").expect("an id");
        let expected: Vec<Value> = (0..count).map(|x| json!({"y": [f64::from(x) + 1.0]})).collect();
        assert_eq!(
            answer.json(),
            json!({"model": "plus", "version": "1", "id": id, "results": expected, "errors": []})
        );
    }
}

#[test]
fn a_thousand_and_one_items_are_refused() {
    let manifest = "[models.plus]\npath = \"plus.onnx\"\n";
    let host = Setup::new(manifest).file("plus.onnx", model("plus1")).start();
    let answer = host.post("/predict/batch", body("plus", (0..1001).map(|x| json!([x]))));
    let error = answer.refused(413, "too_large", &["1001 items", "at most 1000"]);
    assert_eq!(error["field"], "items");
    let answer = host.post("/predict/batch", body("plus", (0..1000).map(|x| json!([x]))));
    assert_eq!(answer.json()["results"].as_array().unwrap().len(), 1000);
}

#[test]
fn a_bad_item_is_null_with_its_error_and_spoils_no_other() {
    let host = churn::setup("").start();
    let good = churn::rows()[0].0.clone();
    let alone = host.predict("bankchurn", good.clone()).result();
    let old = {
        let mut record = good.clone();
        record["age"] = 101.into();
        record
    };
    for (bad, kind, message, field) in [
        (
            json!({"data": old}),
            "invalid_input",
            "age: expected a whole number from 18 to 100, got 101",
            Some("age"),
        ),
        (json!({"data": {}}), "invalid_input", "credit_score: expected", Some("credit_score")),
        (json!({}), "invalid_input", "not an item: missing field `data`", None),
        (json!(null), "invalid_input", "not an item: expected a JSON object", None),
        (json!([good, null]), "invalid_input", "not an item: expected a JSON object", None),
        (json!({"data": good, "model": "x"}), "invalid_input", "not an item: unknown field `model`", None),
        (
            json!({"data": good, "parameters": {"explain": [1]}}),
            "invalid_input",
            "parameter 'explain' has invalid type. It is a list",
            Some("parameters.explain"),
        ),
        (json!({"data": good, "parameters": {"explain": "maybe"}}), "invalid_input", "explain", None),
    ] {
        let request = json!({"model": "bankchurn", "items": [{"data": good}, bad, {"data": good}]});
        let answer = host.post("/predict/batch", request.to_string()).json();
        let results = answer["results"].as_array().unwrap_or_else(|| panic!("{answer}"));
        assert_eq!(results[0], alone);
        assert_eq!((&results[1], &results[2]), (&Value::Null, &results[0]), "{answer}");
        let errors = answer["errors"].as_array().unwrap();
        assert_eq!(errors.len(), 1);
        assert_eq!((&errors[0]["index"], &errors[0]["kind"]), (&json!(1), &json!(kind)), "{answer}");
        assert!(errors[0]["message"].as_str().unwrap().contains(message), "{answer}\nlacks {message}");
        if field.is_some() || message.starts_with("not an item") {
            assert_eq!(errors[0].get("field").and_then(Value::as_str), field, "{answer}");
        }
    }
}

#[test]
fn errors_are_in_the_order_of_the_items() {
    let manifest = "[models.plus]\npath = \"plus.onnx\"\n[models.sum]\npath = \"sum.onnx\"\n";
    let setup = Setup::new(manifest).file("plus.onnx", model("plus1"));
    let host = setup.file("sum.onnx", model("two_inputs")).start();
    // Items that are refused before they run alternate with items that fail while they run.
    let items = [json!([1]), json!("x"), json!([1, 2, 3]), json!([2]), json!([3, 4, 5]), json!([[1]])];
    let items = items.map(|a| json!({"a": a, "b": [1, 2]}));
    let answer = host.post("/predict/batch", body("sum", items)).json();
    assert_eq!(answer["results"], json!([{"y": [2.0, 3.0]}, null, null, {"y": [3.0, 4.0]}, null, null]));
    let errors: Vec<(u64, &str)> = answer["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| (error["index"].as_u64().unwrap(), error["kind"].as_str().unwrap()))
        .collect();
    assert_eq!(errors, [1, 2, 4, 5].map(|index| (index, "invalid_input")));
    // A batch that has only bad items is not a failed request either.
    let answer = host.post("/predict/batch", body("plus", [json!("x"), json!({})]));
    assert_eq!((answer.status, answer.json()["results"].clone()), (200, json!([null, null])));
}

#[test]
fn an_items_parameters_come_before_those_of_the_batch() {
    let host = churn::setup("").start();
    let data = churn::rows()[0].0.clone();
    let items = json!([
        {"data": data},
        {"data": data, "parameters": {"explain": false}},
        {"data": data, "parameters": {}},
        {"data": data, "parameters": {"explain": true}},
    ]);
    for (shared, expected) in [
        (json!({"explain": true}), [true, false, true, true]),
        (json!({"explain": false}), [false, false, false, true]),
        (Value::Null, [false, false, false, true]),
    ] {
        let request = json!({"model": "bankchurn", "parameters": shared, "items": items});
        let answer = host.post("/predict/batch", request.to_string()).json();
        let results = answer["results"].as_array().unwrap_or_else(|| panic!("{answer}"));
        let explained: Vec<bool> =
            results.iter().map(|result| result.get("contributions").is_some()).collect();
        assert_eq!(explained, expected, "{answer}");
    }
}

#[test]
fn a_batch_takes_one_place_in_the_queue() {
    let host = narrow(1);
    let mut holder = host.client();
    holder.send(&post("/predict", &json!({"model": "loop", "data": {"n": [ENDLESS]}}).to_string())).unwrap();
    wait_for_gauge(&host, "busy", 1.0);
    let mut batch = host.client();
    batch.send(&post("/predict/batch", &body("plus", (0..100).map(|x| json!([x]))))).unwrap();
    wait_for_gauge(&host, "queue_length", 1.0);
    assert_eq!(gauge(&host, "inflight"), 101.0);
    for path in ["/predict", "/predict/batch"] {
        let request = match path {
            "/predict" => json!({"model": "plus", "data": [1]}).to_string(),
            _ => body("plus", [json!([1]), json!([2])]),
        };
        let answer = host.post(path, request);
        answer.refused(
            429,
            "overloaded",
            &["executor \"onnx\": all 1 workers are busy", "queue of 1 is full"],
        );
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    holder.leave();
    let answer = batch.receive().unwrap();
    let results = answer.json()["results"].as_array().unwrap().clone();
    assert_eq!((results.len(), &results[99]), (100, &json!({"y": [100.0]})));
    assert_eq!(host.predict("plus", json!([1])).status, 200);
}

#[test]
fn an_empty_batch_takes_no_place_and_no_work() {
    let host = narrow(1);
    let mut holder = host.client();
    holder.send(&post("/predict", &json!({"model": "loop", "data": {"n": [ENDLESS]}}).to_string())).unwrap();
    wait_for_gauge(&host, "busy", 1.0);
    let answer = host.post("/predict/batch", body("plus", []));
    assert_eq!((answer.status, &answer.json()["results"]), (200, &json!([])));
    host.post("/predict/batch", body("nobody", [])).refused(404, "not_found", &["no model \"nobody\""]);
    assert_eq!(gauge(&host, "inflight"), 1.0);
}

#[test]
fn a_long_batch_lets_single_requests_and_other_batches_through() {
    let host = narrow(8);
    // About ten seconds of work for the one worker.
    let items = || (0..1000).map(|_| json!({"n": [20_000]}));
    let mut long = host.client();
    long.send(&post("/predict/batch", &body("loop", items()))).unwrap();
    eventually("the batch to run", || (gauge(&host, "inflight") > 900.0).then_some(()), || host.log());
    assert_eq!(host.predict("plus", json!([1])).status, 200);
    assert_eq!(host.post("/predict/batch", body("plus", (0..10).map(|x| json!([x])))).status, 200);
    let left = gauge(&host, "inflight");
    assert!(left > 500.0, "{left} of the 1,000 items were left when the others had their answers");
    long.leave();
    wait_for_gauge(&host, "inflight", 0.0);
}

#[test]
fn what_a_batch_has_no_time_for_is_a_deadline_and_the_rest_is_answered() {
    let host = narrow(8);
    let request = json!({
        "model": "loop",
        "timeout_ms": 100,
        "items": [{"data": {"n": [1]}}, {"data": {"n": [ENDLESS]}}, {"data": {"n": [1]}}],
    });
    let answer = host.post("/predict/batch", request.to_string()).json();
    let results = answer["results"].as_array().unwrap_or_else(|| panic!("{answer}"));
    assert!(results[0]["y"].is_number(), "{answer}");
    assert_eq!((&results[1], &results[2]), (&Value::Null, &Value::Null));
    let kinds: Vec<&Value> =
        answer["errors"].as_array().unwrap().iter().map(|error| &error["kind"]).collect();
    assert_eq!(kinds, ["deadline", "deadline"]);
    wait_for_gauge(&host, "inflight", 0.0);
    assert_eq!(host.predict("plus", json!([1])).status, 200);
}
