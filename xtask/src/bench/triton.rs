//! `cargo xtask bench triton`: Hostler against a real Triton on the same models, by the same protocol, in turn in one run.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use super::report::{select, spread};
use super::{
    CONNECTIONS, Cell, PREDICT, Target, machine, measure, parse, plan_text, publish, server, write_bodies,
};
use crate::content::make_folder;
use crate::error::{Attempt, Result};
use crate::layout::Layout;
use crate::{onnxruntime, packages, plugin, serve, triton};

const MARKERS: [&str; 2] = ["<!-- triton:begin -->", "<!-- triton:end -->"];
const SMALL: &str = "/v2/models/small/infer";
const BANKCHURN: &str = "/v2/models/bankchurn/infer";
/// Each with the peer that it is compared with.
const PAIRS: [[&str; 2]; 4] = [
    ["hostler-small", "triton-small"],
    ["hostler-bankchurn", "triton-bankchurn"],
    ["reused", "triton-bankchurn"],
    ["fresh", "triton-bankchurn"],
];

pub fn triton(layout: &Layout, args: &[String]) -> Result<()> {
    let plan = parse(args)?;
    packages::debian_program("wrk")?;
    let library = onnxruntime::library(layout)?;
    let python = packages::python_packages(layout, &layout.root.join("xtask/bench/requirements.txt"))?;
    let program = triton::program(layout)?;
    plugin::build_all(layout, false)?;
    let binary = match &plan.hostler {
        Some(path) => path.clone(),
        None => serve::build_host(layout, true)?,
    };
    let folder = layout.target()?.join("bench");
    write_bodies(layout, &python, &folder)?;
    let models = repository(layout, &folder)?;
    let machine = machine::describe(layout, &binary, machine::busy_percent()?)?;
    let hostler = server::hostler(layout, "xtask/bench/triton.toml", &binary, &library, &folder)?;
    let peer = server::triton(&program, &models, &folder)?;
    let target =
        |name, server, path, expected| Target { name, server, expected, path, connections: &CONNECTIONS };
    let targets = [
        target("triton-small", &peer, SMALL, "\"y\""),
        target("hostler-small", &hostler, SMALL, "\"y\""),
        target("triton-bankchurn", &peer, BANKCHURN, "probabilities"),
        target("hostler-bankchurn", &hostler, BANKCHURN, "probabilities"),
        target("reused", &hostler, PREDICT, "churn"),
        target("fresh", &hostler, PREDICT, "churn"),
    ];
    let cells = measure(layout, &plan, &targets, &folder)?;
    let command = plan_text(&plan).replace("xtask bench", "xtask bench triton");
    publish(
        layout,
        &plan,
        &layout.root.join("docs/performance.md"),
        &MARKERS,
        &report(&command, &machine, &cells),
    )
}

/// A folder as Triton wants it, with both models.
fn repository(layout: &Layout, folder: &Path) -> Result<PathBuf> {
    let models = folder.join("triton-models");
    for (name, file) in [("small", "tests/models/small.onnx"), ("bankchurn", super::MODEL)] {
        let version = models.join(name).join("1");
        make_folder(&version)?;
        for (from, to) in [
            (format!("xtask/bench/triton/{name}.pbtxt"), models.join(name).join("config.pbtxt")),
            ("tests/triton/onnx_model.py".to_owned(), version.join("model.py")),
            (file.to_owned(), version.join("model.onnx")),
        ] {
            fs::copy(layout.root.join(&from), to).attempting(|| format!("copy {from}"))?;
        }
    }
    Ok(models)
}

fn report(command: &str, machine: &str, cells: &[Cell]) -> String {
    let mut text = format!(
        "Command: `{command}`\n\n{machine}- Triton 2.51 of nvidia-pytriton 0.7.0: server and Python processes summed\n\n\
         Median over the rounds (smallest to largest).\n\n"
    );
    text += "| connections | target | requests/s | p50 ms | p99 ms | failed | CPU us/request | requests/s of Triton's | CPU of Triton's |\n";
    text += "|---:|---|---:|---:|---:|---:|---:|---:|---:|\n";
    for connections in CONNECTIONS {
        for [target, peer] in [["triton-small"; 2], ["triton-bankchurn"; 2]].iter().chain(&PAIRS) {
            let rounds = select(cells, connections, target);
            let peers = select(cells, connections, peer);
            let pairs: Vec<_> = rounds.iter().zip(peers).collect();
            let failed: u64 = rounds.iter().map(|cell| cell.failed + cell.health_failed).sum();
            let _ = writeln!(
                text,
                "| {connections} | {target} | {} | {} | {} | {failed} | {} | {} | {} |",
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
