//! Tests what the shipped custom executors promise, under load and with faults in the model behind
//! them. Times are compared only with each other, never with fixed limits; `-- --nocapture` prints
//! them.

use crate::support::custom::{events, is_right, load, setup, setup_with, shot};
use crate::support::load::Load;
use crate::support::{Answer, Host, Setup, eventually, example, never_seen, plugin, replace};
use serde_json::{Value, json};

const CONNECTIONS: usize = 16;

fn asked(host: &Host) -> Answer {
    host.predict("asked", json!([1.0]))
}

// Hedge

#[test]
fn hedge_halves_the_p99_when_one_call_in_20_is_slow() {
    let host = setup("hedge", "", "fast_ms = \"5\"\nslow_every = \"20\"\nslow_ms = \"500\"").start();
    let plain = load(&host, "plain", CONNECTIONS, 600, is_right);
    // The hedge knows no p95 until it has seen some calls.
    let learning = load(&host, "asked", CONNECTIONS, 100, is_right);
    let hedged = load(&host, "asked", CONNECTIONS, 1_000, is_right);
    let requests = learning.answers + hedged.answers;
    let (hedges, wins) = (events(&host, "hedge", "hedges"), events(&host, "hedge", "hedge_wins"));
    for (what, outcome) in [("plain", &plain), ("hedged", &hedged)] {
        let [p50, p95, p99] = [0.5, 0.95, 0.99].map(|share| outcome.percentile(share));
        eprintln!("{what}: {} answers, p50 {p50:?}, p95 {p95:?}, p99 {p99:?}", outcome.answers);
    }
    eprintln!("{hedges} hedges of {requests} requests, {wins} won");
    for outcome in [&plain, &learning, &hedged] {
        assert_eq!(outcome.faults, Vec::<String>::new());
    }
    assert!(hedged.percentile(0.99) * 2 <= plain.percentile(0.99));
    assert!(wins > 0 && wins <= hedges, "{wins} of {hedges}");
    assert!(hedges as usize <= requests / 10 + 10, "{hedges} hedges of {requests} requests");
}

#[test]
fn hedge_cancels_the_loser_and_frees_its_place() {
    let config = "delay_us = \"20000\"\nmax_hedge_percent = \"100\"\nhedge_reserve = \"100\"";
    // The first call of each request except the very first is slow; its second call is fast.
    let host = setup("hedge", config, "slow_every = \"2\"\nslow_ms = \"100000\"").start();
    for _ in 0..20 {
        assert_eq!(is_right(&asked(&host)), None);
    }
    let calls = events(&host, "faulty", "calls");
    assert_eq!(calls, 1 + 2 * 19);
    assert_eq!(events(&host, "hedge", "hedge_wins"), 19);
    // The losers would run for longer than this test waits.
    host.wait_for_idle("cpu");
    assert_eq!(events(&host, "faulty", "finished"), 20, "losers were stopped");
    assert_eq!(asked(&host).status, 200);
}

#[test]
fn hedge_takes_the_good_answer_and_not_the_first_error() {
    let config = "delay_us = \"1000\"\nmax_hedge_percent = \"100\"\nhedge_reserve = \"100\"";
    let host = setup("hedge", config, "fast_ms = \"150\"\nfail_every = \"2\"").start();
    for _ in 0..6 {
        assert_eq!(is_right(&asked(&host)), None, "of two calls one fails");
    }
    assert_eq!(events(&host, "hedge", "hedges"), 6);
    let failing = setup("hedge", config, "fast_ms = \"50\"\nfail_every = \"1\"").start();
    asked(&failing).refused(503, "unavailable", &["fails, as its config says"]);
}

