//! `cargo xtask bench protocol`: users with think time call a model that computes for 100 ms, while
//! an orchestrator's probes run. Hostler, FastAPI that computes on its event loop, and FastAPI with
//! a thread pool get the same three loads.

use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use super::REQUIREMENTS;
use super::http::Connection;
use super::machine;
use super::probe::Probe;
use super::report;
use super::server::{self, Server};
use xtask::command::step;
use xtask::content::make_folder;
use xtask::error::{Attempt, Error, Result};
use xtask::layout::Layout;
use xtask::{onnxruntime, packages, serve};

const USERS: [usize; 3] = [6, 50, 100];
/// The mix of requests: five of seven are predictions, one is /health and one /metrics.
const MIX: [&str; 7] = ["/predict", "/predict", "/predict", "/predict", "/predict", "/health", "/metrics"];
const THINK_MS: (u64, u64) = (500, 2000);
const COMPUTE: Duration = Duration::from_millis(100);
const USAGE: &str = "bench protocol [--seconds N] [--quick]";
const MARKERS: [&str; 2] = ["<!-- protocol:begin -->", "<!-- protocol:end -->"];

/// The result of one server under one load.
struct Row {
    target: &'static str,
    users: usize,
    predictions: Times,
    health: Times,
    metrics: Times,
    probe_p99_ms: f64,
    failed: usize,
    requests: usize,
}

/// Milliseconds, sorted.
struct Times(Vec<f64>);

impl Times {
    fn of(answers: &[Answer], path: &str) -> Times {
        let mut times: Vec<f64> = answers
            .iter()
            .filter(|answer| answer.path == path && answer.ok)
            .map(|answer| answer.ms)
            .collect();
        times.sort_by(f64::total_cmp);
        Times(times)
    }

    fn at(&self, share: f64) -> f64 {
        let place = (self.0.len() as f64 * share).ceil() as usize;
        self.0.get(place.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }
}

struct Answer {
    path: &'static str,
    ms: f64,
    ok: bool,
}

pub fn protocol(layout: &Layout, args: &[String]) -> Result<()> {
    let (mut seconds, mut quick) = (20, false);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--seconds" => seconds = super::number(arg, args.next())?,
            "--quick" => (seconds, quick) = (3, true),
            _ => return Err(Error::new(format!("bench protocol: unexpected argument {arg:?}"), USAGE)),
        }
    }
    let library = onnxruntime::library(layout)?;
    let python = packages::python_packages(layout, &layout.root.join(REQUIREMENTS))?;
    let binary = serve::build_host(layout, true)?;
    let folder = layout.target()?.join("bench");
    make_folder(&folder)?;
    let busy_percent = machine::busy_percent()?;
    let fastapi = |mode| {
        let (app, model) = ("protocol_app", "tests/models/loop.onnx");
        server::fastapi(layout, &python, &folder, app, &[("BENCH_MODEL", model), ("PROTOCOL_MODE", mode)])
    };
    let manifest = "bench/data/protocol.toml";
    let targets = [
        ("FastAPI, blocking", fastapi("blocking")?),
        ("FastAPI, pool of 4", fastapi("pool")?),
        ("Hostler", server::hostler(layout, manifest, &binary, &library, &folder)?),
    ];
    let body = calibrated(&targets[2].1)?;
    let mut rows = Vec::new();
    for users in USERS {
        for (target, server) in &targets {
            let row = load(target, server, users, Duration::from_secs(seconds), &body);
            step(&format!("{users:>3} users: {target}: {} requests, {} failed", row.requests, row.failed));
            rows.push(row);
        }
    }
    let machine = machine::describe(layout, &binary, REQUIREMENTS, busy_percent)?;
    let text = table(&format!("cargo xtask bench protocol --seconds {seconds}"), &machine, &rows);
    println!("{text}");
    if !quick {
        report::write(&layout.root.join("docs/measured/performance.md"), &MARKERS, &text)?;
    }
    Ok(())
}

/// Returns the body of a prediction that computes for about [`COMPUTE`] if nothing else runs.
fn calibrated(server: &Server) -> Result<Vec<u8>> {
    const SAMPLE: u64 = 20_000;
    let body = |rounds: u64| format!("{{\"model\": \"slow\", \"data\": {{\"n\": [{rounds}]}}}}").into_bytes();
    let mut connection = Connection::open(server.port).attempting(|| "connect to hostler".to_owned())?;
    let mut fastest = Duration::MAX;
    for _ in 0..7 {
        let start = Instant::now();
        let answer = connection.request("POST", "/predict", &body(SAMPLE));
        let answer = answer.attempting(|| "POST /predict".to_owned())?;
        if answer.status != 200 {
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            return Err(Error::new(format!("POST /predict: {} {text}", answer.status), ""));
        }
        fastest = fastest.min(start.elapsed());
    }
    Ok(body((COMPUTE.as_secs_f64() / fastest.as_secs_f64() * SAMPLE as f64) as u64))
}

