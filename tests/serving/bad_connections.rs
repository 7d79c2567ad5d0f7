//! Clients that send invalid HTTP, send it slowly, or send nothing: they are refused with a reason
//! where possible, and never disturb other clients.

use crate::support::{Answer, Host, PATIENCE, Setup, eventually, model};
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;

const GOOD: &str = r#"{"model":"plus","data":[1]}"#;

fn start(server: &str) -> Host {
    let manifest = format!("[server]\n{server}\n[models.plus]\npath = \"plus.onnx\"\n");
    Setup::new(&manifest).file("plus.onnx", model("plus1")).start()
}

fn post(path: &str, headers: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: a\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}

/// Sends bytes on a new connection and reads everything until the host closes it.
fn exchange(host: &Host, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(host.http).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // The host may answer and close before it has read everything.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// Checks that a new connection is served as usual, and that no other connection is left.
fn unharmed(host: &Host) {
    let answer = host.post("/predict", GOOD);
    assert_eq!(answer.result(), json!({"y": [2.0]}));
    at_rest(host);
}

fn at_rest(host: &Host) {
    let gauges = || {
        let inflight = host.metric("hostler_executor_inflight{executor=\"onnx\"}");
        (inflight, host.metric("hostler_http_connections"))
    };
    // The one connection is the one that reads the gauges.
    eventually("rest", || (gauges() == (0.0, 1.0)).then_some(()), || format!("{:?}", gauges()));
}

fn status(answer: &str) -> &str {
    answer.lines().next().unwrap_or_default()
}

/// Parses the body of the last answer as JSON.
fn body(answer: &str) -> serde_json::Value {
    let body = answer.rsplit("\r\n\r\n").next().unwrap_or_default();
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error} in {answer}"))
}

#[test]
fn what_is_not_http_is_400() {
    let host = start("");
    let hello = [0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03];
    for bytes in [
        &b"hello\r\n\r\n"[..],
        &hello,
        &[0; 64],
        b"GET\r\n\r\n",
        b"GET /health\r\n\r\n",
        b"GET /health HTTP/9.9\r\n\r\n",
        b"GET /health HTTP/1.1\r\nhost a\r\n\r\n",
        b"GET /health HTTP/1.1\r\nho\0st: a\r\n\r\n",
        b"GET /he\x01lth HTTP/1.1\r\nhost: a\r\n\r\n",
    ] {
        let answer = exchange(&host, bytes);
        assert_eq!(
            status(&answer),
            "HTTP/1.1 400 Bad Request",
            "{}: {answer}",
            String::from_utf8_lossy(bytes)
        );
        let error = &body(&answer)["error"];
        assert_eq!(error["kind"], "invalid_input", "{answer}");
        assert!(error["message"].as_str().is_some_and(|text| text.contains("is not HTTP/1.1")), "{answer}");
        unharmed(&host);
    }
}

#[test]
fn what_is_not_http_is_told_so_in_the_form_of_whoever_was_asked() {
    let host = start("max_header_kb = 16");
    let path = "/v2/models/plus/infer";
    let broken = exchange(&host, format!("POST {path} HTTP/1.1\r\nhost a\r\n\r\n").as_bytes());
    assert!(body(&broken)["error"].as_str().is_some_and(|text| text.contains("is not HTTP/1.1")), "{broken}");
    let long = post(path, &format!("x-a: {}\r\n", "a".repeat(17_000)), GOOD);
    let long = exchange(&host, long.as_bytes());
    assert!(body(&long)["error"].as_str().is_some_and(|text| text.contains("max_header_kb")), "{long}");
    // The same after an answer on the same connection.
    let both = format!("{}GET\r\n\r\n", post("/predict", "", GOOD));
    let answers = exchange(&host, both.as_bytes());
    let (first, second) = answers.split_at(answers.rfind("HTTP/1.1 400").expect("a refusal"));
    assert_eq!(body(first)["result"], json!({"y": [2.0]}));
    assert_eq!(body(second)["error"]["kind"], "invalid_input");
    unharmed(&host);
}

#[test]
fn an_answer_that_looks_like_a_refusal_is_sent_as_it_is() {
    // Client bytes in an answer are never mistaken for an answer of the connection's own.
    let host =
        Setup::new("[models.texts]\npath = \"texts.onnx\"\n").file("texts.onnx", model("texts")).start();
    let look = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n".repeat(40_000);
    let input = json!({"name": "INPUT0", "datatype": "BYTES", "shape": [1, 1], "data": [look]});
    let request = json!({"inputs": [input], "parameters": {"binary_data_output": true}});
    let answer = host.post("/v2/models/texts/infer", request.to_string());
    assert_eq!(answer.status, 200);
    assert!(answer.body.ends_with(look.as_bytes()));
    let headers: usize = answer.header("inference-header-content-length").unwrap().parse().unwrap();
    assert_eq!(answer.body.len(), headers + 4 + look.len());
}

