//! Replies that are made before the request has arrived whole: clients that send all of it before
//! they read get them, and what they send is dropped within limits.

use crate::support::{Host, PATIENCE, Setup, eventually, model, takes_less_than};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const MB: usize = 1 << 20;

fn start() -> Host {
    let manifest = "[server]\nmax_body_mb = 1\n[models.plus]\npath = \"plus.onnx\"\n";
    Setup::new(manifest).file("plus.onnx", model("plus1")).grpc().start()
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// Sends the head and 64 MB, and only then reads, to the end.
fn send_then_read(address: SocketAddr, head: &str) -> String {
    let mut stream = connect(address);
    stream.write_all(head.as_bytes()).expect("the head can be sent");
    let piece = vec![b'a'; MB];
    for sent in 0..64 {
        stream.write_all(&piece).unwrap_or_else(|error| panic!("after {sent} MB of {head:?}: {error}"));
    }
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap_or_else(|error| panic!("{error} after {reply:?} to {head:?}"));
    reply
}

/// Waits until the only connection is that of the client which reads the gauge.
fn no_connection_is_left(host: &Host) {
    let gauge = || host.metric("hostler_http_connections");
    eventually("no other connection", || (gauge() == 1.0).then_some(()), || gauge().to_string());
}

#[test]
fn clients_that_send_everything_before_they_read_get_the_reply() {
    let host = start();
    let length = format!("content-length: {}\r\n", 64 * MB);
    let chunk = format!("transfer-encoding: chunked\r\n\r\n{:x}\r\n", 64 * MB);
    let large = "a".repeat(100_000);
    for (status, target, headers) in [
        (413, "POST /predict HTTP/1.1", format!("host: localhost\r\n{length}\r\n")),
        (413, "POST /predict HTTP/1.1", format!("host: localhost\r\n{chunk}")),
        (413, "POST /predict HTTP/1.0", format!("{length}\r\n")),
        (413, "POST /v2/models/plus/infer HTTP/1.1", format!("host: localhost\r\n{length}\r\n")),
        (413, "POST /predict/async HTTP/1.1", format!("host: localhost\r\n{length}\r\n")),
        (415, "POST /predict HTTP/1.1", format!("host: localhost\r\ncontent-encoding: br\r\n{length}\r\n")),
        (404, "POST /nowhere HTTP/1.1", format!("host: localhost\r\n{length}\r\n")),
        (405, "PUT /predict HTTP/1.1", format!("host: localhost\r\n{length}\r\n")),
        (403, "POST /predict/async HTTP/1.1", format!("host: localhost\r\norigin: http://b\r\n{length}\r\n")),
        (400, "POST /predict HTTP/1.1", format!("host: localhost\r\nhost: b\r\n{length}\r\n")),
        (400, "POST /predict HTTP/1.1", format!("host: localhost\r\n{length}content-length: 5\r\n\r\n")),
        (200, "GET /health HTTP/1.1", format!("host: localhost\r\n{length}\r\n")),
        (431, "POST /predict HTTP/1.1", format!("host: localhost\r\nx: {large}\r\n{length}\r\n")),
        (400, "no request at all", "\r\n".to_owned()),
    ] {
        let reply = send_then_read(host.http, &format!("{target}\r\n{headers}"));
        let is_closed = reply.to_ascii_lowercase().contains("connection: close") || target.ends_with("1.0");
        let first = reply.split("\r\n").next().unwrap_or_default();
        assert!(first.contains(&format!(" {status} ")) && is_closed, "{target} {headers}: {reply}");
    }
    let reply = send_then_read(
        host.admin,
        &format!("POST /admin/nothing HTTP/1.1\r\nhost: localhost\r\n{length}\r\n"),
    );
    assert!(reply.starts_with("HTTP/1.1 404"), "{reply}");
    let grpc = host.grpc.expect("a gRPC listener");
    let reply = send_then_read(grpc, &format!("POST /predict HTTP/1.1\r\nhost: localhost\r\n{length}\r\n"));
    assert!(reply.contains("this listener speaks gRPC"), "{reply}");
    no_connection_is_left(&host);
}

/// Returns a connection on which a request was refused whose body was not sent.
fn refused(host: &Host) -> TcpStream {
    let mut stream = connect(host.http);
    let head = format!("POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", 64 * MB);
    stream.write_all(head.as_bytes()).expect("it can be sent");
    let mut reply = String::new();
    // The end of the host's side comes with the reply.
    stream.read_to_string(&mut reply).expect("a reply");
    assert!(reply.starts_with("HTTP/1.1 413"), "{reply}");
    stream
}

#[test]
fn a_client_that_neither_sends_nor_closes_loses_its_connection() {
    let host = start();
    let began = Instant::now();
    let silent = refused(&host);
    assert_eq!(host.metric("hostler_http_connections"), 2.0, "it counts as a connection");
    assert_eq!(host.executor("onnx")["inflight"], 0, "it holds nothing else");
    no_connection_is_left(&host);
    assert!(began.elapsed() >= Duration::from_secs(4), "{:?}: a client has time", began.elapsed());
    drop(silent);
    // A client that closes its side too ends the connection at once.
    takes_less_than(Duration::from_secs(4), || {
        let polite = refused(&host);
        let began = Instant::now();
        polite.shutdown(Shutdown::Write).expect("it can be closed");
        no_connection_is_left(&host);
        began.elapsed()
    });
}

#[test]
fn clients_whose_requests_were_refused_do_not_hold_up_the_end() {
    takes_less_than(Duration::from_secs(4), || {
        let mut host = start();
        let silent = refused(&host);
        let mut busy = refused(&host);
        let sending = std::thread::spawn(move || while busy.write_all(&[b'a'; 1024]).is_ok() {});
        let began = Instant::now();
        host.signal("TERM");
        assert!(host.wait().success(), "{}", host.log());
        let took = began.elapsed();
        sending.join().expect("its connection was closed");
        drop(silent);
        took
    });
}

#[test]
fn a_small_body_that_is_not_wanted_does_not_end_the_connection() {
    let host = start();
    let mut client = host.client();
    for _ in 0..3 {
        let answer = client.request("POST", "/nowhere", &[], &[b'a'; 1000]);
        assert_eq!((answer.status, answer.header("connection")), (404, None));
        let answer = client.request("GET", "/health", &[], b"{}");
        assert_eq!((answer.status, answer.header("connection")), (200, None));
    }
    assert_eq!(client.post("/predict", r#"{"model":"plus","data":[1]}"#).status, 200);
}
