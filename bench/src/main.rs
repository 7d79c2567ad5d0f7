//! `cargo xtask bench`: compares Hostler with FastAPI + uvicorn on the same model, interleaved in
//! one run, because two runs on one machine differ by more than the effect to be measured. The
//! other comparisons are modules; this file has the measuring loop that they share.

mod against;
mod compare;
mod grpc;
mod http;
mod jobs;
mod machine;
mod paired;
mod probe;
mod protocol;
mod report;
mod server;
mod stream;
mod triton;
mod waits;
mod wrk;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use server::Server;
use xtask::command::{output, step};
use xtask::content::make_folder;
use xtask::error::{Attempt, Error, Result};
use xtask::layout::Layout;
use xtask::{onnxruntime, packages, plugin, serve};

const CONNECTIONS: [u32; 3] = [1, 10, 100];
/// The only load under which plugins in different languages are compared.
const CONNECTIONS_OF_LANGUAGES: [u32; 1] = [10];
/// The route of the plain interface.
const PREDICT: &str = "/predict";
/// FastAPI and its dependencies.
const REQUIREMENTS: &str = "bench/data/requirements.txt";
const MODEL: &str = "examples/bankchurn/model.onnx";
const USAGE: &str = "bench [jobs | protocol | triton | waits] [--seconds N] [--rounds N] [--quick] [--hostler PATH] [--batching | --executors | --calls | --pipelines]";

struct Plan {
    seconds: u64,
    rounds: usize,
    /// Checks only that everything works; the results are not written to the page.
    quick: bool,
    /// Another build of hostler to measure. `None` builds this repository's.
    hostler: Option<PathBuf>,
    /// A comparison with and without a feature instead of FastAPI, and its argument.
    comparison: Option<(&'static str, compare::Comparison)>,
}

/// One row of the tables.
struct Target<'a> {
    /// Also the name of the file with its request body.
    name: &'static str,
    server: &'a Server,
    /// Part of a correct answer: a benchmark of wrong answers is worthless.
    expected: &'static str,
    path: &'static str,
    wire: Wire,
    connections: &'static [u32],
}

/// The format of a target's requests. It determines the extension of the file with the body.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wire {
    Json,
    /// JSON followed by the bytes of the tensors.
    Binary,
    /// A `ModelInfer` message after its length. `answer` is a correct answer's length in bytes.
    Grpc {
        answer: u64,
    },
}

impl Wire {
    fn extension(self) -> &'static str {
        match self {
            Wire::Json => "json",
            Wire::Binary => "bin",
            Wire::Grpc { .. } => "grpc",
        }
    }
}

/// The result of one target under one load in one round.
#[derive(Clone)]
pub struct Cell {
    pub target: &'static str,
    pub connections: u32,
    pub requests_per_s: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    /// Answers with a status over 399, and requests without an answer.
    pub failed: u64,
    /// User and system time per request of all processes of the server.
    pub cpu_us: f64,
    pub rss_mb: f64,
    pub health_p99_us: f64,
    pub health_failed: u64,
}