#[test]
fn a_path_or_verb_that_is_not_there_is_404_or_405() {
    let host = start("");
    let ask = |method: &str, path: &str| host.client().request(method, path, &[], b"");
    for (method, path, allow) in [
        ("GET", "/predict", "POST"),
        ("DELETE", "/predict", "POST"),
        ("PUT", "/predict/batch", "POST"),
        ("PATCH", "/predict/plus", "POST"),
        ("BREW", "/predict/plus", "POST"),
        ("post", "/predict", "POST"),
        ("POST", "/models", "GET"),
        ("DELETE", "/metrics", "GET"),
    ] {
        let answer = ask(method, path);
        answer.refused(405, "unsupported", &[&format!("this path takes {allow} only")]);
        assert_eq!(answer.header("allow"), Some(&*allow.replace("GET", "GET, HEAD")), "{method} {path}");
        unharmed(&host);
    }
    for (method, path) in [
        ("GET", "/"),
        ("GET", "/predicts"),
        ("POST", "/predict/plus/1"),
        ("GET", "/v1/models"),
        ("GET", "/admin/policy"),
        ("POST", "/admin/reload"),
        ("GET", "//health"),
    ] {
        let hint = if path.starts_with("/admin") { "on the admin listener" } else { "GET /models" };
        ask(method, path).refused(404, "not_found", &[&format!("no route {method} {path}"), hint]);
        unharmed(&host);
    }
    let long = format!("/{}", "x".repeat(20_000));
    let error = ask("GET", &long).refused(404, "not_found", &["no route GET /xxx"]);
    assert!(error["message"].as_str().unwrap().len() < 400);
}

#[test]
fn headers_over_the_limit_are_431() {
    let host = start("max_header_kb = 16");
    let with = |count: usize, length: usize| {
        let header = format!("x-a: {}\r\n", "a".repeat(length));
        exchange(
            &host,
            post("/predict", &format!("connection: close\r\n{}", header.repeat(count)), GOOD).as_bytes(),
        )
    };
    assert_eq!(status(&with(1, 15_000)), "HTTP/1.1 200 OK");
    assert_eq!(status(&with(90, 100)), "HTTP/1.1 200 OK");
    for (count, length) in [(1, 17_000), (1, 1_000_000), (3, 8_000), (500, 10)] {
        let answer = with(count, length);
        assert_eq!(status(&answer), "HTTP/1.1 431 Request Header Fields Too Large", "{count} of {length}");
        let error = &body(&answer)["error"];
        assert_eq!(error["kind"], "too_large", "{answer}");
        let message = error["message"].as_str().unwrap_or_default();
        assert!(message.contains("over 16 KB") && message.contains("max_header_kb"), "{answer}");
        unharmed(&host);
    }
    let path = format!("/predict/{}", "x".repeat(100_000));
    let answer = exchange(&host, post(&path, "", GOOD).as_bytes());
    assert!(
        ["HTTP/1.1 414 URI Too Long", "HTTP/1.1 431 Request Header Fields Too Large"]
            .contains(&status(&answer))
    );
    assert_eq!(body(&answer)["error"]["kind"], "too_large", "{answer}");
    unharmed(&host);
}

#[test]
fn a_head_over_the_limit_is_431_also_where_it_comes_at_once() {
    let host = start("");
    let with = |length: usize| {
        exchange(
            &host,
            post("/predict", &format!("connection: close\r\nx-a: {}\r\n", "a".repeat(length)), GOOD)
                .as_bytes(),
        )
    };
    assert_eq!(status(&with(63 << 10)), "HTTP/1.1 200 OK");
    for length in [65 << 10, 100_000] {
        assert_eq!(status(&with(length)), "HTTP/1.1 431 Request Header Fields Too Large", "{length}");
    }
    unharmed(&host);
}

