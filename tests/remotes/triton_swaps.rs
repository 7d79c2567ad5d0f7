//! Moves a model to a real Triton and back under load, and kills and restarts a Triton under load.
//! The default run is short; `cargo xtask soak 50` moves 50 times and kills 20 times.

use crate::support::load::{Load, Shot};
use crate::support::triton::Triton;
use crate::support::{Answer, Host, Setup, churn, eventually, example, plugin, repeats, replace};
use serde_json::json;
use std::time::{Duration, Instant};

fn soak(short: u64, long_max: u64) -> u64 {
    (repeats(short as usize) as u64).min(long_max)
}

/// Returns a manifest with the bank-churn example, which can run on the remote or on this machine:
/// `executor` decides.
fn manifest(triton: &Triton, executor: &str) -> String {
    triton.executor("")
        + "[models.\"bankchurn:v1\"]\npath = \"model.onnx\"\nremote = { name = \"bankchurn\" }\n\
           transformer = \"churn\"\n[plugins.churn]\npath = \"churn.wasm\"\n[plugins.churn.assets]\n\
           scaling = \"scaling.json\"\n"
        + &format!("[policy]\n\"bankchurn:v1\" = \"{executor}\"\n")
}

fn host(triton: &Triton, executor: &str) -> Host {
    Setup::new(&manifest(triton, executor))
        .file("model.onnx", example("bankchurn/model.onnx"))
        .file("scaling.json", example("bankchurn/scaling.json"))
        .file("churn.wasm", plugin("churn"))
        .start()
}

#[test]
fn moves_between_onnx_and_triton_fail_no_request_and_change_no_answer() {
    let Some(triton) = Triton::start(&["bankchurn"]) else { return };
    let host = host(&triton, "onnx");
    let record = churn::low_risk();
    let expected = host.predict("bankchurn", record.clone()).result();
    let judge = move |answer: &Answer| {
        let same = answer.status == 200 && answer.json()["result"] == expected;
        (!same).then(|| format!("{} {}", answer.status, answer.text()))
    };
    let (moves, generation) = (soak(4, 1_000), host.generation());
    let load = Load::start(host.http, 50, Shot::predict("bankchurn", &record), None, judge);
    for number in 0..moves {
        let executor = ["remote", "onnx"][number as usize % 2];
        replace(&host.path("hostler.toml"), manifest(&triton, executor).as_bytes());
        let policy = host.wait_for_generation(generation + number + 1);
        assert_eq!(policy["last_reload"]["outcome"], "applied", "{policy}");
        // Leaves time for some load before the next move.
        std::thread::sleep(Duration::from_millis(300));
    }
    let outcome = load.stop();
    let (p50, p99) = (outcome.percentile(0.5), outcome.percentile(0.99));
    eprintln!("{moves} moves, {} answers, p50 {p50:?}, p99 {p99:?}, {:?}", outcome.answers, host.usage());
    assert_eq!(outcome.faults, Vec::<String>::new());
    assert!(outcome.answers as u64 > 50 * moves);
}

/// The timeout of a client's request, and what a busy machine may add to it.
const TIMEOUT: Duration = Duration::from_secs(2);
const SLACK: Duration = Duration::from_secs(5);

/// The longest time from Triton's readiness to the first result on this host.
const BACK_WITHIN: Duration = Duration::from_secs(15);

/// Accepts a result or a 503, and nothing else.
fn result_or_away(answer: &Answer) -> Option<String> {
    let kind = || answer.json()["error"]["kind"].clone();
    let is_good = answer.status == 200 || (answer.status == 503 && kind() == "unavailable");
    (!is_good).then(|| format!("{} {}", answer.status, answer.text()))
}

#[test]
fn a_triton_that_is_killed_costs_only_503_and_is_served_again_when_it_is_back() {
    let Some(mut triton) = Triton::start(&["bankchurn"]) else { return };
    let host = host(&triton, "remote");
    let record = churn::low_risk();
    let ask = || host.predict("bankchurn", record.clone());
    assert_eq!(ask().status, 200);
    let body = json!({"model": "bankchurn", "data": record, "timeout_ms": TIMEOUT.as_millis() as u64});
    let shot = Shot { path: "/predict".into(), body: body.to_string().into_bytes() };
    let rounds = soak(2, 20);
    let mut before = None;
    for round in 0..rounds {
        let load = Load::start(host.http, 20, shot.clone(), Some(Duration::from_millis(20)), result_or_away);
        std::thread::sleep(Duration::from_millis(300));
        triton.kill();
        let started = Instant::now();
        ask().refused(503, "unavailable", &["executor \"remote\"", "is unavailable"]);
        assert!(started.elapsed() < Duration::from_secs(5), "refused after {:?}", started.elapsed());
        assert_eq!(host.get("/ready").status, 503);
        assert_eq!(host.get("/v2/models/bankchurn/ready").status, 503);
        assert_eq!(host.metric("hostler_triton_connected{executor=\"remote\"}"), 0.0);

        triton.restart();
        let ready = Instant::now();
        eventually("a result", || (ask().status == 200).then_some(()), || host.log());
        let back = ready.elapsed();
        assert!(back < BACK_WITHIN, "round {round}: back after {back:?}");
        assert_eq!(host.get("/ready").status, 200);
        let outcome = load.stop();
        assert_eq!(outcome.faults, Vec::<String>::new());
        assert!(outcome.percentile(1.0) < TIMEOUT + SLACK, "{:?}", outcome.percentile(1.0));
        host.wait_for_idle("remote");
        let usage = host.usage();
        eprintln!("round {round}: {} answers, back after {back:?}, {usage:?}", outcome.answers);
        // The first rounds fill pools and caches, so they count as the baseline.
        if round == 1 {
            before = Some(usage);
        }
    }
    let (before, after) = (before.expect("two rounds"), host.usage());
    assert_eq!(before.threads, after.threads);
    assert!(after.files <= before.files + 4, "{before:?} {after:?}");
    assert!(after.rss_kb < before.rss_kb + (64 << 10), "{before:?} {after:?}");
}
