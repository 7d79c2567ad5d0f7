//! Clients that send or read slowly: the memory that the host holds for them is bounded, other
//! clients are served, and slow ones are eventually disconnected.

use crate::support::grpc::request;
use crate::support::{Client, Host, Setup, eventually, model};
use bytes::Bytes;
use h2::client::SendRequest;
use hyper::Request;
use prost::Message;
use serde_json::json;
use std::future::poll_fn;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const MB: usize = 1 << 20;

/// Starts a host that buffers at most 32 MB for all clients. The model returns its input.
fn start(server: &str) -> Host {
    let manifest = format!(
        "[server]\ngrpc = \"127.0.0.1:0\"\nmax_body_mb = 16\nmax_buffered_mb = 32\n{server}\n\
         [models.copy]\npath = \"copy.onnx\"\n"
    );
    Setup::new(&manifest).file("copy.onnx", model("copy")).start()
}

/// Returns the head of a request for the raw bytes of a tensor.
fn head(bytes: usize) -> String {
    format!(
        "POST /v2/models/copy/infer HTTP/1.1\r\nhost: a\r\ninference-header-content-length: 0\r\n\
         content-length: {bytes}\r\n\r\n"
    )
}

/// Returns a client that has sent all of a request but the last byte. Write errors are ignored: the
/// host may answer before that.
fn unfinished(host: &Host, bytes: usize) -> Client {
    let mut client = host.client();
    let _ = client.send(head(bytes).as_bytes());
    let _ = client.send(&vec![0; bytes - 1]);
    client
}

/// Returns a client that has sent a request and does not read its answer.
fn unread(host: &Host, bytes: usize) -> Client {
    let mut client = host.client();
    let _ = client.send(head(bytes).as_bytes());
    let _ = client.send(&vec![0; bytes]);
    client
}

fn copied(host: &Host, bytes: usize) -> Option<()> {
    let body = vec![7; bytes];
    let headers = [("inference-header-content-length", "0")];
    let answer = host.client().try_request("POST", "/v2/models/copy/infer", &headers, &body).ok()?;
    match answer.status {
        200 => assert!(answer.body.ends_with(&body)),
        // The slow clients may fill the whole budget at this moment.
        status => assert!(matches!(status, 429 | 503), "{}", answer.text()),
    }
    (answer.status == 200).then_some(())
}

fn aborted(host: &Host, direction: &str, reason: &str) -> f64 {
    host.metric(&format!("hostler_transfers_aborted_total{{direction=\"{direction}\",reason=\"{reason}\"}}"))
}

fn buffered(host: &Host) -> f64 {
    host.metric("hostler_buffered_bytes")
}

fn wait_for_nothing_buffered(host: &Host) {
    eventually("nothing to be held", || (buffered(host) == 0.0).then_some(()), || host.log());
}

#[test]
fn requests_that_never_end_hold_no_more_than_the_budget() {
    let host = start("min_bytes_per_s = 0");
    copied(&host, MB).expect("an idle host serves");
    // 960 MB in total. The allocator returns freed memory with a delay, so that on a busy machine
    // the process takes up to five times the budget.
    let (growth_kb, clients) =
        host.peak_growth_kb(|| (0..240).map(|_| unfinished(&host, 4 * MB)).collect::<Vec<_>>());
    assert!(growth_kb < 480 << 10, "{growth_kb} kB");
    assert!(buffered(&host) <= 32.0 * MB as f64);
    // Small requests are served immediately; large ones are served by aborting slow transfers.
    copied(&host, 64 << 10).expect("small requests do not need the budget");
    eventually("a large request to be served", || copied(&host, 8 * MB), || host.log());
    assert!(aborted(&host, "request", "limit") >= 1.0);
    assert_eq!(host.get("/health").status, 200);
    drop(clients);
    wait_for_nothing_buffered(&host);
}

#[test]
fn a_request_that_stops_is_told_that_it_is_slow() {
    let host = start("body_timeout_ms = 600000");
    let mut stopped = unfinished(&host, 100_000);
    let error = stopped.receive().unwrap().json()["error"].clone();
    assert!(error.as_str().unwrap().contains("less than 1024 bytes/s for 5 s"), "{error}");
    assert_eq!(aborted(&host, "request", "slow"), 1.0);
    host.wait_for_log(&["transfer aborted", "slow"]);
    wait_for_nothing_buffered(&host);
}

