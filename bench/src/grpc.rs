//! Runs `h2load` against a gRPC method, and makes one call with Triton's own client to check the
//! answer. The load is a closed loop like that of `wrk`: each connection has one open call. This
//! module does not implement gRPC.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::wrk::Done;
use xtask::command::output;
use xtask::error::{Attempt, Error, Result};
use xtask::packages::see_packages;

/// Sends the message in each body to its port and returns the length of each answer in bytes. Fails
/// unless all answers contain the same numbers.
pub fn ask(root: &Path, packages: &Path, calls: &[(PathBuf, u16)]) -> Result<Vec<u64>> {
    let mut python = Command::new("python3");
    see_packages(&mut python, packages);
    python.current_dir(root).arg("bench/data/grpc_ask.py");
    for (body, port) in calls {
        python.arg(body).arg(port.to_string());
    }
    let text = output(&mut python, "the servers' logs are beside the bodies")?;
    let lengths: Vec<u64> = text.lines().filter_map(|line| line.parse().ok()).collect();
    match lengths.len() == calls.len() {
        true => Ok(lengths),
        false => Err(Error::new(format!("grpc_ask.py did not print a length for each call:\n{text}"), "")),
    }
}

/// Returns the version of h2load, as h2load prints it.
pub fn version() -> String {
    let text = output(Command::new("h2load").arg("--version"), "").unwrap_or_default();
    text.split_whitespace().last().unwrap_or("unknown").to_owned()
}

/// Runs a load of `[connections, seconds]` and parses the result. `answer` is the length of one
/// answer in bytes.
pub fn run(port: u16, method: &str, load: [u64; 2], answer: u64, body: &Path, folder: &Path) -> Result<Done> {
    let [connections, seconds] = load;
    let log = folder.join("h2load.log");
    let mut h2load = Command::new("h2load");
    h2load.args(["--threads", "1", "--clients", &connections.to_string()]);
    h2load.args(["--duration", &seconds.to_string(), "--max-concurrent-streams", "1"]);
    h2load.args(["--header", "content-type: application/grpc", "--header", "te: trailers"]);
    h2load.arg("--data").arg(body).arg(format!("--log-file={}", log.display()));
    h2load.arg(format!("http://127.0.0.1:{port}/inference.GRPCInferenceService/{method}"));
    // h2load appends to its log.
    drop(fs::remove_file(&log));
    let text = output(&mut h2load, "")?;
    let calls = fs::read_to_string(&log).attempting(|| format!("read {}", log.display()))?;
    parse(&text, &calls, seconds, answer)
        .ok_or_else(|| Error::new(format!("h2load: no calls, or unexpected output:\n{text}"), ""))
}

/// Parses the output and the log of h2load. A refused call is a 200 without a message: it is
/// visible only as too little data for the number of calls. The end of the run cuts off some calls,
/// which are neither done nor failed.
fn parse(text: &str, calls: &str, seconds: u64, answer: u64) -> Option<Done> {
    let mut times_us: Vec<f64> = Vec::new();
    let mut failed = 0;
    for call in calls.lines() {
        let mut fields = call.split('\t').skip(1);
        match fields.next()? {
            "200" => times_us.push(fields.next()?.parse().ok()?),
            _ => failed += 1,
        }
    }
    times_us.sort_by(f64::total_cmp);
    let at = |share: usize| times_us.get((times_us.len() * share).div_ceil(100).checked_sub(1)?).copied();
    let requests = times_us.len() as u64;
    let data: u64 = number_before(text, ") data")?;
    failed += requests.saturating_sub(data / answer);
    Some(Done { requests, seconds: seconds as f64, p50_us: at(50)?, p99_us: at(99)?, failed })
}

/// Returns the number between the last `(` before `mark` and `mark`.
pub(super) fn number_before(text: &str, mark: &str) -> Option<u64> {
    let before = &text[..text.find(mark)?];
    before[before.rfind('(')? + 1..].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_without_a_message_are_failures() {
        let text = |data: u64| {
            format!("traffic: 1KB (1000) total, 1B (17) headers (space savings 90%), 1KB ({data}) data\n")
        };
        let calls = "1\t200\t7\n2\t200\t9\n3\t503\t1\n";
        let expected = Done { requests: 2, seconds: 5.0, p50_us: 7.0, p99_us: 9.0, failed: 1 };
        assert_eq!(parse(&text(200), calls, 5, 100), Some(expected));
        assert_eq!(parse(&text(100), calls, 5, 100).map(|done| done.failed), Some(2));
        assert_eq!(parse(&text(0), "", 5, 100), None);
    }
}
