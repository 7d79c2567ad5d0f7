//! Runs `wrk` and parses its result. The load is a closed loop: each connection sends the next
//! request when it has received the answer.

use std::path::Path;
use std::process::Command;

use xtask::command::output;
use xtask::error::{Error, Result};

pub struct Load<'a> {
    pub port: u16,
    pub path: &'a str,
    pub connections: u32,
    pub seconds: u64,
    pub script: &'a Path,
    pub body: &'a Path,
    /// The length of the JSON in a binary body, in bytes.
    pub json_length: Option<usize>,
}

#[derive(Debug, PartialEq)]
pub struct Done {
    pub requests: u64,
    pub seconds: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub failed: u64,
}

pub fn run(load: &Load) -> Result<Done> {
    let mut wrk = Command::new("wrk");
    // The generator shares the machine with the server, and one thread is faster than any server
    // here.
    wrk.args(["--threads", "1", "--timeout", "10s"]);
    wrk.args(["--connections", &load.connections.to_string(), "--duration", &format!("{}s", load.seconds)]);
    wrk.arg("--script").arg(load.script).arg(format!("http://127.0.0.1:{}{}", load.port, load.path));
    wrk.arg("--").arg(load.body).args(load.json_length.map(|length| length.to_string()));
    let text = output(&mut wrk, "")?;
    parse(&text)
        .ok_or_else(|| Error::new(format!("wrk did not print the RESULT line of post.lua:\n{text}"), ""))
}

fn parse(text: &str) -> Option<Done> {
    let line = text.lines().find_map(|line| line.strip_prefix("RESULT "))?;
    let field = |name: &str| {
        let mut pairs = line.split(' ').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name)?.1.parse::<u64>().ok()
    };
    Some(Done {
        requests: field("requests")?,
        seconds: field("duration_us")? as f64 / 1e6,
        p50_us: field("p50_us")? as f64,
        p99_us: field("p99_us")? as f64,
        failed: field("status")? + field("socket")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_line_is_found_among_other_output() {
        let text =
            "Running 5s test\nRESULT requests=20 duration_us=5000000 p50_us=7 p99_us=9 status=1 socket=2\n";
        let expected = Done { requests: 20, seconds: 5.0, p50_us: 7.0, p99_us: 9.0, failed: 3 };
        assert_eq!(parse(text), Some(expected));
        assert_eq!(parse("Running 5s test\n"), None);
        assert_eq!(parse("RESULT requests=20\n"), None);
    }
}