#[test]
fn answers_that_nobody_reads_hold_no_more_than_the_budget() {
    let host = start("");
    copied(&host, MB).expect("an idle host serves");
    let clients = std::cell::RefCell::new(Vec::new());
    // One more client each time: a request may be refused while the previous answers are too recent
    // to be aborted.
    let five_more = || {
        clients.borrow_mut().push(unread(&host, 16 * MB));
        (aborted(&host, "answer", "limit") >= 5.0).then_some(())
    };
    eventually("answers to be given up", five_more, || host.log());
    let is_bounded = || (buffered(&host) <= 32.0 * MB as f64).then_some(());
    eventually("no more to be held than the budget", is_bounded, || host.log());
    eventually("a large request to be served", || copied(&host, 8 * MB), || host.log());
    drop(clients);
    wait_for_nothing_buffered(&host);
}

#[test]
fn an_answer_that_nobody_reads_is_given_up_after_a_while() {
    let host = start("write_timeout_ms = 1000");
    let client = unread(&host, 16 * MB);
    let given_up = || {
        let connections = host.metric("hostler_connections_closed_total{reason=\"unread\"}");
        (aborted(&host, "answer", "stalled") + connections >= 1.0).then_some(())
    };
    eventually("the answer to be given up", given_up, || host.log());
    wait_for_nothing_buffered(&host);
    drop(client);

    // Small unread answers take no memory beyond that of their connection, which is closed as well.
    let before = host.metric("hostler_connections_closed_total{reason=\"unread\"}");
    let mut client = host.client();
    client.send(b"").unwrap();
    let mut sent = Ok(());
    let one = b"GET /models HTTP/1.1\r\nhost: a\r\n\r\n".repeat(1000);
    while sent.is_ok() {
        sent = client.send(&one);
        if host.metric("hostler_connections_closed_total{reason=\"unread\"}") > before {
            break;
        }
    }
    assert!(host.metric("hostler_connections_closed_total{reason=\"unread\"}") > before, "{sent:?}");
}

#[test]
fn a_shutdown_does_not_wait_for_clients_that_do_not_read() {
    let mut host = start("drain_timeout_ms = 120000\nwrite_timeout_ms = 120000\nbody_timeout_ms = 120000");
    let answer = unread(&host, 16 * MB);
    eventually("the answer to wait", || (buffered(&host) >= 16.0 * MB as f64).then_some(()), || host.log());
    let request = unfinished(&host, 4 * MB);
    let started = Instant::now();
    host.signal("TERM");
    assert!(host.wait().success(), "{}", host.log());
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
    drop((answer, request));
}

/// Opens an HTTP/2 connection whose client accepts `each` bytes of each answer and `all` bytes in
/// total, and more only when it releases capacity.
async fn connect(host: &Host, [each, all]: [u32; 2]) -> SendRequest<Bytes> {
    let stream = tokio::net::TcpStream::connect(host.grpc.expect("a gRPC listener")).await.unwrap();
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(each).initial_connection_window_size(all);
    let (client, connection) = builder.handshake(stream).await.unwrap();
    tokio::spawn(connection);
    client
}

fn call(method: &str) -> Request<()> {
    let request = Request::post(format!("http://a/inference.GRPCInferenceService/{method}"));
    request.header("content-type", "application/grpc").header("te", "trailers").body(()).unwrap()
}

/// Returns a gRPC message that asks for a copy.
fn message(bytes: usize) -> Bytes {
    let input = crate::support::grpc::input("x", "FP32", &[(bytes / 4) as i64]);
    let message = request("copy", vec![input], vec![vec![0; bytes]]).encode_to_vec();
    let mut framed = vec![0];
    framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
    framed.extend_from_slice(&message);
    framed.into()
}

/// Sends data as flow control permits. Returns false if the call ended first.
async fn send(stream: &mut h2::SendStream<Bytes>, mut data: Bytes, is_last: bool) -> bool {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        match poll_fn(|context| stream.poll_capacity(context)).await {
            Some(Ok(room)) => {
                let part = data.split_to(room.min(data.len()));
                if stream.send_data(part, is_last && data.is_empty()).is_err() {
                    return false;
                }
            }
            _ => return false,
        }
    }
    true
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn grpc_copied(host: &Host, bytes: usize) -> Option<()> {
    let caller = crate::support::grpc::Caller::new(host);
    let input = crate::support::grpc::input("x", "FP32", &[(bytes / 4) as i64]);
    match caller.infer(request("copy", vec![input], vec![vec![0; bytes]])) {
        Ok(_) => Some(()),
        // The slow clients may fill the whole budget at this moment.
        Err(status) => {
            assert_eq!(status.code(), tonic::Code::Unavailable, "{status}");
            None
        }
    }
}

