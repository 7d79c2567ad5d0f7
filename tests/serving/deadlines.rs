//! Deadlines: every client gets its answer in time, and the work behind it stops as soon as it can.
//!
//! A busy machine delays some attempts, and a host that is late delays all of them: each bound
//! holds for the fastest of several attempts. `--nocapture` prints what was measured.

use crate::support::slow::{ENDLESS, SINGLE, deed, rounds, serve, setup, within};
use crate::support::{Answer, Host, takes_less_than};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn ms(value: u64) -> Duration {
    Duration::from_millis(value)
}

/// Sends a POST and returns the answer and the time that it took.
fn timed(host: &Host, path: &str, body: &Value) -> (Answer, Duration) {
    let mut client = host.client();
    // Connects before the clock starts.
    client.get("/health");
    let started = Instant::now();
    let answer = client.post(path, body.to_string());
    (answer, started.elapsed())
}

fn expect_deadline(answer: &Answer, model: &str) {
    assert_eq!(answer.status, 504, "{}", answer.text());
    let error = answer.error();
    assert_eq!((&error["kind"], &error["model"]), (&json!("deadline"), &json!(model)), "{error}");
    assert!(error["message"].as_str().unwrap().contains("deadline of the request has passed"), "{error}");
}

fn fastest(times: Vec<Duration>) -> Duration {
    times.into_iter().min().expect("an attempt")
}

#[test]
fn work_stops_at_its_deadline_and_frees_its_worker() {
    let host = serve(SINGLE);
    let endless = |timeout_ms| within(rounds(ENDLESS), timeout_ms);
    let cases = [
        ("spin", "cpu", within(deed("hostile", "spin"), 50)),
        ("sleep", "cpu", within(deed("hostile", "sleep"), 50)),
        // Longer than the plugin engine's clock keeps ticking by itself.
        ("spin longer", "cpu", within(deed("hostile", "spin"), 400)),
        ("sleep longer", "cpu", within(deed("hostile", "sleep"), 400)),
        ("spin on and on", "cpu", within(deed("hostile", "spin"), 1500)),
        ("loop", "onnx", endless(50)),
        ("loop longer", "onnx", endless(400)),
    ];
    let mut admin = crate::support::Client::new(host.admin);
    for (name, executor, body) in cases {
        let timeout = ms(body["timeout_ms"].as_u64().unwrap());
        let rounds = if timeout > ms(1000) { 3 } else { 9 };
        let (mut answered, mut freed) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let started = Instant::now();
            let (answer, took) = timed(&host, "/predict", &body);
            expect_deadline(&answer, &format!("{}:1", body["model"].as_str().unwrap()));
            assert!(took >= timeout, "{name}: answered after {took:?}, before its deadline");
            while admin.get("/admin/policy").json()["executors"][executor]["busy"] != 0 {
                assert!(
                    started.elapsed() < crate::support::PATIENCE,
                    "{name}: never stopped\n{}",
                    host.log()
                );
            }
            answered.push(took.checked_sub(timeout).unwrap());
            freed.push(started.elapsed().saturating_sub(timeout));
        }
        let worst = freed.iter().max().copied().unwrap();
        let (answered, freed) = (fastest(answered), fastest(freed));
        eprintln!(
            "{name}: past the deadline, answered after {answered:?}, worker free after {freed:?} (worst {worst:?})"
        );
        assert!(answered < ms(100) + timeout / 10, "{name}: answered {answered:?} past the deadline");
        // Workers have the lower priority: load from other processes may delay their stop.
        assert!(
            freed < ms(250) + timeout / 10,
            "{name}: the worker was held for {freed:?} past the deadline"
        );
    }
    assert_eq!(host.metric("hostler_executor_timeouts_total{executor=\"cpu\"}"), 39.0);
    assert_eq!(host.metric("hostler_executor_timeouts_total{executor=\"onnx\"}"), 18.0);
    assert_eq!(host.metric("hostler_errors_total{kind=\"deadline\"}"), 57.0);
    eprintln!("held for over 10 ms: {}", host.metric("hostler_executor_overdue_total{executor=\"cpu\"}"));
    assert_eq!(host.predict("hostile", json!(["a"])).status, 200);
    assert_eq!(host.post("/predict", rounds(10).to_string()).status, 200);
}

