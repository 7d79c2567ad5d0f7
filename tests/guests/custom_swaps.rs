//! Swaps custom executors under load. The default run is short; `cargo xtask soak 400` swaps for
//! 200 seconds per test, twice a second.

use crate::support::load::{Load, Shot, one_of};
use crate::support::{Host, Setup, model, never_seen, plugin, repeats, replace};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const CONNECTIONS: usize = 50;
const BETWEEN_SWAPS: Duration = Duration::from_millis(500);

fn swaps() -> u64 {
    repeats(4) as u64
}

/// Returns a manifest with an ONNX model on `cpu`, `onnx` or the custom executor `hedged`.
fn manifest(executor: &str, percent: u64) -> String {
    format!(
        "[models.plus]\npath = \"plus.onnx\"\n\n[plugins.hedge]\npath = \"hedge.wasm\"\ninstances = \"reused\"\n\n\
         [plugins.hedge.config]\nmax_hedge_percent = \"{percent}\"\n\n[executors.hedged]\nkind = \"custom\"\n\
         plugin = \"hedge\"\ninner = \"onnx\"\nworkers = 128\n\n[policy]\nplus = \"{executor}\"\n"
    )
}

fn host() -> Host {
    Setup::new(&manifest("hedged", 10))
        .file("plus.onnx", model("plus1"))
        .file("hedge.wasm", plugin("hedge"))
        .start()
}

/// Replaces files with `swap` under load. Every swap must be live before the load ends.
fn soak(what: &str, host: &Host, swap: impl Fn(u64)) {
    let generation = host.generation();
    let right: [Value; 2] = [json!([2.0]), json!([2.0])];
    let shot = Shot::predict("plus", &json!([1.0]));
    let load = Load::start(host.http, CONNECTIONS, shot, None, one_of("y", right));
    for number in 0..swaps() {
        let next = Instant::now() + BETWEEN_SWAPS;
        swap(number);
        host.wait_for_generation(generation + number + 1);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    let outcome = load.stop();
    let (p50, p99) = (outcome.percentile(0.5), outcome.percentile(0.99));
    let (answers, swaps, usage) = (outcome.answers, swaps(), host.usage());
    eprintln!("{what}: {swaps} swaps, {answers} answers, p50 {p50:?}, p99 {p99:?}, {usage:?}");
    assert_eq!(outcome.faults, Vec::<String>::new());
    assert!(answers as u64 > swaps);
}

#[test]
fn swaps_of_the_plugin_fail_no_request() {
    let host = host();
    let component = std::fs::read(plugin("hedge")).unwrap();
    // Two contents only, so that the host compiles each of them once.
    let versions = [never_seen(&component, 1), component];
    soak("plugin of the executor", &host, |number| {
        replace(&host.path("hedge.wasm"), &versions[number as usize % 2]);
    });
}

#[test]
fn moves_between_executors_fail_no_request() {
    let host = host();
    soak("route", &host, |number| {
        let executor = ["cpu", "onnx", "hedged"][number as usize % 3];
        replace(&host.path("hostler.toml"), manifest(executor, 10).as_bytes());
    });
}

#[test]
fn changes_of_its_config_fail_no_request() {
    let host = host();
    soak("config of the executor's plugin", &host, |number| {
        replace(&host.path("hostler.toml"), manifest("hedged", 11 + number % 2).as_bytes());
    });
}
