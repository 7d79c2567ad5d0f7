//! HTTP/2 on the public and the admin listener, without TLS: clients know of it beforehand.

use crate::support::http2::{self, Http2, framed, path};
use crate::support::tls::{Connection, open};
use crate::support::{Host, PATIENCE, Setup, grpc, model};
use hyper::Version;
use hyper_util::rt::TokioIo;
use std::io::{Read, Write};
use std::net::SocketAddr;
use tokio::net::TcpStream;

const GOOD: &str = r#"{"model":"plus","data":[1]}"#;

fn start(server: &str) -> Host {
    let manifest = format!("[server]\n{server}\n[models.plus]\npath = \"plus.onnx\"\n");
    Setup::new(&manifest).file("plus.onnx", model("plus1")).grpc().start()
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(PATIENCE, work).await.expect("an end in time") })
}

async fn connect(address: SocketAddr) -> Connection {
    let stream = TcpStream::connect(address).await.expect("a connection");
    open(TokioIo::new(stream), true).await.expect("HTTP/2")
}

#[test]
fn requests_are_answered_as_over_http1() {
    let host = start("");
    run(async {
        let mut connection = connect(host.http).await;
        for (method, target, body, status, part) in [
            ("POST", "/predict", GOOD, 200, "\"result\""),
            ("POST", "/predict", "{", 400, "invalid_input"),
            ("GET", "/health", "", 200, "ok"),
            ("GET", "/metrics", "", 200, "hostler_build_info"),
            ("GET", "/models", "", 200, "plus"),
            ("GET", "/v2/models/plus", "", 200, "plus"),
            ("GET", "/nowhere", "", 404, "no route"),
            ("PUT", "/predict", "", 405, ""),
        ] {
            let reply = connection.send(method, target, &[], body).await.expect("a reply");
            assert_eq!(
                (reply.version, reply.status),
                (Version::HTTP_2, status),
                "{method} {target}: {reply:?}"
            );
            assert!(reply.body.contains(part), "{method} {target}: {reply:?}");
            assert!(reply.headers.contains_key("date"), "{reply:?}");
        }
        let head = connection.send("HEAD", "/health", &[], "").await.expect("a reply");
        assert_eq!((head.status, &*head.body), (200, ""));
        assert_eq!(head.headers["content-length"], "15");
        let mut operator = connect(host.admin).await;
        let reply = operator.send("GET", "/admin/policy", &[], "").await.expect("a reply");
        assert_eq!((reply.version, reply.status), (Version::HTTP_2, 200), "{reply:?}");
        assert!(reply.body.contains("generation"), "{reply:?}");
    });
    assert_eq!(host.metric("hostler_requests_total{code=\"200\",model=\"plus\",version=\"1\"}"), 1.0);
}

#[test]
fn requests_of_one_connection_run_beside_each_other() {
    let manifest = "[models.slow]\npath = \"slow.onnx\"\n";
    let host = Setup::new(manifest).file("slow.onnx", model("plus1")).start();
    let connection = Http2::at(host.http);
    connection.run(async {
        // The first body is not complete when the second request is answered.
        let headers = [("content-type", "application/json")];
        let body = GOOD.replace("plus", "slow");
        let mut first = http2::begin(&connection.sender, "/predict", &headers).await.unwrap();
        let mut second = http2::begin(&connection.sender, "/predict", &headers).await.unwrap();
        second.body.send_data(body.clone().into(), true).unwrap();
        let reply = http2::finish(second.response.await.unwrap()).await.unwrap();
        assert_eq!(reply.http_status, 200, "{reply:?}");
        first.body.send_data(body.into(), true).unwrap();
        assert_eq!(http2::finish(first.response.await.unwrap()).await.unwrap().http_status, 200);
    });
}

#[test]
fn grpc_is_answered_on_the_public_listener_as_well() {
    let host = start("");
    let caller = grpc::Caller::at(grpc::endpoint(host.http));
    let response = caller.infer(grpc::floats("plus", &[1.0])).expect("an answer");
    assert_eq!(response.model_name, "plus");
    let missing = caller.infer(grpc::floats("minus", &[1.0])).expect_err("an error");
    assert_eq!(missing.code(), tonic::Code::NotFound);
    // Both kinds on one connection.
    let connection = Http2::at(host.http);
    connection.run(async {
        let mut call = http2::begin(&connection.sender, &path("ModelInfer"), &[]).await.unwrap();
        call.body.send_data(framed(&grpc::floats("plus", &[1.0])), true).unwrap();
        let reply = http2::finish(call.response.await.unwrap()).await.unwrap();
        assert_eq!((reply.http_status, reply.raw("grpc-status")), (200, "0"));
        let headers = [("content-type", "application/json")];
        let mut call = http2::begin(&connection.sender, "/predict", &headers).await.unwrap();
        call.body.send_data(GOOD.into(), true).unwrap();
        assert_eq!(http2::finish(call.response.await.unwrap()).await.unwrap().http_status, 200);
    });
    // The admin listener has no gRPC.
    let operator = Http2::at(host.admin);
    operator.run(async {
        let mut call = http2::begin(&operator.sender, &path("ModelInfer"), &[]).await.unwrap();
        call.body.send_data(framed(&grpc::floats("plus", &[1.0])), true).unwrap();
        assert_eq!(
            http2::finish(call.response.await.unwrap()).await.unwrap().http_status,
            403,
            "its host is not local"
        );
    });
}