#[test]
fn the_plugin_that_ran_at_the_deadline_is_named() {
    let host = serve(SINGLE);
    for round in 0..10 {
        for name in ["spin", "sleep"] {
            let (answer, _) = timed(&host, "/predict", &within(deed("hostile", name), 50));
            expect_deadline(&answer, "hostile:1");
            let error = answer.error();
            assert_eq!(error["plugin"], "hostile", "{name}, round {round}: {error}");
            let message = error["message"].as_str().unwrap();
            assert!(
                message.starts_with("plugin \"hostile\" was stopped: "),
                "{name}, round {round}: {error}"
            );
        }
    }
    // The log has the backtrace, though the client may have been answered without it.
    let spin = within(deed("hostile", "spin"), 50).to_string();
    let mut client = host.client();
    for round in 0..10 {
        let id = format!("spin-{round}");
        client.request("POST", "/predict", &[("x-request-id", &id)], spin.as_bytes());
    }
    host.wait_for_idle("cpu");
    let log = host.log();
    let explained = (0..10).filter(|round| {
        let id = format!("spin-{round}");
        log.lines().any(|line| line.contains(&id) && line.contains("wasm backtrace"))
    });
    let explained = explained.count();
    eprintln!("{explained} of 10 with their backtrace in the log");
    assert!(explained >= 5, "{explained} of 10 with their backtrace:\n{log}");
    // If no plugin ran, the error names none.
    let (answer, _) = timed(&host, "/predict", &within(rounds(ENDLESS), 50));
    assert_eq!(answer.error()["plugin"], Value::Null, "{}", answer.text());
}

#[test]
fn a_huge_node_is_answered_in_time_and_its_worker_is_counted_overdue_until_it_ends() {
    let host = serve(SINGLE);
    let overdue_total = "hostler_executor_overdue_total{executor=\"onnx\"}";
    for timeout_ms in [50, 250] {
        host.wait_for_idle("onnx");
        let huge = json!({"model": "huge", "data": {"n": [4096]}, "timeout_ms": timeout_ms});
        let (answer, took) = timed(&host, "/predict", &huge);
        expect_deadline(&answer, "huge:1");
        eprintln!("huge node: answered after {took:?}");
        assert!(took >= ms(timeout_ms), "{took:?}");
    }
    // In the first request, the deadline may have passed in a small node before the huge one.
    let before = host.metric(overdue_total);
    let started = Instant::now();
    // The answer came while the node still ran.
    host.wait_for_policy("the overdue worker", |policy| {
        let executor = &policy["executors"]["onnx"];
        (&executor["busy"], &executor["overdue"], &executor["inflight"]) == (&json!(1), &json!(1), &json!(1))
    });
    assert_eq!(host.metric(overdue_total), before, "it is counted when it ends");
    host.wait_for_idle("onnx");
    eprintln!("huge node: held its worker for {:?} more", started.elapsed());
    assert_eq!(host.executor("onnx")["overdue"], 0);
    assert_eq!(host.metric(overdue_total), before + 1.0);
    assert_eq!(host.metric("hostler_executor_timeouts_total{executor=\"onnx\"}"), 2.0);
    assert_eq!(host.post("/predict", rounds(10).to_string()).status, 200);
}

#[test]
fn a_deadline_that_passes_in_the_queue_is_answered_in_time_and_the_work_never_starts() {
    let host = serve(SINGLE);
    let calls = "hostler_plugin_calls_total{plugin=\"hostile\"}";
    let timeouts = "hostler_executor_timeouts_total{executor=\"cpu\"}";
    // The metadata call at load.
    assert_eq!(host.metric(calls), 1.0);
    let mut blocker = host.client();
    let sleep = deed("hostile", "sleep").to_string();
    blocker.begin("POST", "/predict", &[], sleep.as_bytes()).expect("it can be sent");
    std::thread::scope(|scope| {
        host.wait_for_policy("the blocker", |policy| policy["executors"]["cpu"]["busy"] == 1);
        let waiting: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| timed(&host, "/predict", &within(deed("hostile", "ok"), 50))))
            .collect();
        for waiting in waiting {
            let (answer, took) = waiting.join().unwrap();
            expect_deadline(&answer, "hostile:1");
            eprintln!("queued: answered after {took:?}");
            assert!(took >= ms(50), "{took:?}");
        }
        let executor = host.executor("cpu");
        assert_eq!((&executor["busy"], &executor["queue_length"]), (&json!(1), &json!(0)), "{executor}");
    });
    blocker.leave();
    host.wait_for_idle("cpu");
    assert_eq!(host.metric(calls), 2.0, "only the blocker was started");
    assert_eq!(host.metric(timeouts), 4.0, "those that waited");
}

