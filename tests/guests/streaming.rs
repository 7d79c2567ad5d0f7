//! Tests streaming models: 0..n responses, many concurrent calls in one instance, and the loss of a
//! call, its client or the instance.

use crate::support::Setup;
use crate::support::streaming::{Stream, repeat, request, setup};
use crate::support::triton::Triton;
use serde_json::json;
use std::time::Duration;

const EVENTS: &str = "text/event-stream";

#[test]
fn responses_come_as_they_are_made() {
    let host = repeat("", "");
    let stream = Stream::open(host.http, &request(&[0, 300], 0, json!({})), EVENTS);
    assert_eq!(stream.status, 200);
    assert!(stream.has_header("content-type: text/event-stream"));
    let parts = stream.rest();
    let texts: Vec<&str> = parts.iter().map(|(text, _)| text.as_str()).collect();
    assert_eq!(
        texts,
        [
            "data: {\"result\":{\"OUT\":[100],\"IDX\":[0]}}\n\n",
            "data: {\"result\":{\"OUT\":[101],\"IDX\":[1]}}\n\n",
            "event: end\ndata: {}\n\n"
        ]
    );
    assert!(parts[1].1 >= Duration::from_millis(300));
    // The first response does not wait for the second one.
    let mut long = Stream::open(host.http, &request(&[0, 600_000], 0, json!({})), EVENTS);
    assert!(long.part().unwrap().expect("the first response").0.contains("[100]"));
    drop(long);
    host.wait_for_idle("cpu");
}

#[test]
fn a_streaming_model_is_refused_where_there_is_one_response_only() {
    let host = repeat("", "");
    let body = request(&[0], 0, json!({}));
    host.post("/predict", body.to_string()).refused(501, "unsupported", &["/predict/stream"]);
    // A job has a single result, so it is refused as well.
    host.post("/predict/async", body.to_string()).refused(501, "unsupported", &["/predict/stream"]);
    let items = json!({"model": "repeat", "items": [{"data": body["data"]}]});
    for path in ["/predict/batch", "/predict/async/batch"] {
        host.post(path, items.to_string()).refused(501, "unsupported", &["/predict/stream"]);
    }
    let infer = host.post("/v2/models/repeat/infer", json!({"inputs": []}).to_string());
    assert_eq!(infer.status, 501);
    let message = "infer doesn't support models with decoupled transaction policy";
    assert!(infer.text().contains(message), "{}", infer.text());
    let bad = json!({"model": "repeat", "data": {"IN": [1]}});
    assert_eq!(Stream::open(host.http, &bad, EVENTS).status, 400);
}

#[test]
fn a_custom_executor_cannot_stand_before_a_streaming_model() {
    let custom = "[executors.pass]\nkind = \"custom\"\nplugin = \"pass\"\ninner = \"cpu\"\n\n[executors.cpu]\n\n\
                  [plugins.pass]\npath = \"pass.wasm\"\n\n[policy]\nrepeat = \"pass\"\n";
    let setup = setup("", custom).file("pass.wasm", crate::support::plugin("pass"));
    let log = setup.try_start().err().expect("it does not start");
    assert!(log.contains("any number of responses") && log.contains("put the model on \"cpu\""), "{log}");
}

#[test]
fn checks_of_a_streaming_model_see_all_its_responses() {
    let sample = |last: i64| {
        let answers = json!([{"OUT": [100], "IDX": [0]}, {"OUT": [last], "IDX": [1]}]);
        let data = json!({"IN": [100, 101], "DELAY": [0, 0], "WAIT": [0]});
        json!([{"data": data, "expect": answers}]).to_string()
    };
    let check = "[[models.repeat.checks]]\nfile = \"check.json\"\n";
    drop(setup("", check).text("check.json", &sample(101)).start());
    let log = setup("", check).text("check.json", &sample(102)).try_start().err().expect("it does not start");
    assert!(log.contains("result[1].OUT[0]: expected 102, got 101"), "{log}");
}

