//! `cargo xtask bench waits`: concurrent requests that wait in one instance, in Hostler and in the
//! decoupled asynchronous model of a real Triton, in turn in one run.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use super::report::spread;
use super::server::{self, Server};
use super::triton::REQUIREMENTS;
use super::wrk::Done;
use super::{Plan, grpc, machine, parse, plan_text, publish};
use xtask::command::{output, step};
use xtask::content::make_folder;
use xtask::error::{Attempt, Error, Result};
use xtask::layout::Layout;
use xtask::{onnxruntime, packages, plugin, serve, triton};

const MARKERS: [&str; 2] = ["<!-- waits:begin -->", "<!-- waits:end -->"];
const METHOD: &str = "ModelStreamInfer";
/// The value that each request asks for; its bytes occur nowhere else in an answer.
const VALUE: i32 = 0x5EED_CAFE_u32.cast_signed();
/// Numbers of concurrent calls that each send a thousand messages.
const CROWDS: [u32; 2] = [1, 10];
/// Number of concurrent calls that each send one message, which has many responses.
const STREAMS: u32 = 50;

/// The messages that one call sends, and the responses to each.
#[derive(Clone, Copy)]
struct Messages {
    count: u32,
    responses: u32,
    delay_ms: u32,
}

/// A thousand messages, because many clients use one call for all their requests.
const CROWD: Messages = Messages { count: 1000, responses: 1, delay_ms: 50 };
/// A delay long enough to measure memory while the requests wait.
const LONG: Messages = Messages { delay_ms: 4000, ..CROWD };
const STREAM: Messages = Messages { count: 1, responses: 20, delay_ms: 10 };
/// One response without a delay.
const FIRST: Messages = Messages { count: 1, responses: 1, delay_ms: 0 };

/// All calls of one round to one server.
struct Run {
    server: &'static str,
    calls: u32,
    all_ms: f64,
    cpu_us: f64,
}

pub fn waits(layout: &Layout, args: &[String]) -> Result<()> {
    let plan = parse(args)?;
    packages::debian_program_of("h2load", "nghttp2-client")?;
    let library = onnxruntime::library(layout)?;
    let python = packages::python_packages(layout, &layout.root.join(REQUIREMENTS))?;
    let program = triton::program(layout)?;
    plugin::build_all(layout, true)?;
    let binary = match &plan.hostler {
        Some(binary) => binary.clone(),
        None => serve::build_host(layout, true)?,
    };
    let folder = layout.target()?.join("bench");
    make_folder(&folder)?;
    let models = folder.join("waits-models");
    super::triton::streaming_model(layout, &models)?;
    let machine = machine::describe(layout, &binary, REQUIREMENTS, machine::busy_percent()?)?;
    let hostler = server::hostler(layout, "bench/data/waits.toml", &binary, &library, &folder)?;
    let peer = server::triton(&program, &models, &folder)?;
    let servers = [("triton", &peer), ("hostler", &hostler)];
    let bodies = |messages| write_bodies(layout, &python, &folder, messages);

    // Memory comes first, while the servers have not grown yet.
    bodies(LONG)?;
    let mut memory = Vec::new();
    for (name, server) in servers {
        let idle_mb = server.rss_mb()?;
        for calls in CROWDS {
            memory.push((name, calls, grown_kb(server, idle_mb, calls, &body(&folder, name))?));
        }
    }
    bodies(CROWD)?;
    let crowds = rounds(&plan, servers, &CROWDS, CROWD, &folder)?;
    bodies(STREAM)?;
    let streams = rounds(&plan, servers, &[STREAMS], STREAM, &folder)?;
    bodies(FIRST)?;
    let mut firsts = Vec::new();
    for (name, server) in servers {
        let body = body(&folder, name);
        let length = check(server, &body, FIRST, &folder)?;
        let done = grpc::run(server.grpc, METHOD, [1, plan.seconds], length, &body, &folder)?;
        if done.failed > 0 {
            return Err(Error::new(format!("{name}: {} streams with one response failed", done.failed), ""));
        }
        firsts.push((name, done));
    }
    let command = plan_text(&plan).replace("xtask bench", "xtask bench waits");
    let mut report = format!(
        "Command: `{command}`\n\n{machine}- h2load {}, one thread\n\
         - Triton is 2.51; its server and Python processes are summed\n\nMedian over the rounds (smallest to largest).\n\n",
        grpc::version()
    );
    report += &crowds_table(&crowds, &memory);
    report += &streams_table(&streams, &firsts);
    publish(layout, &plan, &layout.root.join("docs/measured/performance.md"), &MARKERS, &report)
}

