//! `cargo xtask bench triton`: compares Hostler with a real Triton on the same models over the same
//! protocols, in turn in one run.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::report::{select, spread};
use super::server::Server;
use super::{
    CONNECTIONS, Cell, PREDICT, Plan, Target, Wire, grpc, machine, measure, parse, plan_text, publish,
    server, stream, write_bodies,
};
use xtask::command::output;
use xtask::content::make_folder;
use xtask::error::{Attempt, Result};
use xtask::layout::Layout;
use xtask::{onnxruntime, packages, plugin, serve, triton};

const MARKERS: [&str; 2] = ["<!-- triton:begin -->", "<!-- triton:end -->"];
/// Triton, its client, and the packages that its models need.
pub(super) const REQUIREMENTS: &str = "xtask/triton-requirements.txt";
const SMALL: &str = "/v2/models/small/infer";
const BANKCHURN: &str = "/v2/models/bankchurn/infer";
const REUSED: &str = "/v2/models/reused/infer";
const FRESH: &str = "/v2/models/fresh/infer";
/// Each protocol with its targets, and each target with the peer that it is compared with.
const TABLES: [(&str, &[[&str; 2]]); 3] = [
    (
        "HTTP, JSON",
        &[
            ["triton-small", "triton-small"],
            ["hostler-small", "triton-small"],
            ["triton-bankchurn", "triton-bankchurn"],
            ["hostler-bankchurn", "triton-bankchurn"],
            ["reused", "triton-bankchurn"],
            ["fresh", "triton-bankchurn"],
        ],
    ),
    (
        "HTTP, binary tensors",
        &[
            ["triton-small-bin", "triton-small-bin"],
            ["hostler-small-bin", "triton-small-bin"],
            ["triton-bankchurn-bin", "triton-bankchurn-bin"],
            ["hostler-bankchurn-bin", "triton-bankchurn-bin"],
            ["reused-bin", "triton-bankchurn-bin"],
            ["fresh-bin", "triton-bankchurn-bin"],
        ],
    ),
    (
        "gRPC, `ModelInfer`",
        &[
            ["triton-small-grpc", "triton-small-grpc"],
            ["hostler-small-grpc", "triton-small-grpc"],
            ["floor-grpc", "triton-small-grpc"],
            ["triton-bankchurn-grpc", "triton-bankchurn-grpc"],
            ["hostler-bankchurn-grpc", "triton-bankchurn-grpc"],
            ["reused-grpc", "triton-bankchurn-grpc"],
            ["fresh-grpc", "triton-bankchurn-grpc"],
        ],
    ),
];

pub fn triton(layout: &Layout, args: &[String]) -> Result<()> {
    let plan = parse(args)?;
    packages::debian_program("wrk")?;
    packages::debian_program_of("h2load", "nghttp2-client")?;
    let library = onnxruntime::library(layout)?;
    let python = packages::python_packages(layout, &layout.root.join(REQUIREMENTS))?;
    let program = triton::program(layout)?;
    plugin::build_all(layout, true)?;
    let [binary, floor] = programs(layout, &plan)?;
    let folder = layout.target()?.join("bench");
    write_bodies(layout, &python, &folder)?;
    write_other_bodies(layout, &python, &folder)?;
    let models = repository(layout, &folder)?;
    let machine = machine::describe(layout, &binary, REQUIREMENTS, machine::busy_percent()?)?;
    let hostler = server::hostler(layout, "bench/data/triton.toml", &binary, &library, &folder)?;
    let floor = server::grpc_floor(&floor, &folder)?;
    let peer = server::triton(&program, &models, &folder)?;
    let targets = targets(layout, &python, &folder, [&peer, &hostler, &floor])?;
    let cells = measure(layout, &plan, &targets, &folder)?;
    let streams = stream::compare(layout, &python, &peer, [&binary, &library, &folder])?;
    let command = plan_text(&plan).replace("xtask bench", "xtask bench triton");
    let report = report(&command, &machine, peer.crashes(), &cells) + "\nA streaming model:\n\n" + &streams;
    publish(layout, &plan, &layout.root.join("docs/measured/performance.md"), &MARKERS, &report)
}