#[test]
fn generate_stream_gives_an_event_for_each_response_and_one_for_an_error() {
    let host = repeat("", "");
    let body = |count: usize, parameters: serde_json::Value| {
        let elements: Vec<usize> = (100..100 + count).collect();
        json!({"IN": elements, "DELAY": vec![0; count], "WAIT": 0, "id": "7", "parameters": parameters})
    };
    let event = |place: usize| json!({"model_name": "repeat", "model_version": "1", "id": "7", "OUT": 100 + place, "IDX": place});
    for count in [0, 1, 3] {
        let stream = Stream::generate(host.http, "repeat", &body(count, json!({})));
        assert!(stream.has_header("content-type: text/event-stream"));
        assert_eq!(stream.status, 200);
        assert_eq!(stream.events(), (0..count).map(event).collect::<Vec<_>>());
    }
    let failing = |at: usize| body(2, json!({"do": "fail", "at": at}));
    let stream = Stream::generate(host.http, "repeat", &failing(1));
    assert_eq!(stream.status, 200);
    let events = stream.events();
    assert_eq!((events.len(), &events[0]), (2, &event(0)));
    assert!(events[1]["error"].as_str().is_some_and(|text| text.contains("asked to fail")), "{events:?}");
    // An error instead of the first response sets the status of the answer.
    let failed = Stream::generate(host.http, "repeat", &failing(0));
    assert_eq!(failed.status, 500);
    assert!(failed.has_header("content-type: text/event-stream"));
    let events = failed.events();
    assert_eq!(events.len(), 1);
    assert!(events[0]["error"].as_str().is_some_and(|text| text.contains("asked to fail")), "{events:?}");
    // A bad request is refused with an ordinary JSON answer.
    let refused = Stream::generate(host.http, "repeat", &json!({"IN": "x"}));
    assert_eq!(refused.status, 400);
    assert!(refused.has_header("content-type: application/json"));
}

#[test]
fn generate_stream_tells_responses_as_they_are_made_and_whoever_leaves_ends_the_work() {
    let host = repeat("", "");
    let body = json!({"IN": [1, 2], "DELAY": [0, 300], "WAIT": 0});
    let parts = Stream::generate(host.http, "repeat", &body).rest();
    assert_eq!(parts.len(), 2);
    // The first response does not wait for the second one.
    let long = json!({"IN": [1, 2], "DELAY": [0, 600_000], "WAIT": 0});
    let mut stream = Stream::generate(host.http, "repeat", &long);
    stream.part().unwrap().expect("it has begun");
    drop(stream);
    let left = || host.metric("hostler_requests_total{code=\"499\",model=\"repeat\",version=\"1\"}");
    crate::support::eventually("one that was left", || (left() == 1.0).then_some(()), || host.log());
}

#[test]
fn generate_stream_passes_the_responses_of_a_tritons_model_on() {
    let Some(triton) = Triton::start(&["repeat"]) else { return };
    let model = "[models.repeat]\nremote = { name = \"repeat\" }\n";
    let host = Setup::new(&(triton.executor("") + model)).start();
    let ask = |values: &[i32], delay: u32| {
        let body = json!({"values": values, "delays_ms": vec![delay; values.len()]});
        Stream::generate(host.http, "repeat", &body)
    };
    for values in [&[][..], &[7], &[7, 8, 9]] {
        let events = ask(values, 0).events();
        assert!(events.iter().map(|event| &event["value"]).eq(values), "{events:?}");
    }
    let events = ask(&[1, -1], 0).events();
    assert!(
        events[1]["error"].as_str().is_some_and(|text| text.contains("value 1 is negative")),
        "{events:?}"
    );
    let mut stream = ask(&[1, 2, 3], 400);
    stream.part().unwrap().expect("the first one");
    drop(stream);
    host.wait_for_idle("remote");
}