#[test]
fn hedge_stays_within_its_share() {
    let config = "delay_us = \"1\"\nmax_hedge_percent = \"5\"\nhedge_reserve = \"3\"";
    let host = setup("hedge", config, "fast_ms = \"10\"").start();
    let outcome = load(&host, "asked", CONNECTIONS, 400, is_right);
    let hedges = events(&host, "hedge", "hedges") as usize;
    eprintln!("{hedges} hedges of {} requests", outcome.answers);
    assert_eq!(outcome.faults, Vec::<String>::new());
    assert!(hedges > 3 && hedges <= outcome.answers / 20 + 3, "{hedges} of {}", outcome.answers);
}

// Retry

#[test]
fn retry_hides_failures_that_pass() {
    let host = setup("retry", "attempts = \"10\"\nbackoff_ms = \"1\"", "fail_every = \"20\"").start();
    let plain = load(&host, "plain", CONNECTIONS, 200, |_| None);
    let outcome = load(&host, "asked", CONNECTIONS, 1_000, is_right);
    let (calls, retries) = (events(&host, "faulty", "calls"), events(&host, "retry", "retries"));
    eprintln!("{} answers, {retries} retries, {calls} calls", outcome.answers);
    assert_eq!(outcome.faults, Vec::<String>::new());
    assert!(retries > 0);
    assert_eq!(calls as usize, plain.answers + outcome.answers + retries as usize);
}

#[test]
fn retry_never_exceeds_its_budget_even_across_swaps() {
    let host = setup("retry", "backoff_ms = \"1\"", "fail_every = \"1\"").start();
    let component = std::fs::read(plugin("retry")).unwrap();
    let judge = |answer: &Answer| (answer.status != 503).then(|| answer.text());
    let running = Load::start(host.http, CONNECTIONS, shot("asked"), None, judge);
    for swap in 0..3 {
        let denied = events(&host, "retry", "budget_denied");
        let some_denied = || (events(&host, "retry", "budget_denied") >= denied + 100).then_some(());
        eventually("requests without a retry", some_denied, || host.log());
        replace(&host.path("retry.wasm"), &never_seen(&component, swap));
        host.wait_for_generation(u64::from(swap) + 2);
    }
    let outcome = running.stop();
    let retries = events(&host, "retry", "retries") as usize;
    let calls = events(&host, "faulty", "calls") as usize;
    eprintln!("{} requests, {retries} retries, {calls} calls", outcome.answers);
    assert_eq!(outcome.faults, Vec::<String>::new());
    assert_eq!(calls, outcome.answers + retries);
    assert!(retries >= 10 && retries <= outcome.answers / 10 + 10, "{retries} of {}", outcome.answers);
}

#[test]
fn retry_gives_up_when_attempts_or_time_are_at_their_end() {
    let host = setup("retry", "attempts = \"3\"\nbackoff_ms = \"1\"", "fail_every = \"1\"").start();
    asked(&host).refused(503, "unavailable", &["call 3 fails"]);
    assert_eq!(events(&host, "retry", "retries_exhausted"), 1);

    let pause = "backoff_ms = \"60000\"\nbackoff_max_ms = \"60000\"";
    let host = setup("retry", pause, "fail_every = \"1\"").start();
    let body = json!({"model": "asked", "data": [1.0], "timeout_ms": 5000});
    host.post("/predict", body.to_string()).refused(503, "unavailable", &["call 1 fails"]);
    assert_eq!(events(&host, "retry", "retries_out_of_time"), 1);
}

#[test]
fn retry_leaves_other_errors_alone() {
    let host = setup("retry", "", "fail_every = \"1\"\nfail_kind = \"invalid-input\"").start();
    asked(&host).refused(400, "invalid_input", &["call 1 fails"]);
    let host = setup("retry", "retry_on = \"overloaded\"", "fail_every = \"1\"").start();
    asked(&host).refused(503, "unavailable", &["call 1 fails"]);
}

#[test]
fn bad_config_is_an_error_that_names_the_key() {
    for (executor, config, part) in [
        (
            "retry",
            "attempts = \"many\"",
            "config \"attempts\": expected a number from 1 to 100, got \"many\"",
        ),
        ("retry", "retry_on = \"timeout\"", "config \"retry_on\": expected some of"),
        (
            "hedge",
            "max_hedge_percent = \"200\"",
            "config \"max_hedge_percent\": expected a number from 0 to 100",
        ),
        ("shadow", "", "config \"version\" is missing"),
    ] {
        let host = setup(executor, config, "").start();
        asked(&host).refused(500, "failed", &[part]);
    }
}