#[test]
fn a_body_over_the_limit_is_413() {
    let host = start("max_body_mb = 1");
    let large = format!("{{\"model\":\"plus\",\"data\":[1],\"x\":\"{}\"}}", "a".repeat(1 << 20));
    let fits = format!("{{\"model\":\"plus\",\"data\":[1{}]}}", " ".repeat((1 << 20) - 40));
    assert_eq!(host.post("/predict", &fits).status, 200);
    for path in ["/predict", "/predict/batch", "/predict/plus"] {
        // Refused immediately if the length says so, whether or not the body is sent.
        for body in ["", &large] {
            let mut client = host.client();
            let head = format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", large.len());
            let _ = client.send(format!("{head}{body}").as_bytes());
            client.receive().unwrap().refused(413, "too_large", &["the body is over 1 MB; see max_body_mb"]);
        }
        // A chunked body is refused while it is being received.
        let chunk = format!("{:x}\r\n{}\r\n", 64 << 10, "a".repeat(64 << 10));
        let head = format!("POST {path} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
        let mut client = host.client();
        let _ = client.send(format!("{head}{}", chunk.repeat(17)).as_bytes());
        client.receive().unwrap().refused(413, "too_large", &["the body is over 1 MB; see max_body_mb"]);
        drop(client);
        unharmed(&host);
    }
    let answer = host.post("/v2/models/plus/infer", &large);
    assert_eq!(
        (answer.status, answer.json()),
        (413, json!({"error": "the body is over 1 MB; see max_body_mb"}))
    );
    unharmed(&host);
}

#[test]
fn a_client_that_waits_for_leave_to_send_its_body_gets_it_or_the_refusal() {
    let host = start("max_body_mb = 1");
    let head = |length: usize| {
        format!(
            "POST /predict HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n"
        )
    };
    let mut client = host.client();
    client.send(head(GOOD.len()).as_bytes()).unwrap();
    assert_eq!(client.receive().unwrap().status, 100);
    client.send(GOOD.as_bytes()).unwrap();
    assert_eq!(client.receive().unwrap().status, 200);
    client.send(head(2 << 20).as_bytes()).unwrap();
    client.receive().unwrap().refused(413, "too_large", &["over 1 MB"]);
    drop(client);
    unharmed(&host);
}

#[test]
fn half_a_head_is_told_408_and_an_idle_connection_is_not() {
    let host = start("header_timeout_ms = 200\nidle_timeout_ms = 300");
    for half in
        ["G", "GET /health HTTP/1.1\r\n", "POST /predict HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n"]
    {
        let mut client = host.client();
        client.send(half.as_bytes()).unwrap();
        client.receive().unwrap().refused(408, "deadline", &["headers did not arrive in time"]);
        drop(client);
        unharmed(&host);
    }
    // Idle from the start, and idle after an answer: closed without an answer.
    for first in ["", "GET /health HTTP/1.1\r\nhost: a\r\n\r\n"] {
        let mut client = host.client();
        client.send(first.as_bytes()).unwrap();
        if !first.is_empty() {
            assert_eq!(client.receive().unwrap().status, 200);
        }
        let silence = client.receive().unwrap_err();
        assert!(silence.to_string().contains("no status in \"\""), "{silence}");
    }
    // Sending a byte from time to time does not avoid the timeout.
    let slow = TcpStream::connect(host.http).unwrap();
    let one_more = || (&slow).write_all(b"a").is_err().then_some(());
    eventually("the end of a slow client", one_more, || host.log());
    unharmed(&host);
}

#[test]
fn the_time_without_a_request_is_not_that_for_a_head() {
    let served = |client: &mut crate::support::Client| {
        client.send(b" HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        assert_eq!(client.receive().unwrap().status, 200);
    };
    // An idle connection outlives a head that is late.
    let host = start("header_timeout_ms = 200");
    let (mut fresh, mut used) = (host.client(), host.client());
    fresh.send(b"").unwrap();
    assert_eq!(used.get("/health").status, 200);
    let mut late = host.client();
    late.send(b"GET /health").unwrap();
    late.receive().unwrap().refused(408, "deadline", &["did not arrive in time"]);
    for client in [&mut fresh, &mut used] {
        client.send(b"GET /health").unwrap();
        served(client);
    }
    // A head that has begun outlives an idle connection.
    let host = start("idle_timeout_ms = 300");
    let (mut begun, mut idle) = (host.client(), host.client());
    begun.send(b"GET /health").unwrap();
    idle.send(b"").unwrap();
    assert!(idle.receive().is_err(), "it is closed without an answer");
    served(&mut begun);
    assert!(begun.receive().is_err(), "it is idle from now on");
    for (server, part) in [
        ("idle_timeout_ms = 0", "idle_timeout_ms must be at least 1"),
        ("idle_timeout_ms = -1", "idle_timeout_ms"),
    ] {
        let manifest = format!("[server]\n{server}\n");
        let (code, _, error) = Setup::new(&manifest).run(&["check", "hostler.toml"]);
        assert!(code == 1 && error.contains(part), "{error}");
    }
}

#[test]
fn a_body_that_does_not_come_is_given_up() {
    let host = start("body_timeout_ms = 200");
    for (headers, half) in [
        ("content-length: 100\r\n", ""),
        ("content-length: 100\r\n", "{\"model\""),
        ("transfer-encoding: chunked\r\n", "5\r\n{\"mod\r\n"),
    ] {
        let mut client = host.client();
        client.send(format!("POST /predict HTTP/1.1\r\nhost: a\r\n{headers}\r\n{half}").as_bytes()).unwrap();
        client.receive().unwrap().refused(408, "deadline", &["the body did not arrive within 200 ms"]);
        drop(client);
        unharmed(&host);
    }
}

#[test]
fn who_leaves_in_the_middle_leaves_nothing_behind() {
    let host = start("");
    let whole = post("/predict", "", GOOD);
    for end in [1, 10, whole.len() / 2, whole.len() - GOOD.len(), whole.len() - 1] {
        let mut client = host.client();
        client.send(&whole.as_bytes()[..end]).unwrap();
        client.leave();
        unharmed(&host);
    }
    // Invalid chunks.
    for chunks in ["zz\r\n", "5\r\nab\r\n0\r\n\r\n", "-1\r\n\r\n", "ffffffffffffffffff\r\n"] {
        let head = "POST /predict HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
        let answer = exchange(&host, format!("{head}{chunks}").as_bytes());
        assert_eq!(status(&answer), "HTTP/1.1 400 Bad Request", "{chunks}: {answer}");
        unharmed(&host);
    }
}

#[test]
fn requests_sent_at_once_are_answered_in_order() {
    let host = start("");
    let mut client = host.client();
    let requests: Vec<String> = (0..20)
        .map(|number| match number % 4 {
            3 => "GET /health HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
            2 => post("/predict", "", "{"),
            _ => post("/predict", "", &json!({"model": "plus", "data": [number]}).to_string()),
        })
        .collect();
    client.send(requests.concat().as_bytes()).unwrap();
    for number in 0..20 {
        let answer: Answer = client.receive().unwrap();
        match number % 4 {
            3 => assert_eq!(answer.json(), json!({"status": "ok"})),
            2 => drop(answer.refused(400, "invalid_input", &["body"])),
            _ => assert_eq!(answer.result(), json!({"y": [f64::from(number) + 1.0]})),
        }
    }
    drop(client);
    unharmed(&host);
}

#[test]
fn http_1_0_and_chunked_bodies_are_served() {
    let host = start("");
    let old = exchange(&host, post("/predict", "", GOOD).replace("HTTP/1.1", "HTTP/1.0").as_bytes());
    assert_eq!(status(&old), "HTTP/1.0 200 OK");
    assert!(old.ends_with("\"result\":{\"y\":[2.0]}}"), "{old}");
    let chunks: String = GOOD.chars().map(|byte| format!("1\r\n{byte}\r\n")).collect();
    let head = "POST /predict HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    let answer = exchange(&host, format!("{head}{chunks}0\r\n\r\n").as_bytes());
    assert_eq!(status(&answer), "HTTP/1.1 200 OK");
    assert!(answer.ends_with("\"result\":{\"y\":[2.0]}}"), "{answer}");
    unharmed(&host);
}

#[test]
fn a_connection_over_the_limit_is_503_and_the_others_are_served() {
    let host = start("max_connections = 3");
    let mut clients: Vec<_> = (0..3).map(|_| host.client()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/health").status, 200);
    }
    let mut fourth = host.client();
    fourth.send(post("/predict", "", GOOD).as_bytes()).unwrap();
    let answer = fourth.receive().unwrap();
    answer.refused(503, "overloaded", &["all 3 connections of this host are in use"]);
    assert_eq!(answer.header("retry-after"), Some("1"));
    for client in &mut clients {
        assert_eq!(client.post("/predict", GOOD).status, 200);
    }
    clients.pop();
    let again = || {
        let answer = host.client().try_request("POST", "/predict", &[], GOOD.as_bytes()).ok()?;
        (answer.status == 200).then_some(())
    };
    eventually("a free place", again, || host.log());
}
