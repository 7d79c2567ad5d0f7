//! More work than the host has capacity for: it is refused immediately and cleanly, and everything
//! else continues.
//!
//! Bounds are ten times what an idle machine needs; `--nocapture` prints what was measured.

use crate::support::load::{Load, Outcome, Shot};
use crate::support::slow::{ENDLESS, deed, rounds, rounds_for, serve, within};
use crate::support::{Client, Host, Setup, eventually, plugin};
use serde_json::{Value, json};
use std::sync::Barrier;
use std::time::{Duration, Instant};

fn ms(value: u64) -> Duration {
    Duration::from_millis(value)
}

fn shot(body: &Value) -> Shot {
    Shot { path: "/predict".into(), body: body.to_string().into_bytes() }
}

fn number(status: &Value, key: &str) -> u64 {
    status[key].as_u64().unwrap_or_else(|| panic!("no {key} in {status}"))
}

#[test]
fn a_full_queue_refuses_at_once_and_nothing_else_happens() {
    let host = serve("[executors.onnx]\nworkers = 2\nqueue = 16\n");
    let body = rounds(rounds_for(&host, ms(100))).to_string();
    let before = host.metric("hostler_requests_total{code=\"200\",model=\"loop\",version=\"1\"}");
    let start = Barrier::new(100);
    let answers: Vec<_> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..100)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = host.client();
                    client.get("/health");
                    start.wait();
                    let answer = |client: &mut Client| {
                        let started = Instant::now();
                        let answer = client.post("/predict", &body);
                        (answer, started.elapsed())
                    };
                    (0..5).map(|_| answer(&mut client)).collect::<Vec<_>>()
                })
            })
            .collect();
        while !clients.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            let status = host.executor("onnx");
            // A call that an idle worker is about to take is in the queue for a moment.
            let (busy, queued) = (number(&status, "busy"), number(&status, "queue_length"));
            assert!(busy <= 2 && busy + queued <= 18, "{status}");
            assert_eq!(number(&status, "inflight"), busy + queued, "{status}");
        }
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    let (served, refused): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|(answer, _)| answer.status == 200);
    let mut outcome = Outcome::default();
    for (answer, took) in &refused {
        assert_eq!(answer.status, 429, "{}", answer.text());
        assert_eq!(answer.header("retry-after"), Some("1"));
        let error = answer.error();
        assert_eq!((&error["kind"], &error["model"]), (&json!("overloaded"), &json!("loop:1")), "{error}");
        let message = "executor \"onnx\": all 2 workers are busy and the queue of 16 is full";
        assert_eq!(error["message"], message);
        outcome.latencies.push(*took);
    }
    let (p50, p99) = (outcome.percentile(0.5), outcome.percentile(0.99));
    eprintln!("{} served, {} refused, in p50 {p50:?}, p99 {p99:?}", served.len(), refused.len());
    // Two workers and sixteen queue slots, filled by the first wave.
    assert!(served.len() >= 18 && refused.len() >= 100, "{} served", served.len());
    assert!(p50 < ms(100), "refused after {p50:?}");
    assert_eq!(host.metric("hostler_executor_overloaded_total{executor=\"onnx\"}"), refused.len() as f64);
    let after = host.metric("hostler_requests_total{code=\"200\",model=\"loop\",version=\"1\"}");
    assert_eq!(after - before, served.len() as f64);
    assert_eq!(number(&host.executor("onnx"), "inflight"), 0);
}

/// Requests `/health` and `/metrics` 2,000 times each, a millisecond apart, and calls `sample`
/// meanwhile.
fn probe(host: &Host, sample: impl Fn()) {
    let mut client = host.client();
    for path in ["/health", "/metrics"] {
        let mut outcome = Outcome::default();
        for index in 0..2000 {
            std::thread::sleep(ms(1));
            let started = Instant::now();
            assert_eq!(client.get(path).status, 200);
            outcome.latencies.push(started.elapsed());
            if index % 20 == 0 {
                sample();
            }
        }
        let (p50, p99, worst) = (outcome.percentile(0.5), outcome.percentile(0.99), outcome.percentile(1.0));
        eprintln!("{path}: p50 {p50:?}, p99 {p99:?}, worst {worst:?}");
        assert!(p99 < ms(200), "{path}: p99 {p99:?}");
    }
}