#[test]
fn a_body_over_the_limit_is_refused_and_the_connection_goes_on() {
    let host = start("max_body_mb = 1");
    run(async {
        let mut connection = connect(host.http).await;
        for _ in 0..3 {
            let reply =
                connection.send("POST", "/predict", &[], &"x".repeat(3 << 20)).await.expect("a reply");
            assert_eq!(reply.status, 413, "{reply:?}");
            assert!(reply.body.contains("max_body_mb"), "{reply:?}");
        }
        let reply = connection.send("POST", "/predict", &[], GOOD).await.expect("a reply");
        assert_eq!(reply.status, 200, "{reply:?}");
    });
}

#[test]
fn a_reply_that_nobody_reads_resets_its_call_alone() {
    let server = "write_timeout_ms = 300\nmin_bytes_per_s = 0";
    let manifest = format!("[server]\n{server}\n[models.same]\npath = \"same.onnx\"\n");
    let host = Setup::new(&manifest).file("same.onnx", model("identity")).start();
    let numbers = vec!["1.5"; 400_000].join(",");
    let body = format!("{{\"model\":\"same\",\"data\":[[{numbers}]]}}");
    let connection = Http2::at(host.http);
    connection.run(async {
        let headers = [("content-type", "application/json")];
        let mut unread = http2::begin(&connection.sender, "/predict", &headers).await.unwrap();
        unread.body.send_data(body.into(), true).unwrap();
        let mut reply = unread.response.await.unwrap();
        assert_eq!(reply.status(), 200);
        // Without room in the window of the call, the host sends no more.
        let mut received = 0;
        let error = loop {
            match reply.body_mut().data().await {
                Some(Ok(part)) => received += part.len(),
                Some(Err(error)) => break error,
                None => panic!("the reply is complete after {received} bytes"),
            }
        };
        assert!(error.is_reset(), "{error}");
        let mut good = http2::begin(&connection.sender, "/v2/health/live", &headers).await.unwrap();
        good.body.send_data("".into(), true).unwrap();
        assert_eq!(good.response.await.unwrap().status(), 405, "the connection goes on");
    });
}

#[test]
fn http2_must_be_the_first_on_its_connection() {
    let host = start("");
    let mut stream = std::net::TcpStream::connect(host.http).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n").expect("sent");
    let mut reply = [0; 12];
    stream.read_exact(&mut reply).expect("a reply");
    assert_eq!(&reply, b"HTTP/1.1 200");
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("sent");
    let mut rest = String::new();
    stream.read_to_string(&mut rest).expect("text");
    assert!(rest.contains("400 Bad Request") && rest.contains("open another connection"), "{rest}");
}

#[test]
fn a_drain_answers_what_has_begun() {
    let mut host = start("drain_timeout_ms = 20000");
    let connection = Http2::at(host.http);
    let headers = [("content-type", "application/json")];
    let mut call = connection.run(http2::begin(&connection.sender, "/predict", &headers)).unwrap();
    connection.run(async { call.body.send_data(GOOD[..5].into(), false) }).unwrap();
    // The host has read the head of the call once it answers another one behind it.
    connection.run(async {
        let mut behind = http2::begin(&connection.sender, "/predict", &headers).await.unwrap();
        behind.body.send_data(GOOD.into(), true).unwrap();
        assert_eq!(behind.response.await.unwrap().status(), 200);
    });
    host.signal("TERM");
    host.wait_for_log(&["draining"]);
    let reply = connection.run(async {
        call.body.send_data(GOOD[5..].into(), true).unwrap();
        http2::finish(call.response.await.unwrap()).await.unwrap()
    });
    assert_eq!(reply.http_status, 200, "{reply:?}");
    assert_eq!(host.wait().code(), Some(0), "{}", host.log());
}