/// Returns the programs of Hostler and of `grpc-floor`, its gRPC baseline. Builds both unless
/// `--hostler` names a build that has `grpc-floor` where cargo puts it.
fn programs(layout: &Layout, plan: &Plan) -> Result<[PathBuf; 2]> {
    let beside = |binary: &Path| binary.with_file_name("examples").join("grpc-floor");
    if let Some(binary) = plan.hostler.as_ref().filter(|binary| beside(binary).is_file()) {
        return Ok([binary.clone(), beside(binary)]);
    }
    let built = serve::build_host_and_floor(layout)?;
    Ok([plan.hostler.clone().unwrap_or_else(|| built.clone()), beside(&built)])
}

fn write_other_bodies(layout: &Layout, python: &Path, folder: &Path) -> Result<()> {
    let mut script = Command::new("python3");
    packages::see_packages(&mut script, python);
    output(script.current_dir(&layout.root).arg("bench/data/grpc_bodies.py").arg(folder), "").map(drop)
}

/// Returns all targets, after each gRPC target has returned the correct answer.
fn targets<'a>(
    layout: &Layout,
    python: &Path,
    folder: &Path,
    [peer, hostler, floor]: [&'a Server; 3],
) -> Result<Vec<Target<'a>>> {
    let target = |name, server, path, expected, wire| Target {
        name,
        server,
        expected,
        path,
        wire,
        connections: &CONNECTIONS,
    };
    let mut targets = vec![
        target("triton-small", peer, SMALL, "\"y\"", Wire::Json),
        target("hostler-small", hostler, SMALL, "\"y\"", Wire::Json),
        target("triton-bankchurn", peer, BANKCHURN, "probabilities", Wire::Json),
        target("hostler-bankchurn", hostler, BANKCHURN, "probabilities", Wire::Json),
        target("reused", hostler, PREDICT, "churn", Wire::Json),
        target("fresh", hostler, PREDICT, "churn", Wire::Json),
        target("triton-small-bin", peer, SMALL, "\"y\"", Wire::Binary),
        target("hostler-small-bin", hostler, SMALL, "\"y\"", Wire::Binary),
        target("triton-bankchurn-bin", peer, BANKCHURN, "probabilities", Wire::Binary),
        target("hostler-bankchurn-bin", hostler, BANKCHURN, "probabilities", Wire::Binary),
        target("reused-bin", hostler, REUSED, "probabilities", Wire::Binary),
        target("fresh-bin", hostler, FRESH, "probabilities", Wire::Binary),
    ];
    let alike: [&[(&str, &Server)]; 3] = [
        &[("triton-small-grpc", peer), ("hostler-small-grpc", hostler)],
        &[("floor-grpc", floor)],
        &[
            ("triton-bankchurn-grpc", peer),
            ("hostler-bankchurn-grpc", hostler),
            ("reused-grpc", hostler),
            ("fresh-grpc", hostler),
        ],
    ];
    for group in alike {
        let calls: Vec<_> =
            group.iter().map(|(name, server)| (folder.join(format!("{name}.grpc")), server.grpc)).collect();
        let lengths = grpc::ask(&layout.root, python, &calls)?;
        for ((name, server), answer) in group.iter().zip(lengths) {
            targets.push(target(name, server, "", "", Wire::Grpc { answer }));
        }
    }
    Ok(targets)
}

/// Creates a model repository for Triton with both models and the streaming model.
fn repository(layout: &Layout, folder: &Path) -> Result<PathBuf> {
    let models = folder.join("triton-models");
    streaming_model(layout, &models)?;
    for (name, file) in [("small", "tests/models/small.onnx"), ("bankchurn", super::MODEL)] {
        let model = models.join(name);
        place(layout, &model, &format!("bench/data/triton/{name}.pbtxt"), "config.pbtxt")?;
        place(layout, &model.join("1"), "tests/triton/onnx_model.py", "model.py")?;
        place(layout, &model.join("1"), file, "model.onnx")?;
    }
    Ok(models)
}