#[test]
fn default_settings_serve_a_hundred_connections_and_probes_stay_quick() {
    let host = serve("");
    let body = rounds(rounds_for(&host, ms(100)));
    let load = Load::start(host.http, 100, shot(&body), None, |answer| {
        (answer.status != 200).then(|| answer.text())
    });
    host.wait_for_policy("the load", |policy| number(&policy["executors"]["onnx"], "queue_length") > 50);
    probe(&host, || {
        let status = host.executor("onnx");
        assert!(number(&status, "busy") <= number(&status, "workers"), "{status}");
    });
    let outcome = load.stop();
    eprintln!("{} answers", outcome.answers);
    assert_eq!(outcome.faults, Vec::<String>::new());
    assert!(outcome.answers >= 100, "{}", outcome.answers);
    assert_eq!(host.metric("hostler_executor_overloaded_total{executor=\"onnx\"}"), 0.0);
}

#[test]
fn probes_stay_quick_while_guests_spin() {
    let host = serve("[executors.cpu]\nworkers = 4\n");
    let body = within(deed("hostile", "spin"), 300);
    let load =
        Load::start(host.http, 4, shot(&body), None, |answer| (answer.status != 504).then(|| answer.text()));
    host.wait_for_policy("four spinning guests", |policy| policy["executors"]["cpu"]["busy"] == 4);
    probe(&host, || assert!(number(&host.executor("cpu"), "busy") <= 4));
    let outcome = load.stop();
    assert_eq!(outcome.faults, Vec::<String>::new());
    assert!(outcome.answers >= 4, "{}", outcome.answers);
}

#[test]
fn work_whose_client_left_frees_its_place() {
    let host = serve("[executors.onnx]\nworkers = 1\nqueue = 2\nsessions = 1\n");
    let send = |body: &Value| {
        let mut client = host.client();
        client.begin("POST", "/predict", &[], body.to_string().as_bytes()).expect("it can be sent");
        client
    };
    let wait = |what: &str, busy: u64, queued: u64| {
        host.wait_for_policy(what, |policy| {
            let status = &policy["executors"]["onnx"];
            (number(status, "busy"), number(status, "queue_length")) == (busy, queued)
        });
    };
    let endless = rounds(ENDLESS);
    let mut running = send(&endless);
    wait("the one that runs", 1, 0);
    let mut waiting = [send(&endless), send(&endless)];
    wait("a full queue", 1, 2);
    assert_eq!(host.post("/predict", endless.to_string()).status, 429);

    waiting.iter_mut().for_each(Client::leave);
    wait("two free places", 1, 0);
    let mut last = send(&rounds(10));
    wait("a new one in the queue", 1, 1);
    running.leave();
    assert_eq!(last.receive().expect("an answer").status, 200);
}

/// A worker that is about to become idle counts as idle: its client may send the next request
/// before the worker is done.
#[test]
fn without_a_queue_one_client_is_never_refused() {
    let host = serve("[executors.onnx]\nworkers = 1\nqueue = 0\n");
    let mut client = host.client();
    let body = rounds(1).to_string();
    for index in 0..3000 {
        let answer = client.post("/predict", &body);
        assert_eq!(answer.status, 200, "request {index}: {}", answer.text());
    }
}