#[test]
fn the_shortest_of_all_timeouts_counts() {
    let host = setup(
        r#"
[server]
timeout_ms = 500
max_timeout_ms = 1500

[executors.cpu]
workers = 16

[plugins.hostile]
path = "hostile.wasm"

[plugins.brisk]
path = "hostile.wasm"
timeout_ms = 150

[models.plain]
plugin = "hostile"

[models.short]
plugin = "hostile"
timeout_ms = 100

[models.long]
plugin = "hostile"
timeout_ms = 5000

[models.brisk]
plugin = "brisk"
timeout_ms = 1000
"#,
    )
    .start();
    let cases = [
        ("the server's, if nobody says more", "plain", None, 500),
        ("the caller's", "plain", Some(100), 100),
        ("the caller's, over the server's", "plain", Some(1000), 1000),
        ("the operator's limit", "plain", Some(60_000), 1500),
        ("the operator's limit, however much is asked", "plain", Some(u64::MAX), 1500),
        ("the model's", "short", None, 100),
        ("the model's, under the caller's", "short", Some(1000), 100),
        ("the caller's, under the model's", "short", Some(50), 50),
        ("the operator's limit, under the model's", "long", None, 1500),
        ("the plugin's", "brisk", None, 150),
        ("the plugin's, under the caller's", "brisk", Some(900), 150),
        ("the caller's, under the plugin's", "brisk", Some(50), 50),
    ];
    std::thread::scope(|scope| {
        for (name, model, asked, expected) in cases {
            let host = &host;
            scope.spawn(move || {
                let body = deed(model, "sleep");
                let body = asked.map_or(body.clone(), |asked| within(body, asked));
                // Competing timeouts are further apart than this bound.
                takes_less_than(ms(expected + 400), || {
                    let (answer, took) = timed(host, "/predict", &body);
                    assert_eq!(answer.status, 504, "{name}: {}", answer.text());
                    let error = answer.error();
                    assert_eq!(error["kind"], "deadline", "{name}: {error}");
                    if name.starts_with("the plugin's") {
                        let message = error["message"].as_str().unwrap();
                        assert!(message.contains("its timeout_ms is 150"), "{name}: {error}");
                    }
                    assert!(took >= ms(expected), "{name}: {took:?}");
                    took
                });
            });
        }
    });
}

#[test]
fn each_way_to_ask_takes_a_timeout() {
    let host = serve(SINGLE);
    let spin = || json!({"data": ["a"], "parameters": {"do": "spin"}});
    let cases = [
        ("/predict", within(deed("hostile", "spin"), 50)),
        ("/predict/hostile?do=spin&timeout_ms=50", json!(["a"])),
        (
            "/v2/models/hostile/infer",
            json!({
                "parameters": {"do": "spin", "timeout": 50_000},
                "inputs": [{"name": "data", "datatype": "BYTES", "shape": [1], "data": ["1"]}],
            }),
        ),
        ("/predict/batch", json!({"model": "hostile", "timeout_ms": 50, "items": [spin(), spin(), spin()]})),
    ];
    for (path, body) in cases {
        takes_less_than(ms(550), || {
            let (answer, took) = timed(&host, path, &body);
            if path == "/predict/batch" {
                assert_eq!(answer.json()["results"], json!([null, null, null]), "{}", answer.text());
                let errors = answer.json()["errors"].clone();
                assert!(
                    errors.as_array().unwrap().iter().all(|error| error["kind"] == "deadline"),
                    "{errors}"
                );
                assert_eq!(errors.as_array().unwrap().len(), 3, "{errors}");
            } else {
                assert_eq!(answer.status, 504, "{path}: {}", answer.text());
            }
            assert!(took >= ms(50), "{path}: {took:?}");
            took
        });
    }
}

#[test]
fn gauges_agree_while_deadlines_pass_and_end_at_zero() {
    let host = serve("[executors.cpu]\nworkers = 2\nqueue = 8\n");
    let bodies =
        [within(deed("hostile", "spin"), 30), within(deed("hostile", "sleep"), 20), deed("hostile", "ok")];
    std::thread::scope(|scope| {
        let load: Vec<_> = (0..6)
            .map(|index| {
                let (host, body) = (&host, bodies[index % bodies.len()].to_string());
                scope.spawn(move || {
                    let mut client = host.client();
                    for _ in 0..20 {
                        let answer = client.post("/predict", &body);
                        assert!([200, 504].contains(&answer.status), "{}", answer.text());
                    }
                })
            })
            .collect();
        let (mut samples, mut busy_seen) = (0, 0);
        while !load.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            let status = host.executor("cpu");
            let number = |key: &str| status[key].as_u64().unwrap();
            assert!(number("busy") <= 2 && number("overdue") <= number("busy"), "{status}");
            assert_eq!(number("inflight"), number("busy") + number("queue_length"), "{status}");
            samples += 1;
            busy_seen += u64::from(number("busy") > 0);
        }
        assert!(busy_seen > 0, "{samples} samples");
    });
    host.wait_for_idle("cpu");
    for gauge in ["busy", "inflight", "queue_length"] {
        assert_eq!(host.metric(&format!("hostler_executor_{gauge}{{executor=\"cpu\"}}")), 0.0, "{gauge}");
    }
    for (gauge, expected) in [("workers", 2.0), ("queue_capacity", 8.0)] {
        assert_eq!(
            host.metric(&format!("hostler_executor_{gauge}{{executor=\"cpu\"}}")),
            expected,
            "{gauge}"
        );
    }
}