#[test]
fn messages_that_never_end_hold_no_more_than_the_budget() {
    let host = start("min_bytes_per_s = 0");
    for method in ["ModelInfer", "ModelStreamInfer", "RepositoryModelLoad"] {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let open = runtime.block_on(async {
            let mut client = connect(&host, [1 << 20, 1 << 30]).await;
            let mut open = Vec::new();
            for _ in 0..20 {
                client = client.ready().await.unwrap();
                let (answer, mut stream) = client.send_request(call(method), false).unwrap();
                let mut all_but_one = message(3 * MB);
                all_but_one.truncate(all_but_one.len() - 1);
                send(&mut stream, all_but_one, false).await;
                open.push((answer, stream));
            }
            open
        });
        assert!(buffered(&host) <= 32.0 * MB as f64, "{method}");
        eventually("another client to be served", || grpc_copied(&host, 3 * MB), || host.log());
        drop(open);
        drop(runtime);
        wait_for_nothing_buffered(&host);
    }
    assert!(aborted(&host, "request", "limit") >= 3.0);
}

#[test]
fn calls_whose_answers_nobody_reads_are_reset_and_others_go_on() {
    let host = start("write_timeout_ms = 1000");
    for method in ["ModelInfer", "ModelStreamInfer"] {
        run(async {
            let mut client = connect(&host, [1000, 1 << 30]).await;
            client = client.ready().await.unwrap();
            let (answer, mut stream) = client.send_request(call(method), false).unwrap();
            assert!(send(&mut stream, message(8 * MB), true).await);
            let mut unread = answer.await.unwrap().into_body();
            // Another call on the same connection, whose answer is read while the first one waits.
            client = client.ready().await.unwrap();
            let (answer, mut stream) = client.send_request(call("ModelInfer"), false).unwrap();
            assert!(send(&mut stream, message(400), true).await);
            let mut read = answer.await.unwrap().into_body();
            let reset = loop {
                // Received bytes are not released, so the window stays closed.
                match poll_fn(|context| unread.poll_data(context)).await {
                    Some(Ok(_)) => {}
                    end => break end,
                }
            };
            assert!(reset.is_some_and(|end| end.unwrap_err().is_reset()), "{method}");
            let mut bytes = 0;
            while let Some(part) = read.data().await {
                let part = part.unwrap();
                bytes += part.len();
                read.flow_control().release_capacity(part.len()).unwrap();
            }
            assert!(bytes > 400, "{method}: {bytes}");
        });
        wait_for_nothing_buffered(&host);
    }
    assert_eq!(aborted(&host, "answer", "stalled"), 2.0);
}

#[test]
fn a_connection_that_gives_no_room_for_answers_is_closed() {
    let host = start("write_timeout_ms = 1000");
    run(async {
        // Received bytes are not released, so the first answers use up the connection's window.
        let mut client = connect(&host, [1 << 20, 65_535]).await;
        let mut answers = Vec::new();
        for _ in 0..10 {
            client = client.ready().await.unwrap();
            let (answer, mut stream) = client.send_request(call("ModelInfer"), false).unwrap();
            assert!(send(&mut stream, message(20_000), true).await);
            answers.push(answer);
        }
        // Kept until the end: dropping a body releases its window.
        let (mut broken, mut bodies) = (0, Vec::new());
        for answer in answers {
            let Ok(answer) = answer.await else {
                broken += 1;
                continue;
            };
            let mut body = answer.into_body();
            loop {
                match poll_fn(|context| body.poll_data(context)).await {
                    Some(Ok(_)) => {}
                    Some(Err(_)) => break broken += 1,
                    None => break,
                }
            }
            bodies.push(body);
        }
        assert!((6..=7).contains(&broken), "{broken}");
    });
    wait_for_nothing_buffered(&host);
}

#[test]
fn a_client_that_reads_slowly_but_steadily_gets_its_answer() {
    let host = start("write_timeout_ms = 2000");
    run(async {
        let mut stream = tokio::net::TcpStream::connect(host.http).await.unwrap();
        stream.write_all(head(16 * MB).as_bytes()).await.unwrap();
        stream.write_all(&vec![0; 16 * MB]).await.unwrap();
        let (mut read, mut part) = (0, vec![0; MB]);
        // Longer than the time limit for an answer that is not read.
        while read < 16 * MB {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            read += stream.read(&mut part).await.unwrap().max(1);
        }
    });
    assert_eq!(aborted(&host, "answer", "stalled"), 0.0);
    assert_eq!(host.predict("copy", json!([1.5])).status, 200);
}
