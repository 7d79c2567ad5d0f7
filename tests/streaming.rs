//! Streaming models: 0..n responses, many requests waiting in one instance, and what happens when one of them, its
//! caller or the instance is lost.

mod support;

use serde_json::json;
use std::time::Duration;
use support::streaming::{Stream, ask, elements, repeat, request};

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
    assert!(parts[0].1 < Duration::from_millis(250), "the first one waits for no other: {:?}", parts[0].1);
    assert!(parts[1].1 >= Duration::from_millis(300));
    host.wait_for_idle("cpu");
}

#[test]
fn a_request_may_have_no_responses_or_end_with_an_error() {
    let host = repeat("", "");
    assert!(ask(&host, &request(&[], 10, json!({}))).is_empty());
    // Before the first response an error has its own status; after it, it ends the stream.
    let failed = request(&[0, 0], 0, json!({"do": "fail", "at": 0}));
    let refused = Stream::open(host.http, &failed, "*/*");
    assert_eq!(refused.status, 500);
    assert!(refused.lines()[0]["error"]["message"].as_str().unwrap().contains("asked to fail"));
    let lines = ask(&host, &request(&[0, 0], 0, json!({"do": "fail", "at": 1})));
    assert_eq!(elements(&lines), [100]);
    assert_eq!((lines.len(), &lines[1]["error"]["plugin"]), (2, &json!("repeat")));
    // Others go on as if nothing had been.
    assert_eq!(elements(&ask(&host, &request(&[0, 0], 0, json!({})))), [100, 101]);
}

#[test]
fn a_streaming_model_is_refused_where_there_is_one_response_only() {
    let host = repeat("", "");
    let body = request(&[0], 0, json!({}));
    host.post("/predict", body.to_string()).refused(501, "unsupported", &["/predict/stream"]);
    let bad = json!({"model": "repeat", "data": {"IN": [1]}});
    assert_eq!(Stream::open(host.http, &bad, EVENTS).status, 400);
}

#[test]
fn a_short_request_overtakes_a_long_one_in_the_same_instance() {
    let host = repeat("", "");
    let mut long = Stream::open(host.http, &request(&[0, 1000], 0, json!({})), "*/*");
    long.part().unwrap().expect("it has begun");
    let short = Stream::open(host.http, &request(&[20], 0, json!({})), "*/*");
    assert_eq!(short.rest().len(), 1);
    assert!(long.started.elapsed() < Duration::from_millis(900));
    assert_eq!(long.rest().len(), 1);
}
