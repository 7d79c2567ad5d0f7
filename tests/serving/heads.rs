//! The head of a request: what HTTP demands of it, and which reply names the fault.

use crate::support::{Host, PATIENCE, Setup, model};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

const GOOD: &str = r#"{"model":"plus","data":[1]}"#;

fn start(server: &str) -> Host {
    let manifest = format!("[server]\n{server}\n[models.plus]\npath = \"plus.onnx\"\n");
    Setup::new(&manifest).file("plus.onnx", model("plus1")).start()
}

/// Sends bytes on a new connection, and returns everything until the host closes it.
fn exchange(host: &Host, text: &str) -> String {
    let mut stream = TcpStream::connect(host.http).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(text.as_bytes()).expect("it can be sent");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap_or_else(|error| panic!("{error} after {reply:?} to {text:?}"));
    reply
}

fn error(reply: &str) -> Value {
    let body = reply.rsplit("\r\n\r\n").next().unwrap_or_default();
    serde_json::from_str::<Value>(body).unwrap_or_else(|error| panic!("{error} in {reply}"))["error"].clone()
}

/// Checks the status, the kind and a part of the message.
fn expect(reply: &str, status: u16, kind: &str, part: &str) {
    assert!(reply.starts_with(&format!("HTTP/1.1 {status} ")), "{reply}");
    let error = error(reply);
    assert_eq!(error["kind"], kind, "{reply}");
    assert!(error["message"].as_str().is_some_and(|message| message.contains(part)), "{reply}\nlacks {part}");
    assert!(reply.to_ascii_lowercase().contains("connection: close"), "{reply}");
}

fn post(headers: &str) -> String {
    format!("POST /predict HTTP/1.1\r\n{headers}\r\n{GOOD}")
}

#[test]
fn a_request_names_its_host_once() {
    let host = start("");
    let length = format!("content-length: {}\r\n", GOOD.len());
    expect(&exchange(&host, &post(&length)), 400, "invalid_input", "no Host header");
    expect(&exchange(&host, "GET /health HTTP/1.1\r\n\r\n"), 400, "invalid_input", "no Host header");
    let two = format!("host: a\r\nhost: a\r\n{length}");
    expect(&exchange(&host, &post(&two)), 400, "invalid_input", "several Host headers");
    let old = post(&two).replace("HTTP/1.1", "HTTP/1.0");
    assert!(exchange(&host, &old).starts_with("HTTP/1.0 400"));
    let oip = exchange(&host, "GET /v2 HTTP/1.1\r\n\r\n");
    assert!(error(&oip).as_str().is_some_and(|message| message.contains("no Host header")), "{oip}");
    // Old clients need none, an empty one is allowed, and a whole URL may name another host.
    for text in [
        "GET /health HTTP/1.0\r\n\r\n",
        "GET /health HTTP/1.1\r\nhost:\r\nconnection: close\r\n\r\n",
        "GET http://b.example/health HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n",
    ] {
        assert!(exchange(&host, text).ends_with("{\"status\":\"ok\"}"), "{text}");
    }
}

