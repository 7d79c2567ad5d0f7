//! Shutdown on a signal: report not ready, keep serving, stop accepting, finish running calls, name
//! the calls that do not finish, exit.

use crate::support::slow::{ENDLESS, deed, rounds, setup};
use crate::support::{Client, Host, eventually};
use serde_json::json;
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Returns a request that takes `ms` milliseconds, most of them waiting rather than computing.
fn slow(ms: u64) -> String {
    let parameters = json!({"do": "sleep", "ms": ms, "at": "predict"});
    json!({"model": "hostile", "data": ["a"], "parameters": parameters}).to_string()
}

fn start(drain: &str) -> Host {
    let manifest = format!(
        "[server]\n{drain}\n[plugins.hostile]\npath = \"hostile.wasm\"\n[models.hostile]\nplugin = \"hostile\"\n\
         [models.loop]\npath = \"loop.onnx\"\n[models.huge]\npath = \"huge_node.onnx\"\n"
    );
    setup(&manifest).start()
}

/// Sends a request and returns once it runs.
fn running(host: &Host, id: &str, executor: &str, body: &str) -> Client {
    let before = host.executor(executor)["busy"].as_u64().expect("a number");
    let mut client = host.client();
    client.begin("POST", "/predict", &[("x-request-id", id)], body.as_bytes()).expect("it can be sent");
    host.wait_for_policy(&format!("{id} to run"), |policy| {
        policy["executors"][executor]["busy"].as_u64() == Some(before + 1)
    });
    client
}

fn wait_for_refused(host: &Host) {
    let refused = || TcpStream::connect(host.http).is_err().then_some(());
    eventually("the listener to close", refused, || host.log());
}

#[test]
fn a_signal_drains_and_loses_nothing() {
    for signal in ["TERM", "INT"] {
        let mut host = start("drain_delay_ms = 2000\ndrain_timeout_ms = 20000");
        assert_eq!(host.get("/ready").status, 200);
        assert_eq!(host.get("/v2/health/ready").status, 200);
        let mut work = running(&host, "work", "cpu", &slow(3500));
        let mut idle = host.client();
        assert_eq!(idle.get("/health").status, 200);
        let started = Instant::now();
        host.signal(signal);

        // During the delay the host reports not ready but serves old and new connections.
        eventually("not ready", || (host.get("/ready").status == 503).then_some(()), || host.log());
        let ready = host.get("/ready").json();
        assert_eq!(
            (&ready["ready"], &ready["reason"]),
            (&json!(false), &json!("draining: the host is stopping"))
        );
        for path in ["/v2/health/ready", "/v2/models/hostile/ready"] {
            assert_eq!(host.get(path).status, 503, "{path}");
        }
        for path in ["/health", "/v2/health/live", "/metrics", "/models"] {
            assert_eq!(host.get(path).status, 200, "{path}");
        }
        assert_eq!(host.post("/predict", deed("hostile", "ok").to_string()).status, 200);
        assert_eq!(idle.post("/predict", rounds(10).to_string()).status, 200);

        // After the delay: no new connections, and running calls finish. The operator can still
        // query the host.
        wait_for_refused(&host);
        assert!(started.elapsed() >= Duration::from_secs(2), "{:?}", started.elapsed());
        assert_eq!(host.executor("cpu")["busy"], 1);
        assert_eq!(work.receive().expect("the answer").status, 200);
        assert_eq!(host.wait().code(), Some(0), "{}", host.log());
        eprintln!("{signal}: ended {:?} after the signal", started.elapsed());
        let name = format!("SIG{signal}");
        host.wait_for_log(&["draining", &name]);
        host.wait_for_log(&["drained"]);
        assert_eq!(host.access_log("work")["status"], 200);
    }
}

#[test]
fn an_idle_host_ends_at_once() {
    let mut host = start("drain_timeout_ms = 120000");
    let mut idle: Vec<Client> = (0..20).map(|_| host.client()).collect();
    idle.iter_mut().for_each(|client| assert_eq!(client.get("/health").status, 200));
    // A connection that has sent no request yet.
    let mut silent = host.client();
    silent.send(b"").expect("a connection");
    host.get("/health");
    let started = Instant::now();
    host.signal("TERM");
    assert_eq!(host.wait().code(), Some(0), "{}", host.log());
    eprintln!("ended {:?} after the signal", started.elapsed());
}

#[test]
fn what_still_runs_at_the_grace_limit_is_named() {
    for (executor, name, body) in [
        ("cpu", "guest-that-spins", deed("hostile", "spin").to_string()),
        ("onnx", "loop-without-end", rounds(ENDLESS).to_string()),
        ("onnx", "huge-node", json!({"model": "huge", "data": {"n": [5120]}}).to_string()),
    ] {
        let mut host = start("drain_timeout_ms = 300");
        let _client = running(&host, name, executor, &body);
        let started = Instant::now();
        host.signal("TERM");
        assert_eq!(host.wait().code(), Some(1), "{name}: {}", host.log());
        eprintln!("{name}: ended {:?} after the signal", started.elapsed());
        assert!(started.elapsed() >= Duration::from_millis(300), "{name}: {:?}", started.elapsed());
        host.wait_for_log(&["stopped with requests still running", name]);
    }
}

#[test]
fn a_second_signal_ends_at_once() {
    for (first, second) in [("TERM", "TERM"), ("INT", "INT"), ("TERM", "INT")] {
        let mut host = start("drain_delay_ms = 120000\ndrain_timeout_ms = 120000");
        let _client = running(&host, "work", "cpu", &slow(120_000));
        host.signal(first);
        host.wait_for_log(&["draining"]);
        let started = Instant::now();
        host.signal(second);
        assert_eq!(host.wait().code(), Some(1), "{}", host.log());
        eprintln!("{first}, {second}: ended {:?} after the second", started.elapsed());
        host.wait_for_log(&["second signal received: stopping immediately"]);
        host.wait_for_log(&["stopped with requests still running", "work"]);
    }
}

#[test]
fn queued_requests_are_finished_too() {
    let manifest = "[executors.cpu]\nworkers = 1\n[plugins.hostile]\npath = \"hostile.wasm\"\n[models.hostile]\nplugin = \"hostile\"\n";
    let mut host = setup(manifest).start();
    let mut clients: Vec<Client> = (0..5).map(|_| host.client()).collect();
    for client in &mut clients {
        client.begin("POST", "/predict", &[], slow(200).as_bytes()).expect("it can be sent");
    }
    host.wait_for_policy("five calls", |policy| policy["executors"]["cpu"]["inflight"] == 5);
    host.signal("TERM");
    wait_for_refused(&host);
    for client in &mut clients {
        let answer = client.receive().expect("the answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("connection"), Some("close"), "no further request on this connection");
    }
    assert_eq!(host.wait().code(), Some(0), "{}", host.log());
}
