//! `cargo xtask bench --batching`: the same model with and without `max_batch_size`, in turn in one run.

use std::fmt::Write;

use super::report::{select, spread};
use super::server::Server;
use super::{Cell, Target};

/// Around the tables in the page.
pub const MARKERS: [&str; 2] = ["<!-- batching:begin -->", "<!-- batching:end -->"];

/// Requests share runs where many wait.
const CONNECTIONS: [u32; 1] = [100];

/// What is compared: without, with, and what a right answer contains.
const PAIRS: [[&str; 3]; 4] = [
    ["single", "batched", "churn"],
    ["fresh-single", "fresh-batched", "churn"],
    ["plain-single", "plain-batched", "probabilities"],
    ["dense-single", "dense-batched", "\"y\""],
];

pub fn targets(server: &Server) -> Vec<Target<'_>> {
    let target = |name, expected| Target { name, server, expected, connections: &CONNECTIONS };
    PAIRS
        .iter()
        .flat_map(|&[single, batched, expected]| [target(single, expected), target(batched, expected)])
        .collect()
}

pub fn report(command: &str, machine: &str, cells: &[Cell]) -> String {
    let mut text = format!(
        "Command: `{command}`\n\n{machine}\nMedian over the rounds (smallest to largest), {} connections.\n\n",
        CONNECTIONS[0]
    );
    text += "| target | requests/s | p50 ms | p99 ms | failed | CPU us/request | times the requests/s | of the CPU |\n";
    text += "|---|---:|---:|---:|---:|---:|---:|---:|\n";
    for [single, batched, _] in PAIRS {
        for target in [single, batched] {
            let rounds = select(cells, CONNECTIONS[0], target);
            let peers = select(cells, CONNECTIONS[0], single);
            let pairs: Vec<_> = rounds.iter().zip(peers).collect();
            let failed: u64 = rounds.iter().map(|cell| cell.failed + cell.health_failed).sum();
            let _ = writeln!(
                text,
                "| {target} | {} | {} | {} | {failed} | {} | {} | {} |",
                spread(&rounds, 0, |cell| cell.requests_per_s),
                spread(&rounds, 2, |cell| cell.p50_us / 1e3),
                spread(&rounds, 2, |cell| cell.p99_us / 1e3),
                spread(&rounds, 1, |cell| cell.cpu_us),
                spread(&pairs, 2, |(cell, peer)| cell.requests_per_s / peer.requests_per_s),
                spread(&pairs, 2, |(cell, peer)| cell.cpu_us / peer.cpu_us),
            );
        }
    }
    text
}
