//! Tests the limits of one request, of a step over all requests, and of admission.

use crate::support::load::Outcome;
use crate::support::pipelines::{calls, manifest, serve, setup};
use crate::support::{Client, Host, eventually, is_soak};
use serde_json::{Value, json};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

fn together(host: &Host, count: usize) -> Duration {
    let body = json!({"model": "p", "data": {"x": [1]}}).to_string();
    let began = Instant::now();
    std::thread::scope(|scope| {
        let asked: Vec<_> =
            (0..count).map(|_| scope.spawn(|| Client::new(host.http).post("/predict", &body))).collect();
        for answer in asked {
            let answer = answer.join().unwrap();
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    });
    began.elapsed()
}

#[test]
fn a_step_has_as_many_runs_at_once_as_it_may_and_the_rest_wait() {
    let host = serve(
        &[("slow", "sleep_ms = \"30\"")],
        "[pipelines.p]\noutputs = { r = \"a.y\" }\n\
         [pipelines.p.steps.a]\nmodel = \"slow\"\nin = { a = \"input.x\" }\nmax_in_flight = 2\n",
    );
    // Six runs of 30 ms, two at a time.
    assert!(together(&host, 6) >= Duration::from_millis(90));
    assert_eq!(calls(&host, "slow"), 6.0);
    let shown = host.admin_get("/admin/pipelines/p").json();
    assert_eq!(shown["steps"]["a"]["in_flight"], 0, "{shown}");
    assert!(shown["steps"]["a"]["queue_s"].as_f64().unwrap() > 0.1, "{shown}");
}

#[test]
fn a_step_runs_so_often_a_second() {
    let host = serve(
        &[("one", "add = \"1\"")],
        "[pipelines.p]\noutputs = { r = \"a.y\" }\n\
         [pipelines.p.steps.a]\nmodel = \"one\"\nin = { a = \"input.x\" }\nmax_per_s = 50\n",
    );
    // One immediately, and then one every 20 ms.
    assert!(together(&host, 6) >= Duration::from_millis(100));
}

#[test]
fn a_request_runs_so_many_steps_at_once() {
    let host = serve(
        &[("slow", "sleep_ms = \"30\""), ("both", "inputs = \"a,b\"")],
        "[pipelines.p]\nparallel = 1\noutputs = { r = \"c.y\" }\n\
         [pipelines.p.steps.a]\nmodel = \"slow\"\nin = { a = \"input.x\" }\n\
         [pipelines.p.steps.b]\nmodel = \"slow\"\nin = { a = \"input.x\" }\n\
         [pipelines.p.steps.c]\nmodel = \"both\"\nin = { a = \"a.y\", b = \"b.y\" }\n",
    );
    assert!(together(&host, 1) >= Duration::from_millis(60));
}

#[test]
fn more_requests_than_there_is_room_for_are_refused_at_once() {
    let host = serve(
        &[("slow", "sleep_ms = \"60000\"")],
        "[executors.pipeline]\nworkers = 1\nqueue = 1\n\
         [pipelines.p]\noutputs = { r = \"a.y\" }\n\
         [pipelines.p.steps.a]\nmodel = \"slow\"\nin = { a = \"input.x\" }\n",
    );
    let body = json!({"model": "p", "data": {"x": [1]}}).to_string();
    let mut waiting: Vec<Client> = Vec::new();
    for count in 1..=2 {
        let mut client = Client::new(host.http);
        client.begin("POST", "/predict", &[], body.as_bytes()).unwrap();
        waiting.push(client);
        host.wait_for_executor("pipeline", "inflight", count);
    }
    let parts = ["executor \"pipeline\": 1 requests run and the queue of 1 is full"];
    host.post("/predict", &body).refused(429, "overloaded", &parts);
    // A client that disconnects frees its place in the queue.
    waiting.pop().unwrap().leave();
    host.wait_for_executor("pipeline", "queue_length", 1);
    let late = json!({"model": "p", "data": {"x": [1]}, "timeout_ms": 50}).to_string();
    host.post("/predict", &late).refused(504, "deadline", &[]);
    waiting.pop().unwrap().leave();
    host.wait_for_idle("pipeline");
    host.wait_for_idle("cpu");
}

/// A request that waits for its first worker holds its place only while its client is connected,
/// even if no worker becomes free and nothing polls the queue.
#[test]
fn who_leaves_before_the_first_step_makes_room() {
    let text = manifest(
        &[("slow", "sleep_ms = \"60000\"")],
        "[executors.pipeline]\nworkers = 1\nqueue = 0\n[executors.cpu]\nworkers = 1\n\
         [pipelines.p]\noutputs = { r = \"a.y\" }\n\
         [pipelines.p.steps.a]\nmodel = \"slow\"\nin = { a = \"input.x\" }\n\
         [models.one]\npath = \"identity.onnx\"\n\
         [models.q]\npipeline = \"q\"\n[pipelines.q]\noutputs = { r = \"a.y\" }\n\
         [pipelines.q.steps.a]\nmodel = \"one\"\nin = { x = \"input.x\" }\n",
    );
    // The plugin's default limit of 10 s would end the call that holds the worker.
    let text = text.replace("instances = \"reused\"", "instances = \"reused\"\ntimeout_ms = 60000");
    let host = setup(&text).start();
    let begin = |model: &str, data: Value| {
        let mut client = Client::new(host.http);
        let body = json!({"model": model, "data": data, "timeout_ms": 60_000}).to_string();
        client.begin("POST", "/predict", &[], body.as_bytes()).unwrap();
        client
    };
    let mut holds = begin("slow", json!({"a": [1]}));
    host.wait_for_executor("cpu", "busy", 1);
    let mut waits = begin("p", json!({"x": [1]}));
    host.wait_for_executor("pipeline", "inflight", 1);
    waits.leave();
    let ask = || host.predict("q", json!({"x": [[1]]}));
    let answer = eventually("a place", || Some(ask()).filter(|answer| answer.status != 429), || host.log());
    assert_eq!(answer.result(), json!({"r": [[1.0]]}));
    holds.leave();
    host.wait_for_idle("cpu");
}

/// At five times the capacity, new requests are refused immediately, and no admitted request fails
/// because a place is missing.
#[test]
fn what_has_begun_is_never_refused() {
    // Once with more requests than their models have places, and once with as many, so that
    // admitted requests never wait.
    for (requests, is_fair) in [(4, false), (1, true)] {
        let host = serve(
            &[("slow", "sleep_ms = \"5\""), ("both", "inputs = \"a,b\"")],
            &format!(
                "[executors.pipeline]\nworkers = {requests}\nqueue = 0\n[executors.cpu]\nworkers = 2\nqueue = 0\n\
                 [pipelines.p]\noutputs = {{ r = \"c.y\" }}\n\
                 [pipelines.p.steps.a]\nmodel = \"slow\"\nin = {{ a = \"input.x\" }}\n\
                 [pipelines.p.steps.b]\nmodel = \"slow\"\nin = {{ a = \"input.x\" }}\n\
                 [pipelines.p.steps.c]\nmodel = \"both\"\nin = {{ a = \"a.y\", b = \"b.y\" }}\n"
            ),
        );
        let alone = ask_until(&host, 1, 50.0);
        let full = ask_until(&host, requests, 50.0);
        assert!(full.refused.latencies.is_empty(), "refused at its capacity");
        let many = ask_until(&host, if is_fair { 5 } else { 20 }, 200.0);
        let refused = host.metric("hostler_executor_overloaded_total{executor=\"pipeline\"}");
        eprintln!(
            "{requests} at once: alone {}; at capacity {}; five times that {}; {refused} refused, in p99 {:?}",
            shown(&alone.served),
            shown(&full.served),
            shown(&many.served),
            many.refused.percentile(0.99)
        );
        assert!(refused > 0.0 && refused == many.refused.latencies.len() as f64);
        assert_eq!(host.metric("hostler_executor_overloaded_total{executor=\"cpu\"}"), 0.0);
        host.wait_for_idle("pipeline");
    }
}

/// Latencies of the answers with status 200 and with status 429.
#[derive(Default)]
struct Answers {
    served: Outcome,
    refused: Outcome,
}

fn shown(outcome: &Outcome) -> String {
    format!("p50 {:?}, p99 {:?}", outcome.percentile(0.5), outcome.percentile(0.99))
}

/// Sends requests from `clients` clients until `served` more were answered with 200, or for 20 s in
/// a soak.
fn ask_until(host: &Host, clients: usize, served: f64) -> Answers {
    let ok = "hostler_requests_total{code=\"200\",model=\"p\",version=\"1\"}";
    let (before, body) = (host.metric(ok), json!({"model": "p", "data": {"x": [1]}}).to_string());
    let until = is_soak().then(|| Instant::now() + Duration::from_secs(20));
    let (stop, all) = (AtomicBool::new(false), Mutex::new(Answers::default()));
    std::thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                let (mut client, mut own) = (host.client(), Answers::default());
                while !stop.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    let answer = client.post("/predict", &body);
                    match answer.status {
                        200 => own.served.latencies.push(began.elapsed()),
                        429 => {
                            assert!(answer.text().contains("executor \\\"pipeline\\\""), "{}", answer.text());
                            own.refused.latencies.push(began.elapsed());
                            // A refused client does not retry immediately.
                            std::thread::sleep(Duration::from_millis(2));
                        }
                        _ => panic!("{}", answer.text()),
                    }
                }
                let mut all = all.lock().unwrap();
                all.served.latencies.extend(own.served.latencies);
                all.refused.latencies.extend(own.refused.latencies);
            });
        }
        let is_over = || match until {
            Some(until) => Instant::now() >= until,
            None => host.metric(ok) - before >= served,
        };
        while !is_over() {
            std::thread::sleep(Duration::from_millis(5));
        }
        stop.store(true, Ordering::Relaxed);
    });
    all.into_inner().unwrap()
}