fn main() -> ExitCode {
    // SAFETY: no other thread runs yet.
    unsafe { std::env::set_var("ORT_DISABLE_TELEMETRY", "1") };
    let args: Vec<String> = std::env::args().skip(1).collect();
    match Layout::locate().and_then(|layout| bench(&layout, &args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench(layout: &Layout, args: &[String]) -> Result<()> {
    if args.first().is_some_and(|arg| arg == "protocol") {
        return protocol::protocol(layout, &args[1..]);
    }
    if args.first().is_some_and(|arg| arg == "triton") {
        return triton::triton(layout, &args[1..]);
    }
    if args.first().is_some_and(|arg| arg == "jobs") {
        return jobs::jobs(layout, &args[1..]);
    }
    if args.first().is_some_and(|arg| arg == "waits") {
        return waits::waits(layout, &args[1..]);
    }
    if args.iter().any(|arg| arg == "--against") {
        return against::against(layout, args);
    }
    let plan = parse(args)?;
    packages::debian_program("wrk")?;
    let library = onnxruntime::library(layout)?;
    let python = packages::python_packages(layout, &layout.root.join(REQUIREMENTS))?;
    plugin::build_all(layout, false)?;
    let binary = match &plan.hostler {
        Some(path) => path.clone(),
        None => serve::build_host(layout, true)?,
    };
    let folder = layout.target()?.join("bench");
    write_bodies(layout, &python, &folder)?;
    let busy_percent = machine::busy_percent()?;
    machine::warn_if_busy(busy_percent);

    let machine = machine::describe(layout, &binary, REQUIREMENTS, busy_percent)?;
    let page = layout.root.join("docs/measured/performance.md");
    if let Some((_, comparison)) = &plan.comparison {
        let hostler = server::hostler(layout, comparison.manifest, &binary, &library, &folder)?;
        let peers = !comparison.peers.is_empty();
        let triton = peers.then(|| triton::callers(layout, &folder)).transpose()?;
        let targets = compare::targets(comparison, &hostler, triton.as_ref());
        let cells = measure(layout, &plan, &targets, &folder)?;
        let report = compare::report(comparison, &plan_text(&plan), &machine, &cells);
        return publish(layout, &plan, &page, &comparison.markers, &report);
    }
    let fastapi = server::fastapi(layout, &python, &folder, "fastapi_app", &[("BENCH_MODEL", MODEL)])?;
    let hostler = server::hostler(layout, "bench/data/hostler.toml", &binary, &library, &folder)?;
    let target = |name, server, expected| Target {
        name,
        server,
        expected,
        path: PREDICT,
        wire: Wire::Json,
        connections: &CONNECTIONS,
    };
    let language =
        |name| Target { connections: &CONNECTIONS_OF_LANGUAGES, ..target(name, &hostler, "churn") };
    let targets = [
        target("fastapi", &fastapi, "probabilities"),
        target("plain", &hostler, "probabilities"),
        target("fresh", &hostler, "churn"),
        target("reused", &hostler, "churn"),
        language("python-fresh"),
        language("python-reused"),
        language("js-fresh"),
        language("js-reused"),
    ];
    let cells = measure(layout, &plan, &targets, &folder)?;
    let report = report::report(&plan_text(&plan), &machine, &cells);
    publish(layout, &plan, &page, &report::MARKERS, &report)
}

fn publish(layout: &Layout, plan: &Plan, page: &Path, markers: &[&str; 2], report: &str) -> Result<()> {
    println!("{report}");
    if !plan.quick {
        report::write(page, markers, report)?;
        step(&format!("wrote the results to {}", layout.relative(page)));
    }
    Ok(())
}

fn parse(args: &[String]) -> Result<Plan> {
    let mut plan = Plan { seconds: 5, rounds: 3, quick: false, hostler: None, comparison: None };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--seconds" => plan.seconds = number(arg, args.next())?,
            "--rounds" => plan.rounds = number(arg, args.next())? as usize,
            "--quick" => (plan.seconds, plan.rounds, plan.quick) = (1, 1, true),
            "--batching" => plan.comparison = Some(("--batching", compare::BATCHING)),
            "--executors" => plan.comparison = Some(("--executors", compare::EXECUTORS)),
            "--calls" => plan.comparison = Some(("--calls", compare::CALLS)),
            "--pipelines" => plan.comparison = Some(("--pipelines", compare::PIPELINES)),
            "--hostler" => {
                let path = args.next().ok_or_else(|| Error::new("bench: --hostler needs a path", USAGE))?;
                plan.hostler =
                    Some(std::path::absolute(path).attempting(|| format!("use --hostler {path}"))?);
            }
            _ => return Err(Error::new(format!("bench: unexpected argument {arg:?}"), USAGE)),
        }
    }
    Ok(plan)
}

fn number(arg: &str, value: Option<&String>) -> Result<u64> {
    let number = value.and_then(|text| text.parse().ok()).filter(|number| *number > 0);
    number.ok_or_else(|| Error::new(format!("bench: {arg} needs a number of at least 1"), USAGE))
}

fn plan_text(plan: &Plan) -> String {
    let comparison = plan.comparison.as_ref().map_or(String::new(), |(argument, _)| format!(" {argument}"));
    format!("cargo xtask bench{comparison} --seconds {} --rounds {}", plan.seconds, plan.rounds)
}

fn write_bodies(layout: &Layout, python: &Path, folder: &Path) -> Result<()> {
    make_folder(folder)?;
    let mut script = Command::new("python3");
    packages::see_packages(&mut script, python);
    script.current_dir(&layout.root).args(["bench/data/bodies.py", "examples/bankchurn"]).arg(folder);
    output(
        &mut script,
        "check examples/bankchurn/request.json and features.py: the request bodies are made from them",
    )
    .map(drop)
}

/// Measures round by round, and within a round all targets in turn under each load, so that a slow
/// minute affects all of them.
fn measure(layout: &Layout, plan: &Plan, targets: &[Target], folder: &Path) -> Result<Vec<Cell>> {
    for target in targets {
        check(target, folder)?;
        load(layout, target, 10, 1, folder)?;
    }
    let mut cells = Vec::new();
    for round in 1..=plan.rounds {
        for connections in CONNECTIONS {
            for target in targets.iter().filter(|target| target.connections.contains(&connections)) {
                let measured = load(layout, target, connections, plan.seconds, folder);
                let cell = match measured {
                    // A peer that crashed is restarted; the report says so.
                    Err(error) if target.server.revive(folder)? => {
                        step(&format!("{}: {error}; restarted it", target.name));
                        load(layout, target, connections, plan.seconds, folder)?
                    }
                    measured => measured?,
                };
                step(&format!(
                    "round {round}/{}: {:>3} connections: {:<22} {:>7.0} requests/s, {:>6.1} us CPU per request, {} failed",
                    plan.rounds, connections, target.name, cell.requests_per_s, cell.cpu_us, cell.failed
                ));
                cells.push(cell);
            }
        }
    }
    Ok(cells)
}

/// Sends one request and checks that the answer is correct.
fn check(target: &Target, folder: &Path) -> Result<()> {
    if let Wire::Grpc { .. } = target.wire {
        // `grpc::ask` has checked the answer already, to get its length.
        return Ok(());
    }
    let body = body(target, folder);
    let body = std::fs::read(&body).attempting(|| format!("read {}", body.display()))?;
    let header = json_length(target.wire, &body);
    let answer = http::Connection::open(target.server.port)
        .and_then(|mut connection| connection.request_with("POST", target.path, header, &body))
        .attempting(|| format!("measure {}: POST {}", target.name, target.path))?;
    let text = String::from_utf8_lossy(&answer.body);
    if answer.status != 200 || !text.contains(target.expected) {
        let attempted = format!("{}: POST {}: {} {text}", target.name, target.path, answer.status);
        return Err(Error::new(
            attempted,
            format!("expected 200 and {:?}; the server's log is in {}", target.expected, folder.display()),
        ));
    }
    Ok(())
}

/// Returns the length of the JSON in a binary body, which ends with its only list of inputs. `None`
/// if the body is not binary.
fn json_length(wire: Wire, body: &[u8]) -> Option<usize> {
    let end = b"}]}";
    let start = body.windows(end.len()).position(|part| part == end).filter(|_| wire == Wire::Binary)?;
    Some(start + end.len())
}

fn load(layout: &Layout, target: &Target, connections: u32, seconds: u64, folder: &Path) -> Result<Cell> {
    let server = target.server;
    let probe = (server.port > 0).then(|| probe::Probe::start(server.port, server.health));
    let cpu_before = server.cpu()?;
    let body = body(target, folder);
    let done = match target.wire {
        Wire::Grpc { answer } => {
            grpc::run(server.grpc, "ModelInfer", [connections.into(), seconds], answer, &body, folder)?
        }
        Wire::Json | Wire::Binary => wrk::run(&wrk::Load {
            port: server.port,
            path: target.path,
            connections,
            seconds,
            script: &layout.root.join("bench/data/post.lua"),
            json_length: json_length(
                target.wire,
                &std::fs::read(&body).attempting(|| format!("read {}", body.display()))?,
            ),
            body: &body,
        })?,
    };
    let cpu: Duration = server.cpu()?.checked_sub(cpu_before).unwrap();
    let health = probe.map(probe::Probe::stop);
    Ok(Cell {
        target: target.name,
        connections,
        requests_per_s: done.requests as f64 / done.seconds,
        p50_us: done.p50_us,
        p99_us: done.p99_us,
        failed: done.failed,
        cpu_us: cpu.as_secs_f64() * 1e6 / done.requests.max(1) as f64,
        rss_mb: server.rss_mb()?,
        health_p99_us: health.as_ref().map_or(f64::NAN, |health| health.p99_us),
        health_failed: health.map_or(0, |health| health.failed),
    })
}

fn body(target: &Target, folder: &Path) -> PathBuf {
    folder.join(target.name).with_extension(target.wire.extension())
}