// Shadow

/// Returns a setup with the model `asked` and its version `next`, which has other faults.
fn shadow(config: &str, faults: &str, next: &str) -> Setup {
    let more = format!(
        "[plugins.next]\npath = \"faulty.wasm\"\ninstances = \"reused\"\n[plugins.next.config]\n{next}\n\n\
         [models.\"asked:next\"]\nplugin = \"next\"\n\n[routing.asked]\nweights = {{ 1 = 100, next = 0 }}\n"
    );
    setup_with("shadow", &format!("version = \"next\"\n{config}"), faults, &more)
}

/// Waits until no comparison is in progress.
fn settled(host: &Host) {
    host.wait_for_idle("custom");
    host.wait_for_idle("cpu");
}

#[test]
fn shadow_keeps_no_caller_waiting() {
    let config = "max_in_flight = \"64\"\ntimeout_ms = \"20000\"";
    let host = shadow(config, "fast_ms = \"80\"", "fast_ms = \"200\"").start();
    let mut ratios = Vec::new();
    // Retries, because other load on the machine can distort the times.
    while ratios.iter().all(|ratio| *ratio > 1.05) && ratios.len() < 5 {
        let plain = load(&host, "plain", 4, 60, is_right);
        let shadowed = load(&host, "asked", 4, 60, is_right);
        let [plain, shadowed] = [plain, shadowed].map(|outcome| {
            assert_eq!(outcome.faults, Vec::<String>::new());
            outcome.percentile(0.5)
        });
        eprintln!("p50 {plain:?} alone, {shadowed:?} with a shadow of 200 ms");
        ratios.push(shadowed.as_secs_f64() / plain.as_secs_f64());
    }
    settled(&host);
    assert!(ratios.iter().any(|ratio| *ratio <= 1.05), "{ratios:?}");
    assert!(events(&host, "shadow", "shadow_requests") >= 60);
    assert_eq!(events(&host, "shadow", "shadow_differences"), 0);
    assert_eq!(events(&host, "shadow", "shadow_failures"), 0);
}

#[test]
fn shadow_counts_a_planted_difference() {
    for (config, next, differences) in [
        ("", "offset = \"0.5\"", 10),
        ("", "", 0),
        ("tolerance = \"0.6\"", "offset = \"0.5\"", 0),
        ("share_percent = \"0\"", "offset = \"0.5\"", 0),
    ] {
        let host = shadow(config, "", next).start();
        for _ in 0..10 {
            assert_eq!(is_right(&asked(&host)), None, "the caller's answer stays as it is");
        }
        settled(&host);
        assert_eq!(events(&host, "shadow", "shadow_differences"), differences, "{config} {next}");
        let requests = if config.starts_with("share") { 0 } else { 10 };
        assert_eq!(events(&host, "shadow", "shadow_requests"), requests);
    }
}

#[test]
fn a_shadow_that_fails_or_hangs_is_counted_and_nobody_feels_it() {
    for next in ["fail_every = \"1\"", "fast_ms = \"100000\""] {
        let host = shadow("timeout_ms = \"300\"\nmax_in_flight = \"2\"", "", next).start();
        let outcome = load(&host, "asked", CONNECTIONS, 200, is_right);
        settled(&host);
        let [asked, skipped, failures] = ["shadow_requests", "shadow_skipped", "shadow_failures"]
            .map(|name| events(&host, "shadow", name) as usize);
        eprintln!("{next}: {} answers, {asked} shadowed, {skipped} skipped", outcome.answers);
        assert_eq!(outcome.faults, Vec::<String>::new());
        assert_eq!((asked, asked + skipped), (failures, outcome.answers));
        assert!(asked > 0 && (skipped > 0 || next.starts_with("fail")));
    }
}