/// Puts the streaming model into a model repository.
pub(super) fn streaming_model(layout: &Layout, models: &Path) -> Result<()> {
    let model = models.join(stream::MODEL);
    place(layout, &model, "tests/triton/repeat/config.pbtxt", "config.pbtxt")?;
    place(layout, &model.join("1"), "tests/triton/repeat/model.py", "model.py")
}

/// Starts a Triton with a model alone and one that calls it, and with a model that returns its
/// input and an ensemble of five such models.
pub(super) fn callers(layout: &Layout, folder: &Path) -> Result<Server> {
    let program = triton::program(layout)?;
    let models = folder.join("calling-models");
    for name in ["alone", "calls"] {
        place(layout, &models.join(name), &format!("bench/data/triton/{name}.pbtxt"), "config.pbtxt")?;
        place(layout, &models.join(name).join("1"), &format!("bench/data/triton/{name}.py"), "model.py")?;
    }
    place(layout, &models.join("pass"), "bench/data/triton/pass.pbtxt", "config.pbtxt")?;
    place(layout, &models.join("pass").join("1"), "bench/data/triton/pass.py", "model.py")?;
    place(layout, &models.join("five"), "bench/data/triton/five.pbtxt", "config.pbtxt")?;
    // The version folder of an ensemble is empty.
    make_folder(&models.join("five").join("1"))?;
    server::triton(&program, &models, folder)
}

fn place(layout: &Layout, folder: &Path, file: &str, name: &str) -> Result<()> {
    make_folder(folder)?;
    fs::copy(layout.root.join(file), folder.join(name)).attempting(|| format!("copy {file}")).map(drop)
}

fn report(command: &str, machine: &str, crashes: u32, cells: &[Cell]) -> String {
    let crashed = match crashes {
        0 => String::new(),
        1 => "; it crashed once and was restarted".to_owned(),
        crashes => format!("; it crashed {crashes} times and was restarted"),
    };
    let mut text = format!(
        "Command: `{command}`\n\n{machine}- h2load {}, one thread\n\
         - Triton is 2.51; its server and Python processes are summed{crashed}\n\n\
         Median over the rounds (smallest to largest). The last three columns are ratios to Triton in the same round.\n",
        grpc::version()
    );
    for (protocol, pairs) in TABLES {
        let _ = write!(text, "\n{protocol}:\n\n");
        text += "| connections | target | requests/s | p50 ms | p99 ms | failed | CPU us/request | requests/s : Triton | CPU : Triton | p99 : Triton |\n";
        text += "|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|\n";
        for connections in CONNECTIONS {
            for [target, peer] in pairs {
                text += &row(cells, connections, target, peer);
            }
        }
    }
    text
}

fn row(cells: &[Cell], connections: u32, target: &str, peer: &str) -> String {
    let rounds = select(cells, connections, target);
    let pairs: Vec<_> = rounds.iter().zip(select(cells, connections, peer)).collect();
    let failed: u64 = rounds.iter().map(|cell| cell.failed + cell.health_failed).sum();
    format!(
        "| {connections} | {target} | {} | {} | {} | {failed} | {} | {} | {} | {} |\n",
        spread(&rounds, 0, |cell| cell.requests_per_s),
        spread(&rounds, 2, |cell| cell.p50_us / 1e3),
        spread(&rounds, 2, |cell| cell.p99_us / 1e3),
        spread(&rounds, 1, |cell| cell.cpu_us),
        spread(&pairs, 2, |(cell, peer)| cell.requests_per_s / peer.requests_per_s),
        spread(&pairs, 2, |(cell, peer)| cell.cpu_us / peer.cpu_us),
        spread(&pairs, 2, |(cell, peer)| cell.p99_us / peer.p99_us),
    )
}