#[test]
fn a_length_that_no_body_can_have_is_called_so() {
    let host = start("");
    for length in ["18446744073709551615", "18446744073709551614"] {
        let reply = exchange(&host, &post(&format!("host: a\r\ncontent-length: {length}\r\n")));
        expect(&reply, 413, "too_large", "Content-Length");
    }
    let reply = exchange(&host, &post("host: a\r\ncontent-length: 18446744073709551613\r\n"));
    expect(&reply, 413, "too_large", "max_body_mb");
    for length in
        ["18446744073709551616", "99999999999999999999999", "-1", "+5", "1e3", "0x10", "", "5, 6", "x"]
    {
        let reply = exchange(&host, &post(&format!("host: a\r\ncontent-length: {length}\r\n")));
        expect(&reply, 400, "invalid_input", "Content-Length is not one whole number");
    }
    let two = "host: a\r\ncontent-length: 27\r\ncontent-length: 28\r\n";
    expect(&exchange(&host, &post(two)), 400, "invalid_input", "Content-Length is not one whole number");
    let same = format!("host: a\r\nconnection: close\r\n{}", "content-length: 27\r\n".repeat(2));
    assert_eq!(GOOD.len(), 27);
    assert!(exchange(&host, &post(&same)).starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_transfer_encoding_is_chunked_and_nothing_else() {
    let host = start("");
    let chunked = |headers: &str| {
        let head = format!("POST /predict HTTP/1.1\r\nhost: a\r\n{headers}\r\n");
        format!("{head}{:x}\r\n{GOOD}\r\n0\r\n\r\n", GOOD.len())
    };
    let te = |value: &str| chunked(&format!("transfer-encoding: {value}\r\n"));
    expect(&exchange(&host, &te("chunked, chunked")), 400, "invalid_input", "chunked several times");
    let twice = chunked(&"transfer-encoding: chunked\r\n".repeat(2));
    expect(&exchange(&host, &twice), 400, "invalid_input", "chunked several times");
    expect(&exchange(&host, &te("gzip, chunked")), 501, "unsupported", "\"gzip\"");
    expect(&exchange(&host, &te("chunked, gzip")), 400, "invalid_input", "the last Transfer-Encoding");
    expect(&exchange(&host, &te("gzip")), 400, "invalid_input", "the last Transfer-Encoding");
    let old = te("chunked").replace("HTTP/1.1", "HTTP/1.0");
    expect(&exchange(&host, &old), 400, "invalid_input", "HTTP/1.0");
    for value in ["chunked", "Chunked", " chunked "] {
        let text = te(value).replace("host: a", "host: a\r\nconnection: close");
        assert!(exchange(&host, &text).starts_with("HTTP/1.1 200 "), "{value:?}");
    }
    // The length is ignored, and nothing can follow on a connection whose peers may not agree
    // about it.
    for order in [
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
    ] {
        let reply = exchange(&host, &(chunked(order) + "GET /health HTTP/1.1\r\nhost: a\r\n\r\n"));
        assert!(reply.starts_with("HTTP/1.1 200 ") && reply.contains("connection: close"), "{reply}");
        assert_eq!(reply.matches("HTTP/1.1").count(), 1, "{reply}");
    }
}

#[test]
fn header_names_and_lines_are_checked() {
    let host = start("");
    for headers in [
        "host : a\r\n",
        "host: a\r\ncontent-length : 27\r\n",
        "host: a\r\nx: 1\r\n folded: 2\r\n",
        "host: a\r\n: b\r\n",
    ] {
        expect(&exchange(&host, &post(headers)), 400, "invalid_input", "is not HTTP/1.1");
    }
    // Another version of HTTP, which begins like HTTP/2.
    let other = exchange(&host, "PRI * HTTP/3.0\r\n\r\n");
    expect(&other, 400, "invalid_input", "is not HTTP/1.1");
}

#[test]
fn a_target_that_is_too_long_is_414() {
    for (server, length, kb) in
        [("", 70 << 10, 64), ("max_header_kb = 16", 20 << 10, 16), ("max_header_kb = 256", 70 << 10, 64)]
    {
        let host = start(server);
        let text = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "a".repeat(length));
        expect(&exchange(&host, &text), 414, "too_large", &format!("the path is over {kb} KB"));
    }
}

#[test]
fn percent_signs_stand_for_bytes() {
    let host = start("");
    let ask =
        |target: &str| host.client().request("POST", target, &[("content-type", "application/json")], b"[1]");
    assert_eq!(ask("/predict/pl%75s%3a1").result(), json!({"y": [2.0]}));
    ask("/predict/pl%FFs").refused(400, "invalid_input", &["the path is not UTF-8"]);
    for target in ["/predict/plus%", "/predict/plus%2", "/predict/plus%zz", "/predict/pl%%75s"] {
        ask(target).refused(400, "invalid_input", &["not a percent-encoded byte", "%25"]);
    }
    ask("/predict/plus?x=100%").refused(400, "invalid_input", &["the query has \"%\""]);
    ask("/predict/plus?x=%ff").refused(400, "invalid_input", &["the query is not UTF-8"]);
    assert_eq!(ask("/predict/plus?x=100%25").status, 200);
    let oip = host.post("/v2/models/pl%zzs/infer", "{}");
    assert!(oip.status == 400 && oip.text().contains("not a percent-encoded byte"), "{}", oip.text());
}

#[test]
fn head_is_answered_wherever_get_is() {
    let host = start("");
    for path in [
        "/health",
        "/ready",
        "/metrics",
        "/models",
        "/jobs",
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/plus",
        "/v2/models/plus/ready",
        "/v2/models/plus/config",
        "/v2/models/stats",
        "/v2/models/plus/versions/1/stats",
    ] {
        let (get, head) = (host.get(path), exchange(&host, &format!("HEAD {path} HTTP/1.0\r\n\r\n")));
        assert_eq!(get.status, 200, "{path}");
        assert!(head.starts_with("HTTP/1.0 200 ") && head.ends_with("\r\n\r\n"), "{path}: {head}");
        assert_eq!(head.matches("\r\n\r\n").count(), 1, "{path} has no body: {head}");
    }
}

#[test]
fn options_of_the_host_as_a_whole_are_its_methods() {
    let host = start("");
    let answer = host.client().request("OPTIONS", "*", &[], b"");
    assert_eq!((answer.status, answer.header("allow")), (204, Some("GET, HEAD, POST, DELETE, OPTIONS")));
    assert_eq!(host.client().request("GET", "*", &[], b"").status, 404);
}

#[test]
fn an_expectation_beside_a_refusal_gets_the_refusal_alone() {
    let host = start("");
    for (target, more, status) in [
        ("POST /nowhere", "", 404),
        ("PUT /predict", "", 405),
        ("POST /predict", "content-encoding: br\r\n", 415),
        ("POST /predict", "host: b\r\n", 400),
    ] {
        let head = format!(
            "{target} HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 100000\r\n{more}\r\n"
        );
        let reply = exchange(&host, &head);
        assert!(reply.starts_with(&format!("HTTP/1.1 {status} ")), "{target}: {reply}");
    }
}

#[test]
fn a_client_that_closes_its_side_after_the_request_counts_as_gone() {
    // Documented in docs/operations/connections.md: the reply is not certain, and nothing is left.
    let host = start("");
    for _ in 0..20 {
        let mut stream = TcpStream::connect(host.http).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let length = format!("host: a\r\ncontent-length: {}\r\n", GOOD.len());
        stream.write_all(post(&length).as_bytes()).expect("it can be sent");
        stream.shutdown(Shutdown::Write).expect("it can be closed");
        let mut reply = String::new();
        let _ = stream.read_to_string(&mut reply);
        assert!(reply.is_empty() || reply.starts_with("HTTP/1.1 200 "), "{reply}");
    }
    let policy = host.wait_for_policy("rest", |policy| policy["executors"]["onnx"]["inflight"] == 0);
    assert_eq!(policy["executors"]["onnx"]["busy"], 0);
}