// Cascade

fn column(host: &Host, model: &str, rows: &Value) -> Vec<f64> {
    let result = host.predict(model, json!({"x": rows})).result();
    let rows = result["probability"].as_array().unwrap();
    rows.iter().map(|row| row[0].as_f64().unwrap()).collect()
}

#[test]
fn cascade_asks_the_big_model_for_the_unsure_rows_only() {
    let manifest = std::fs::read_to_string(example("cascade/hostler.toml")).unwrap();
    let manifest = manifest.replace("../../plugins/bin/", "")
        + "\n[models.small]\npath = \"small.onnx\"\n\n[models.big]\npath = \"big.onnx\"\n";
    let setup = Setup::new(&manifest)
        .file("small.onnx", example("cascade/small.onnx"))
        .file("big.onnx", example("cascade/big.onnx"))
        .file("cascade.wasm", plugin("cascade"));
    let host = setup.start();
    let data: Value =
        serde_json::from_str(&std::fs::read_to_string(example("cascade/rows.json")).unwrap()).unwrap();
    let labels: Vec<bool> = data["label"].as_array().unwrap().iter().map(|label| label == 1).collect();

    let [small, big] = ["small", "big"].map(|model| column(&host, model, &data["x"]));
    let unsure: Vec<bool> = small.iter().map(|p| (0.3..=0.7).contains(p)).collect();
    let expected: Vec<f64> =
        (0..small.len()).map(|row| if unsure[row] { big[row] } else { small[row] }).collect();
    assert_eq!(column(&host, "screen", &data["x"]), expected);
    let count = unsure.iter().filter(|unsure| **unsure).count();
    assert_eq!(events(&host, "cascade", "big") as usize, count);
    assert_eq!(events(&host, "cascade", "small") as usize, small.len() - count);

    let right = |probabilities: &[f64]| {
        let right = probabilities.iter().zip(&labels).filter(|(p, label)| (**p > 0.5) == **label).count();
        right as f64 / labels.len() as f64
    };
    let [s, b, c] = [&small, &big, &expected].map(|probabilities| right(probabilities));
    let share = count as f64 / small.len() as f64;
    eprintln!("right: small {s:.3}, big {b:.3}, cascade {c:.3} with {share:.3} of the rows to the big model");
    assert!(s < c && c < b && share < 0.3);
}

#[test]
fn cascade_under_load_keeps_its_share() {
    let manifest = std::fs::read_to_string(example("cascade/hostler.toml")).unwrap();
    let host = Setup::new(&manifest.replace("../../plugins/bin/", ""))
        .file("small.onnx", example("cascade/small.onnx"))
        .file("big.onnx", example("cascade/big.onnx"))
        .file("cascade.wasm", plugin("cascade"))
        .start();
    let body: Value =
        serde_json::from_str(&std::fs::read_to_string(example("cascade/request.json")).unwrap()).unwrap();
    let expected = host.post("/predict", body.to_string()).result();
    let (small, big) = (events(&host, "cascade", "small"), events(&host, "cascade", "big"));
    assert!(small > 0 && big > 0, "the request has both kinds of rows");
    let shot = crate::support::load::Shot::predict("screen", &body["data"]);
    let judge = move |answer: &Answer| {
        let right = answer.status == 200 && answer.json()["result"] == expected;
        (!right).then(|| format!("{} {}", answer.status, answer.text()))
    };
    let running = Load::start(host.http, 8, shot, None, judge);
    let enough = || (events(&host, "cascade", "small") >= 100 * small).then_some(());
    eventually("a hundred answers", enough, || host.log());
    let outcome = running.stop();
    assert_eq!(outcome.faults, Vec::<String>::new());
    let all = outcome.answers as u64 + 1;
    assert_eq!(events(&host, "cascade", "small"), small * all);
    assert_eq!(events(&host, "cascade", "big"), big * all);
}