fn load(target: &'static str, server: &Server, users: usize, time: Duration, body: &[u8]) -> Row {
    let (answers, stop) = (Mutex::new(Vec::new()), AtomicBool::new(false));
    let (port, probe) = (server.port, Probe::start(server.port, server.health));
    scope(|scope| {
        for user in 0..users {
            let (answers, stop) = (&answers, &stop);
            scope.spawn(move || {
                let own = live(port, user as u64, body, stop);
                answers.lock().expect("invariant: no user panics").extend(own);
            });
        }
        sleep(time);
        stop.store(true, Ordering::Relaxed);
    });
    let probe = probe.stop();
    let answers = answers.into_inner().expect("invariant: no user panics");
    Row {
        target,
        users,
        predictions: Times::of(&answers, "/predict"),
        health: Times::of(&answers, "/health"),
        metrics: Times::of(&answers, "/metrics"),
        probe_p99_ms: probe.p99_us / 1e3,
        failed: answers.iter().filter(|answer| !answer.ok).count() + probe.failed as usize,
        requests: answers.len(),
    }
}

/// Runs one user: it sends a request, thinks, and repeats until `stop` is set. Waits for the last
/// answer.
fn live(port: u16, user: u64, body: &[u8], stop: &AtomicBool) -> Vec<Answer> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ (user + 1).wrapping_mul(0xbf58_476d_1ce4_e5b9));
    let (mut answers, mut connection) = (Vec::new(), None);
    // Users start at different moments.
    pause(random.up_to(THINK_MS.1), stop);
    while !stop.load(Ordering::Relaxed) {
        let path = MIX[random.up_to(MIX.len() as u64 - 1) as usize];
        let start = Instant::now();
        if connection.is_none() {
            connection = Connection::open(port).ok();
        }
        let (method, body) = if path == "/predict" { ("POST", body) } else { ("GET", &b""[..]) };
        let answer = connection.as_mut().and_then(|open| open.request(method, path, body).ok());
        let ok = answer.is_some_and(|answer| answer.status == 200);
        answers.push(Answer { path, ms: start.elapsed().as_secs_f64() * 1e3, ok });
        if !ok {
            connection = None;
        }
        pause(THINK_MS.0 + random.up_to(THINK_MS.1 - THINK_MS.0), stop);
    }
    answers
}

fn pause(ms: u64, stop: &AtomicBool) {
    let end = Instant::now() + Duration::from_millis(ms);
    while !stop.load(Ordering::Relaxed) && Instant::now() < end {
        sleep(Duration::from_millis(20).min(end - Instant::now().min(end)));
    }
}

/// A fixed pseudo-random sequence (xorshift), so that users behave the same in every run.
struct Random(u64);

impl Random {
    /// Returns a number from 0 to `most`, inclusive.
    fn up_to(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % (most + 1)
    }
}

fn table(command: &str, machine: &str, rows: &[Row]) -> String {
    let mut text = format!("Command: `{command}`\n\n{machine}\n");
    text += "| users | server | requests | failed | predict p50 ms | p95 ms | /health p99 ms | /metrics p99 ms | probe p99 ms |\n";
    text += "|---:|---|---:|---:|---:|---:|---:|---:|---:|\n";
    for row in rows {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {:.0} | {:.0} | {:.1} | {:.1} | {:.1} |",
            row.users,
            row.target,
            row.requests,
            row.failed,
            row.predictions.at(0.5),
            row.predictions.at(0.95),
            row.health.at(0.99),
            row.metrics.at(0.99),
            row.probe_p99_ms,
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_of_good_answers_to_one_path() {
        let answer = |path, ms, ok| Answer { path, ms, ok };
        let answers = [
            answer("/a", 3.0, true),
            answer("/a", 1.0, true),
            answer("/a", 9.0, false),
            answer("/b", 5.0, true),
        ];
        let times = Times::of(&answers, "/a");
        assert_eq!((times.at(0.5), times.at(0.99)), (1.0, 3.0));
    }

    #[test]
    fn users_differ_and_stay_in_their_bounds() {
        let mut random = Random(7);
        let seen: Vec<u64> = (0..100).map(|_| random.up_to(6)).collect();
        assert!(seen.iter().all(|value| *value <= 6) && (0..=6).all(|value| seen.contains(&value)));
    }
}
