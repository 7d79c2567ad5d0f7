//! Bodies in the forms in which clients send them: compressed, with a byte order mark, with media
//! types in any spelling, and with numbers that JSON does not have.

use crate::support::{Answer, Host, Setup, model};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use serde_json::json;
use std::io::Write;

const GOOD: &str = r#"{"model":"plus","data":[1]}"#;

fn start(server: &str) -> Host {
    let manifest = format!(
        "[server]\n{server}\n[models.plus]\npath = \"plus.onnx\"\n[models.types]\npath = \"datatypes.onnx\"\n"
    );
    let setup = Setup::new(&manifest).file("plus.onnx", model("plus1"));
    setup.file("datatypes.onnx", model("datatypes")).start()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory")
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory")
}

fn post(host: &Host, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    host.client().request("POST", path, headers, body)
}

#[test]
fn every_route_of_the_plain_interface_unpacks_bodies() {
    let host = start("");
    let batch = r#"{"model":"plus","items":[{"data":[1]}]}"#;
    for (path, body, status) in [
        ("/predict", GOOD, 200),
        ("/predict/batch", batch, 200),
        ("/predict/stream", GOOD, 200),
        ("/predict/plus", "[1]", 200),
        ("/predict/async", GOOD, 202),
        ("/predict/async/batch", batch, 202),
    ] {
        let kind = ("content-type", "application/json");
        for (encoding, body) in [
            ("gzip", gzip(body.as_bytes())),
            ("GZIP", gzip(body.as_bytes())),
            ("x-gzip", gzip(body.as_bytes())),
            ("deflate", deflate(body.as_bytes())),
            ("identity", body.as_bytes().to_vec()),
            ("", body.as_bytes().to_vec()),
            ("deflate, gzip", gzip(&deflate(body.as_bytes()))),
            ("gzip, identity, deflate", deflate(&gzip(body.as_bytes()))),
        ] {
            let answer = post(&host, path, &[kind, ("content-encoding", encoding)], &body);
            assert_eq!(answer.status, status, "{path} {encoding}: {}", answer.text());
        }
        let two = [kind, ("content-encoding", "gzip"), ("content-encoding", "deflate")];
        assert_eq!(post(&host, path, &two, &deflate(&gzip(body.as_bytes()))).status, status, "{path}");
        for encoding in ["br", "zstd", "gzip, br", "compress"] {
            let answer = post(&host, path, &[kind, ("content-encoding", encoding)], body.as_bytes());
            answer.refused(415, "unsupported", &["gzip, deflate and identity are known"]);
            assert_eq!(answer.header("accept-encoding"), Some("gzip, deflate"), "{path} {encoding}");
        }
        let wrong = post(
            &host,
            path,
            &[kind, ("content-encoding", "deflate, gzip")],
            &deflate(&gzip(body.as_bytes())),
        );
        wrong.refused(400, "invalid_input", &["the body is not gzip"]);
    }
}

#[test]
fn a_body_that_unpacks_to_too_much_is_413_at_every_step() {
    let host = start("max_body_mb = 1");
    let zeros = vec![b' '; 8 << 20];
    for (encoding, body) in [
        ("gzip", gzip(&zeros)),
        ("gzip, gzip", gzip(&gzip(&zeros))),
        ("deflate, gzip", gzip(&deflate(&zeros))),
    ] {
        let answer = post(&host, "/predict", &[("content-encoding", encoding)], &body);
        answer.refused(413, "too_large", &["unpacks to over 1 MB"]);
    }
}

#[test]
fn media_types_are_compared_without_case_and_parameters() {
    let host = start("");
    for kind in
        ["application/json", "Application/JSON; charset=UTF-8", "APPLICATION/JSON ;x=y", " application/json"]
    {
        let answer = post(&host, "/predict/plus", &[("content-type", kind)], b"[1]");
        assert_eq!(answer.result(), json!({"y": [2.0]}), "{kind}");
    }
    let other = post(&host, "/predict/plus", &[("content-type", "application/jsonp")], b"[1]");
    other.refused(501, "unsupported", &["application/json"]);
    for (accept, events) in [
        ("text/event-stream", true),
        ("Text/Event-Stream; charset=utf-8", true),
        ("application/json, TEXT/EVENT-STREAM;q=0.5", true),
        ("application/x-ndjson", false),
        ("text/event-streams", false),
    ] {
        let answer = post(&host, "/predict/stream", &[("accept", accept)], GOOD.as_bytes());
        let is_event = answer.header("content-type") == Some("text/event-stream");
        assert_eq!((answer.status, is_event), (200, events), "{accept}");
    }
}

#[test]
fn a_byte_order_mark_is_no_part_of_json() {
    let host = start("");
    let marked = |text: &str| format!("\u{feff}{text}").into_bytes();
    let json_type = [("content-type", "application/json")];
    let infer = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[1]}]}"#;
    for (path, body) in [
        ("/predict", GOOD),
        ("/predict/batch", r#"{"model":"plus","items":[{"data":[1]}]}"#),
        ("/predict/plus", "[1]"),
        ("/v2/models/plus/infer", infer),
        ("/v2/models/plus/generate", r#"{"x":[1]}"#),
    ] {
        let answer = post(&host, path, &json_type, &marked(body));
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    }
    for bytes in [b"\xff\xfe{\0}\0".as_slice(), b"\xfe\xff\0{\0}"] {
        for path in ["/predict", "/predict/plus"] {
            post(&host, path, &json_type, bytes).refused(
                400,
                "invalid_input",
                &["UTF-16", "send JSON as UTF-8"],
            );
        }
    }
    post(&host, "/predict", &[], &marked("")).refused(400, "invalid_input", &["the body is empty"]);
}

#[test]
fn numbers_that_json_does_not_have_get_a_hint() {
    let host = start("");
    let hint = "JSON has no NaN and no infinities: send such numbers as binary data";
    for number in ["NaN", "nan", "Infinity", "-Infinity", "inf", "-inf", "+Infinity", "-NaN"] {
        let body = format!("{{\"model\":\"plus\",\n\"data\":[1, {number}]}}");
        post(&host, "/predict", &[], body.as_bytes()).refused(400, "invalid_input", &[hint, "line 2"]);
        let row = format!("[{number}]");
        let kind = [("content-type", "application/json")];
        post(&host, "/predict/plus", &kind, row.as_bytes()).refused(400, "invalid_input", &[hint]);
        let infer = format!(
            "{{\"inputs\":[{{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1],\"data\":[{number}]}}]}}"
        );
        let answer = host.post("/v2/models/plus/infer", infer);
        assert!(answer.status == 400 && answer.text().contains(hint), "{}", answer.text());
    }
    let other = post(&host, "/predict", &[], br#"{"model":"plus","data":[nil]}"#);
    assert!(
        !other.refused(400, "invalid_input", &[])["message"].to_string().contains("NaN"),
        "{}",
        other.text()
    );
    // A whole number that is written as another one.
    for (number, hint) in [("-0.0", ": 0"), ("1.0", ": 1"), ("-2e2", ": -200")] {
        let body = format!("{{\"model\":\"types\",\"data\":{{\"int64\":[{number}]}}}}");
        let part = format!("write it without a point and an exponent{hint}");
        post(&host, "/predict", &[], body.as_bytes()).refused(400, "invalid_input", &[&part]);
    }
}
