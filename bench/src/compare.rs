//! `cargo xtask bench --batching`, `--executors`, `--calls` and `--pipelines`: compares the same
//! model with and without a feature, in turn in one run.

use std::fmt::Write;

use super::report::{select, spread};
use super::server::Server;
use super::{Cell, PREDICT, Target, Wire};

/// A single load with many connections: requests share runs only if many wait.
const CONNECTIONS: [u32; 1] = [100];

pub struct Comparison {
    pub manifest: &'static str,
    /// The lines around the tables in the page.
    pub markers: [&'static str; 2],
    /// The target without the feature, the target with it, and part of a correct answer.
    pairs: &'static [[&'static str; 3]],
    /// Targets that Triton serves, with their paths.
    pub peers: &'static [[&'static str; 2]],
}

/// The gain of `max_batch_size`.
pub const BATCHING: Comparison = Comparison {
    manifest: "bench/data/batching.toml",
    markers: ["<!-- batching:begin -->", "<!-- batching:end -->"],
    pairs: &[
        ["single", "batched", "churn"],
        ["fresh-single", "fresh-batched", "churn"],
        ["plain-single", "plain-batched", "probabilities"],
        ["dense-single", "dense-batched", "\"y\""],
    ],
    peers: &[],
};

/// The cost of a plugin before the executor.
pub const EXECUTORS: Comparison = Comparison {
    manifest: "bench/data/executors.toml",
    markers: ["<!-- executors:begin -->", "<!-- executors:end -->"],
    pairs: &[
        ["direct", "passed", "churn"],
        ["plain-direct", "plain-passed", "probabilities"],
        ["large-direct", "large-passed", "\"y\""],
        ["direct", "hedged", "churn"],
    ],
    peers: &[],
};

/// The cost of a call to another model.
pub const CALLS: Comparison = Comparison {
    manifest: "bench/data/calls.toml",
    markers: ["<!-- calls:begin -->", "<!-- calls:end -->"],
    pairs: &[
        ["alone", "calls-reused", "\"y\""],
        ["alone", "calls-fresh", "\"y\""],
        ["alone", "calls-shared", "\"y\""],
        ["large-alone", "large-calls", "\"y\""],
        ["triton-alone", "triton-calls", "\"y\""],
    ],
    peers: &[["triton-alone", "/v2/models/alone/infer"], ["triton-calls", "/v2/models/calls/infer"]],
};

/// The cost of pipeline steps: one model, and a chain of five.
pub const PIPELINES: Comparison = Comparison {
    manifest: "bench/data/pipelines.toml",
    markers: ["<!-- pipelines:begin -->", "<!-- pipelines:end -->"],
    pairs: &[
        ["wasm-one", "wasm-five", "\"y\""],
        ["native-one", "native-five", "\"y\""],
        ["large-step", "large-steps", "\"y\""],
        ["triton-one", "triton-five", "\"y\""],
        ["triton-five", "wasm-five", "\"y\""],
        ["triton-five", "native-five", "\"y\""],
    ],
    peers: &[["triton-one", "/v2/models/pass/infer"], ["triton-five", "/v2/models/five/infer"]],
};

pub fn targets<'a>(
    comparison: &Comparison,
    server: &'a Server,
    triton: Option<&'a Server>,
) -> Vec<Target<'a>> {
    let target = |name, expected| {
        let peer = comparison.peers.iter().find(|[peer, _]| *peer == name);
        let (server, path) = match (peer, triton) {
            (Some([_, path]), Some(triton)) => (triton, *path),
            _ => (server, PREDICT),
        };
        Target { name, server, expected, path, wire: Wire::Json, connections: &CONNECTIONS }
    };
    let mut targets: Vec<Target<'a>> = Vec::new();
    for [without, with, expected] in comparison.pairs {
        for name in [*without, *with] {
            if !targets.iter().any(|target| target.name == name) {
                targets.push(target(name, expected));
            }
        }
    }
    targets
}

pub fn report(comparison: &Comparison, command: &str, machine: &str, cells: &[Cell]) -> String {
    let mut text = format!(
        "Command: `{command}`\n\n{machine}\nMedian over the rounds (smallest to largest), {} connections.\n\n",
        CONNECTIONS[0]
    );
    text += "| target | requests/s | p50 ms | p99 ms | failed | CPU us/request | requests/s ratio | CPU ratio | added CPU us |\n";
    text += "|---|---:|---:|---:|---:|---:|---:|---:|---:|\n";
    for [without, with, _] in comparison.pairs {
        for target in [without, with] {
            let rounds = select(cells, CONNECTIONS[0], target);
            let peers = select(cells, CONNECTIONS[0], without);
            let pairs: Vec<_> = rounds.iter().zip(peers).collect();
            let failed: u64 = rounds.iter().map(|cell| cell.failed + cell.health_failed).sum();
            let _ = writeln!(
                text,
                "| {target} | {} | {} | {} | {failed} | {} | {} | {} | {} |",
                spread(&rounds, 0, |cell| cell.requests_per_s),
                spread(&rounds, 2, |cell| cell.p50_us / 1e3),
                spread(&rounds, 2, |cell| cell.p99_us / 1e3),
                spread(&rounds, 1, |cell| cell.cpu_us),
                spread(&pairs, 2, |(cell, peer)| cell.requests_per_s / peer.requests_per_s),
                spread(&pairs, 2, |(cell, peer)| cell.cpu_us / peer.cpu_us),
                spread(&pairs, 1, |(cell, peer)| cell.cpu_us - peer.cpu_us),
            );
        }
    }
    text
}