/// While every core has a busy worker, the next worker is held back, but only briefly: these calls
/// do not compute.
#[test]
fn all_workers_work_where_calls_only_sleep() {
    const WORKERS: usize = 24;
    let manifest = format!(
        "[executors.cpu]\nworkers = {WORKERS}\n[plugins.faulty]\npath = \"faulty.wasm\"\n[plugins.faulty.config]\n\
         fast_ms = \"60000\"\n[models.faulty]\nplugin = \"faulty\"\n"
    );
    let host = Setup::new(&manifest).file("faulty.wasm", plugin("faulty")).start();
    let body = json!({"model": "faulty", "data": [1.0], "timeout_ms": 3_000}).to_string();
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..WORKERS).map(|_| scope.spawn(|| host.post("/predict", &body))).collect();
        let status = host.wait_for_policy("a worker for each call", |policy| {
            policy["executors"]["cpu"]["busy"] == WORKERS
        });
        assert_eq!(number(&status["executors"]["cpu"], "queue_length"), 0);
        assert!(calls.into_iter().all(|call| call.join().unwrap().status == 504));
    });
    host.wait_for_idle("cpu");
}

#[test]
fn no_free_plugin_instance_is_overload_and_passes() {
    let host = serve("[server]\nplugin_instances = 1\n[executors.cpu]\nworkers = 4\n");
    let traps = "hostler_plugin_traps_total{plugin=\"hostile\"}";
    std::thread::scope(|scope| {
        let holder = scope.spawn(|| {
            let parameters = json!({"do": "sleep", "ms": 1000});
            let body = json!({"model": "hostile", "data": ["a"], "parameters": parameters});
            host.post("/predict", body.to_string())
        });
        host.wait_for_policy("the holder", |policy| policy["executors"]["cpu"]["busy"] == 1);
        for _ in 0..3 {
            let answer = host.predict("hostile", json!(["a"]));
            assert_eq!(answer.status, 429, "{}", answer.text());
            let error = answer.error();
            let message =
                "plugin \"hostile\": all 1 plugin instances of the host are in use; raise plugin_instances";
            assert_eq!((&error["kind"], &error["message"]), (&json!("overloaded"), &json!(message)));
            assert_eq!(answer.header("retry-after"), Some("1"));
        }
        assert_eq!(holder.join().unwrap().status, 200);
    });
    assert_eq!(host.predict("hostile", json!(["a"])).status, 200);
    assert_eq!(host.metric(traps), 0.0, "nothing trapped");
}

/// Reused instances wait for their next call in slots that other plugins may need.
#[test]
fn an_idle_instance_gives_its_slot_to_whoever_needs_it() {
    let reused = "[plugins.reused]\npath = \"hostile.wasm\"\ninstances = \"reused\"\n";
    let model = "[models.reused]\nplugin = \"reused\"\n";
    let host = serve(&format!("[server]\nplugin_instances = 1\n{reused}{model}"));
    for (round, model) in ["hostile", "reused", "hostile", "reused"].iter().enumerate() {
        let answer = host.predict(model, json!(["a"]));
        assert_eq!(answer.status, 200, "round {round}: {}", answer.text());
    }
}

#[test]
fn connections_over_the_limit_are_told_so_and_the_next_is_served() {
    let host = serve("[server]\nmax_connections = 4\n");
    let gauge = || host.metric("hostler_http_connections");
    let mut clients: Vec<Client> = (0..4).map(|_| host.client()).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.get("/health").status, 200));
    for _ in 0..50 {
        let answer = host.client().try_request("GET", "/models", &[], b"").expect("an answer, not a reset");
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert_eq!(answer.header("connection"), Some("close"));
        let error = answer.error();
        assert_eq!(error["kind"], "overloaded");
        assert_eq!(error["message"], "all 4 connections of this host are in use");
    }
    eventually("four, and the operator's own", || (gauge() == 5.0).then_some(()), || gauge().to_string());
    assert_eq!(clients[0].get("/health").status, 200, "those that are in stay");
    clients.pop();
    eventually("a free connection", || (gauge() == 4.0).then_some(()), || gauge().to_string());
    assert_eq!(host.get("/health").status, 200);
}