/// Measures the servers in turn, so that a slow minute affects both.
fn rounds(
    plan: &Plan,
    servers: [(&'static str, &Server); 2],
    loads: &[u32],
    messages: Messages,
    folder: &Path,
) -> Result<Vec<Run>> {
    let mut lengths = Vec::new();
    for (name, server) in servers {
        // This is also the warm-up.
        lengths.push(check(server, &body(folder, name), messages, folder)?);
    }
    let mut runs = Vec::new();
    for round in 1..=plan.rounds {
        for calls in loads {
            for ((name, server), length) in servers.into_iter().zip(&lengths) {
                let cpu = server.cpu()?;
                let seconds = load(server, *calls, *length, &body(folder, name))?;
                let responses = f64::from(calls * messages.count * messages.responses);
                let cpu_us = server.cpu()?.checked_sub(cpu).unwrap().as_secs_f64() * 1e6 / responses;
                step(&format!("round {round}: {name}: {responses} responses in {seconds:.3} s"));
                runs.push(Run { server: name, calls: *calls, all_ms: seconds * 1e3, cpu_us });
            }
        }
    }
    Ok(runs)
}

fn body(folder: &Path, server: &str) -> PathBuf {
    folder.join(format!("waits-{server}.grpc"))
}

fn write_bodies(layout: &Layout, packages: &Path, folder: &Path, messages: Messages) -> Result<()> {
    let Messages { count, responses, delay_ms } = messages;
    let mut python = Command::new("python3");
    packages::see_packages(&mut python, packages);
    python.current_dir(&layout.root).arg("bench/data/waits_bodies.py").arg(folder);
    python.args([count, responses, delay_ms].map(|number| number.to_string())).arg(VALUE.to_string());
    output(&mut python, "").map(drop)
}

fn url(server: &Server) -> String {
    format!("http://127.0.0.1:{}/inference.GRPCInferenceService/{METHOD}", server.grpc)
}

const HEADERS: [&str; 2] = ["content-type: application/grpc", "te: trailers"];

/// Makes one call and checks each message of the answer. Returns the length of the answer in bytes.
fn check(server: &Server, body: &Path, messages: Messages, folder: &Path) -> Result<u64> {
    let answer = folder.join("waits-answer.grpc");
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--http2-prior-knowledge", "--max-time", "60"]);
    curl.args(HEADERS.iter().flat_map(|header| ["--header", header]));
    curl.arg("--data-binary").arg(format!("@{}", body.display()));
    output(curl.arg("--output").arg(&answer).arg(url(server)), "")?;
    let bytes = fs::read(&answer).attempting(|| format!("read {}", answer.display()))?;
    let expected = messages.count * messages.responses;
    match messages_with_value(&bytes) {
        Some(count) if count == expected as usize => Ok(bytes.len() as u64),
        found => Err(Error::new(
            format!("{}: expected {expected} correct messages, found {found:?}", url(server)),
            format!("the answer is in {}", answer.display()),
        )),
    }
}

/// Returns the number of messages. `None` if one of them lacks [`VALUE`] or is incomplete.
fn messages_with_value(mut bytes: &[u8]) -> Option<usize> {
    let mut count = 0;
    while let Some((head, rest)) = bytes.split_at_checked(5) {
        let length = u32::from_be_bytes(head[1..].try_into().ok()?) as usize;
        let (message, rest) = rest.split_at_checked(length)?;
        message.windows(4).position(|part| part == VALUE.to_le_bytes())?;
        (count, bytes) = (count + 1, rest);
    }
    bytes.is_empty().then_some(count)
}

fn h2load(server: &Server, calls: u32, body: &Path) -> Command {
    let calls = calls.to_string();
    let mut h2load = Command::new("h2load");
    h2load.args(["--threads", "1", "--clients", &calls, "--requests", &calls]);
    h2load.args(HEADERS.iter().flat_map(|header| ["--header", header]));
    h2load.arg("--data").arg(body).arg(url(server));
    h2load
}

/// Returns the seconds from the first connection to the last answer.
fn load(server: &Server, calls: u32, length: u64, body: &Path) -> Result<f64> {
    let text = output(&mut h2load(server, calls, body), "")?;
    let data = grpc::number_before(&text, ") data");
    let seconds = seconds(&text).filter(|_| data == Some(length * u64::from(calls)));
    seconds.ok_or_else(|| Error::new(format!("h2load: not all answers arrived completely:\n{text}"), ""))
}

/// Returns the seconds of `finished in 1.23s` or `finished in 98.76ms`.
fn seconds(text: &str) -> Option<f64> {
    let time = text.split_once("finished in ")?.1.split(',').next()?;
    match time.strip_suffix("ms") {
        Some(ms) => ms.parse::<f64>().ok().map(|ms| ms / 1e3),
        None => time.strip_suffix('s')?.parse().ok(),
    }
}

/// Returns by how many kilobytes the server has grown for each waiting request.
fn grown_kb(server: &Server, idle_mb: f64, calls: u32, body: &Path) -> Result<f64> {
    let mut command = h2load(server, calls, body);
    let mut child = command.stdout(Stdio::null()).spawn().attempting(|| "start h2load".to_owned())?;
    // By now all requests have arrived and none has ended.
    sleep(Duration::from_millis(u64::from(LONG.delay_ms) / 4 * 3));
    let grown = server.rss_mb().map(|rss| (rss - idle_mb) * 1024.0 / f64::from(calls * LONG.count));
    child.wait().attempting(|| "wait for h2load".to_owned())?;
    grown
}

fn of<'r>(runs: &'r [Run], server: &str, calls: u32) -> Vec<&'r Run> {
    runs.iter().filter(|run| run.calls == calls && run.server == server).collect()
}

