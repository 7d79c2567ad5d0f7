//! Swaps for minutes under load. The default run is short; `cargo xtask soak 500` does 500 swaps of
//! each kind, two a second, and prints its measurements.

use crate::support::churn::{loud, low_risk};
use crate::support::load::{Load, Outcome, Shot, one_of};
use crate::support::{Host, Setup, churn, model, never_seen, plugin, repeats, replace};
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};

const CONNECTIONS: usize = 50;
const BETWEEN_SWAPS: Duration = Duration::from_millis(500);

/// Returns the number of swaps of each kind.
fn swaps() -> u64 {
    repeats(4) as u64
}

fn report(what: &str, outcome: &Outcome, host: &Host) {
    let (p50, p99) = (outcome.percentile(0.5), outcome.percentile(0.99));
    let (answers, faults, usage) = (outcome.answers, outcome.faults.len(), host.usage());
    eprintln!("{what}: {answers} answers, {faults} faults, p50 {p50:?}, p99 {p99:?}, {usage:?}");
}

/// Replaces files with `swap` under load. Every swap must be live before the load ends.
fn soak(
    what: &str,
    host: &Host,
    shot: &Shot,
    field: &'static str,
    allowed: [serde_json::Value; 2],
    swap: impl Fn(&Path, u64),
) {
    let generation = host.generation();
    let load = Load::start(host.http, CONNECTIONS, shot.clone(), None, one_of(field, allowed));
    for number in 0..swaps() {
        let next = Instant::now() + BETWEEN_SWAPS;
        swap(host.setup.dir.path(), number);
        host.wait_for_generation(generation + number + 1);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    let outcome = load.stop();
    report(what, &outcome, host);
    assert_eq!(outcome.faults, Vec::<String>::new());
}

#[test]
fn plugin_swaps_fail_no_request() {
    let host = churn::setup("").start();
    let versions = [std::fs::read(plugin("churn")).unwrap(), loud()];
    let allowed = [json!("low"), json!("LOW")];
    soak(
        "plugin, two versions",
        &host,
        &Shot::predict("bankchurn", &low_risk()),
        "risk",
        allowed,
        |dir, number| {
            replace(&dir.join("churn.wasm"), &versions[usize::from(number % 2 == 0)]);
        },
    );
}

#[test]
fn contents_never_seen_before_fail_no_request() {
    let host = churn::setup("").start();
    let rust = std::fs::read(plugin("churn")).unwrap();
    let python = std::fs::read(plugin("churn-py")).unwrap();
    let load = Load::start(
        host.http,
        CONNECTIONS,
        Shot::predict("bankchurn", &low_risk()),
        None,
        one_of("risk", [json!("low"), json!("low")]),
    );
    let count = swaps().min(20);
    for number in 0..count {
        // The last swap is to 18 MB of Python.
        let component = if number + 1 == count { &python } else { &rust };
        let started = Instant::now();
        replace(&host.path("churn.wasm"), &never_seen(component, number as u8));
        while host.generation() < number + 2 {
            assert!(started.elapsed() < Duration::from_secs(300), "{}", host.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        eprintln!("never seen: {} bytes live after {:?}", component.len(), started.elapsed());
    }
    let outcome = load.stop();
    report("never seen", &outcome, &host);
    assert_eq!(outcome.faults, Vec::<String>::new());
}

fn plus_setup() -> Setup {
    Setup::new("[models.plus]\npath = \"plus.onnx\"\n").file("plus.onnx", model("plus1"))
}

#[test]
fn model_swaps_fail_no_request() {
    let host = plus_setup().start();
    let versions = [model("plus1"), model("plus2")].map(|path| std::fs::read(path).unwrap());
    let allowed = [json!([2.0]), json!([3.0])];
    soak("model file", &host, &Shot::predict("plus", &json!([1.0])), "y", allowed, |dir, number| {
        replace(&dir.join("plus.onnx"), &versions[usize::from(number % 2 == 0)]);
    });
}

#[test]
fn moves_between_executors_fail_no_request() {
    let host = plus_setup().start();
    let allowed = [json!([2.0]), json!([2.0])];
    soak("executor", &host, &Shot::predict("plus", &json!([1.0])), "y", allowed, |dir, number| {
        let executor = if number % 2 == 0 { "cpu" } else { "onnx" };
        let manifest = format!("[models.plus]\npath = \"plus.onnx\"\n[policy]\nplus = \"{executor}\"\n");
        replace(&dir.join("hostler.toml"), manifest.as_bytes());
    });
}

/// Sends requests at fixed times, at half of the host's capacity: swaps must not show in the tail
/// latency.
#[test]
fn swaps_at_half_load_are_not_felt() {
    let host = churn::setup("").start();
    let versions = [std::fs::read(plugin("churn")).unwrap(), loud()];
    let shot = Shot::predict("bankchurn", &low_risk());
    let judge = || one_of("risk", [json!("low"), json!("LOW")]);
    let measure = Duration::from_secs(if swaps() > 4 { 20 } else { 1 });

    let full = Load::start(host.http, CONNECTIONS, shot.clone(), None, judge());
    std::thread::sleep(measure / 4);
    let rate = full.stop().answers as f64 / (measure / 4).as_secs_f64();
    let every = Duration::from_secs_f64(CONNECTIONS as f64 / (rate / 2.0));

    let steady = Load::start(host.http, CONNECTIONS, shot.clone(), Some(every), judge());
    std::thread::sleep(measure);
    let steady = steady.stop();
    let swapped = Load::start(host.http, CONNECTIONS, shot, Some(every), judge());
    let generation = host.generation();
    let end = Instant::now() + measure;
    let mut number = 0;
    while Instant::now() < end {
        replace(&host.path("churn.wasm"), &versions[1 - number % 2]);
        number += 1;
        host.wait_for_generation(generation + number as u64);
        std::thread::sleep(BETWEEN_SWAPS);
    }
    let swapped = swapped.stop();
    eprintln!("half load is {:.0} requests/s", rate / 2.0);
    report("steady", &steady, &host);
    report(&format!("with {number} swaps"), &swapped, &host);
    assert_eq!((steady.faults, swapped.faults), (Vec::new(), Vec::new()));
}

/// Measures the time from the file's replacement to the first answer of the new plugin.
#[test]
fn a_saved_plugin_is_live_soon() {
    let host = churn::setup("").start();
    let versions = [std::fs::read(plugin("churn")).unwrap(), loud()];
    let mut client = host.client();
    let body = Shot::predict("bankchurn", &low_risk()).body;
    let mut times = Vec::new();
    for number in 0..swaps().clamp(4, 20) as usize {
        let loud = number % 2 == 0;
        let component = never_seen(&versions[usize::from(loud)], number as u8);
        let beside = host.path("beside");
        std::fs::write(&beside, component).unwrap();
        std::fs::rename(&beside, host.path("churn.wasm")).unwrap();
        let saved = Instant::now();
        let wanted = if loud { "LOW" } else { "low" };
        while client.post("/predict", &body).result()["risk"] != wanted {
            assert!(saved.elapsed() < crate::support::PATIENCE, "{}", host.log());
        }
        times.push(saved.elapsed());
    }
    times.sort_unstable();
    eprintln!(
        "save to live: median {:?}, slowest {:?} of {}",
        times[times.len() / 2],
        times[times.len() - 1],
        times.len()
    );
}
