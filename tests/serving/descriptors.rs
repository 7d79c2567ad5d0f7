//! More connections than the process has file descriptors for: which are served, which are refused
//! with a reason, and that the host recovers.

use crate::support::grpc::{self, Caller, refused};
use crate::support::{Client, Host, PATIENCE, Setup, eventually, model};
use hostler::proto::inference::ServerLiveRequest;
use serde_json::json;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use tonic::Code;

const GOOD: &str = r#"{"model":"plus","data":[1]}"#;

fn setup(server: &str) -> Setup {
    let manifest = format!("[server]\n{server}\n[models.plus]\npath = \"plus.onnx\"\n");
    Setup::new(&manifest).file("plus.onnx", model("plus1"))
}

/// Opens connections that send nothing.
fn crowd(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| TcpStream::connect(address).expect("a place in the backlog")).collect()
}

/// Returns the soft and the hard limit of open files.
fn limits(host: &Host) -> (String, String) {
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", host.pid())).expect("the limits");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("the limit");
    let mut words = line.split_whitespace().skip(3).map(str::to_owned);
    (words.next().expect("soft"), words.next().expect("hard"))
}

/// Sets the soft limit of open files of a running host.
fn set_soft_limit(host: &Host, soft: u64) {
    let pid = host.pid() as libc::pid_t;
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: reads and writes one structure, which outlives both calls.
    let done = unsafe {
        let read = libc::prlimit(pid, libc::RLIMIT_NOFILE, std::ptr::null(), &raw mut limit);
        limit.rlim_cur = soft;
        read == 0 && libc::prlimit(pid, libc::RLIMIT_NOFILE, &raw const limit, std::ptr::null_mut()) == 0
    };
    assert!(done, "{}", std::io::Error::last_os_error());
}

#[test]
fn the_soft_limit_of_open_files_is_raised_to_the_hard_one() {
    let host = setup("").ulimit("-Sn 128").start();
    let (soft, hard) = limits(&host);
    assert_eq!(soft, hard);
    assert_ne!(soft, "128");
    assert_eq!(host.metric("hostler_connections_max"), 4096.0);
}

#[test]
fn a_crowd_of_idle_connections_hides_neither_health_nor_metrics_nor_admin() {
    let host = setup("").open_files_max(256).grpc().start();
    host.wait_for_log(&["max_connections does not fit", "open_files_max=256", "max_connections=4096"]);
    let fits = host.metric("hostler_connections_max");
    assert!((60.0..200.0).contains(&fits), "{fits}");
    let mut early = host.client();
    assert_eq!(early.post("/predict", GOOD).status, 200);

    let _http = crowd(host.http, 400);
    for _ in 0..3 {
        for path in ["/health", "/ready", "/metrics", "/v2/health/live", "/v2/health/ready"] {
            assert_eq!(host.get(path).status, 200, "{path}: {}", host.log());
        }
        assert_eq!(host.admin_get("/admin/policy").status, 200);
    }
    let answer = host.post("/predict", GOOD);
    let message = format!("all {fits} connections of this host are in use");
    answer.refused(503, "overloaded", &[&message]);
    assert_eq!((answer.header("retry-after"), answer.header("connection")), (Some("1"), Some("close")));
    let oip = host.post("/v2/models/plus/infer", "{}");
    assert_eq!((oip.status, oip.json()), (503, json!({"error": message})));
    assert_eq!(early.post("/predict", GOOD).status, 200, "who is in is served");

    // The gRPC listener has its own reserve of connections for probes.
    let caller = Caller::new(&host);
    assert!(caller.run(async |mut client| client.server_live(ServerLiveRequest {}).await).is_ok());
    refused(
        caller.infer(grpc::floats("plus", &[1.0])),
        Code::Unavailable,
        &["connections of this host are in use"],
    );

    let _admin = crowd(host.admin, 400);
    assert_eq!(host.admin_get("/admin/policy").status, 200);
    assert_eq!(host.get("/health").status, 200);
}

#[test]
fn the_connection_that_is_idle_for_longest_goes_for_a_new_one() {
    let host = setup("max_connections = 2").start();
    let (mut idle, mut busy) = (host.client(), host.client());
    assert_eq!(idle.get("/health").status, 200);
    assert_eq!(busy.get("/health").status, 200);
    let began = Instant::now();
    let admitted = || {
        let mut new = host.client();
        let answer = new.try_request("POST", "/predict", &[], GOOD.as_bytes()).expect("an answer");
        (answer.status == 200).then_some(new)
    };
    let mut new = loop {
        assert_eq!(busy.post("/predict", GOOD).status, 200, "who asks again and again stays");
        if let Some(new) = admitted() {
            break new;
        }
        assert!(began.elapsed() < PATIENCE, "{}", host.log());
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(began.elapsed() >= Duration::from_secs(4), "{:?}: not at once", began.elapsed());
    assert!(idle.try_request("GET", "/health", &[], b"").is_err(), "it was closed");
    assert_eq!(new.post("/predict", GOOD).status, 200);
    assert_eq!(busy.post("/predict", GOOD).status, 200);
    assert_eq!(host.metric("hostler_connections_closed_total{reason=\"idle\"}"), 1.0);
}

#[test]
fn over_the_limit_grpc_answers_health_checks_and_says_why_it_answers_nothing_else() {
    let host = setup("max_connections = 1").grpc().start();
    let first = Caller::new(&host);
    assert!(first.infer(grpc::floats("plus", &[1.0])).is_ok());
    let second = Caller::new(&host);
    assert!(second.run(async |mut client| client.server_live(ServerLiveRequest {}).await).is_ok());
    let health = second.run(async |_| {
        let mut client = tonic_health::pb::health_client::HealthClient::new(second.channel.clone());
        client.check(tonic_health::pb::HealthCheckRequest::default()).await
    });
    assert!(health.is_ok(), "{health:?}");
    refused(
        second.infer(grpc::floats("plus", &[1.0])),
        Code::Unavailable,
        &["all 1 connections of this host are in use"],
    );
    assert!(first.infer(grpc::floats("plus", &[1.0])).is_ok());
    drop(first);
    // The client reconnects, at the latest when the probe connection is closed.
    let again = || second.infer(grpc::floats("plus", &[1.0])).ok();
    eventually("a free connection", again, || host.log());
}

#[test]
fn without_a_free_descriptor_health_is_still_answered_and_the_listeners_go_on() {
    let host = setup("").start();
    let mut early = host.client();
    assert_eq!(early.post("/predict", GOOD).status, 200);
    set_soft_limit(&host, host.usage().files as u64);
    let began = Instant::now();
    for address in [host.http, host.admin] {
        for _ in 0..3 {
            let answer = Client::new(address).get("/health");
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    }
    assert_eq!(early.post("/predict", GOOD).status, 200, "who is in is served");
    host.wait_for_log(&["cannot accept a connection", "Too many open files"]);
    let lines = host.log().matches("cannot accept a connection").count() as u64;
    // At most one line per listener in ten seconds.
    assert!(lines <= 2 * (1 + began.elapsed().as_secs() / 10), "{lines}");
    set_soft_limit(&host, 1024);
    let served = || (host.post("/predict", GOOD).status == 200).then_some(());
    eventually("a connection that serves everything", served, || host.log());
    assert!(host.metric("hostler_accept_errors_total") >= 3.0);
}