fn crowds_table(runs: &[Run], memory: &[(&str, u32, f64)]) -> String {
    let mut text = format!(
        "Requests that each wait {} ms for one response, {} on each call:\n\n\
         | concurrent requests | server | all answered, ms | CPU us/request | memory, kB per waiting request |\n|---:|---|---:|---:|---:|\n",
        CROWD.delay_ms, CROWD.count
    );
    for crowd in CROWDS {
        for (server, calls, kb) in memory.iter().filter(|(_, calls, _)| *calls == crowd) {
            let own = of(runs, server, *calls);
            let all_ms = spread(&own, 0, |run| run.all_ms);
            let cpu_us = spread(&own, 0, |run| run.cpu_us);
            let _ = writeln!(text, "| {} | {server} | {all_ms} | {cpu_us} | {kb:.1} |", calls * CROWD.count);
        }
    }
    text
}

fn streams_table(runs: &[Run], firsts: &[(&str, Done)]) -> String {
    let mut text = format!(
        "\n{STREAMS} concurrent streams of {} responses, {} ms apart; and one stream after the other, each with one \
         immediate response:\n\n\
         | server | all {STREAMS} ended, ms | CPU us/response | stream with one response p50 ms | p99 ms |\n|---|---:|---:|---:|---:|\n",
        STREAM.responses, STREAM.delay_ms
    );
    for (server, first) in firsts {
        let own = of(runs, server, STREAMS);
        let all_ms = spread(&own, 0, |run| run.all_ms);
        let cpu_us = spread(&own, 0, |run| run.cpu_us);
        let [p50_ms, p99_ms] = [first.p50_us / 1e3, first.p99_us / 1e3];
        let _ = writeln!(text, "| {server} | {all_ms} | {cpu_us} | {p50_ms:.2} | {p99_ms:.2} |");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_without_the_value_is_no_answer() {
        let message = [[0, 0, 0, 0, 4].as_slice(), &VALUE.to_le_bytes()].concat();
        assert_eq!(messages_with_value(&message.repeat(3)), Some(3));
        assert_eq!(messages_with_value(&[0, 0, 0, 0, 4, 1, 2, 3, 4]), None);
        assert_eq!(messages_with_value(&message[..7]), None);
    }

    #[test]
    fn times_have_two_units() {
        assert_eq!(seconds("\nfinished in 1.25s, 2 req/s\n"), Some(1.25));
        assert_eq!(seconds("finished in 250.00ms, 2 req/s"), Some(0.25));
        assert_eq!(seconds("nothing"), None);
    }
}
