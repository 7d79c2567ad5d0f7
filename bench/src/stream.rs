//! Calls a streaming model of Triton directly and through Hostler in turn, and compares the times
//! until the first response and between responses. `bench/data/stream_gap.py` is the client and
//! measures them.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::server::{self, Server};
use xtask::command::{output, step};
use xtask::error::{Attempt, Error, Result};
use xtask::layout::Layout;
use xtask::packages::see_packages;

const STREAMS: u32 = 100;
/// The name of the model in Triton and in Hostler.
pub const MODEL: &str = "repeat";

/// Runs the streams and returns a description and a table. `binary` is the program of Hostler.
pub fn compare(
    layout: &Layout,
    packages: &Path,
    triton: &Server,
    [binary, library, folder]: [&Path; 3],
) -> Result<String> {
    let manifest = folder.join("stream.toml");
    let text = format!(
        "[executors.remote]\nkind = \"triton\"\nurl = \"127.0.0.1:{}\"\n\n[models.{MODEL}]\nremote = {{ name = \"{MODEL}\" }}\n",
        triton.grpc
    );
    fs::write(&manifest, text).attempting(|| format!("write {}", manifest.display()))?;
    let hostler = server::hostler(layout, &manifest.display().to_string(), binary, library, folder)?;
    step(&format!("run {STREAMS} streams on each server"));
    let mut python = Command::new("python3");
    see_packages(&mut python, packages);
    python.current_dir(&layout.root).arg("bench/data/stream_gap.py");
    python.args([triton.grpc.to_string(), hostler.grpc.to_string(), STREAMS.to_string()]);
    let text = output(&mut python, "the servers' logs are in target/bench")?;
    table(&text).ok_or_else(|| Error::new(format!("stream_gap.py printed unexpected output:\n{text}"), ""))
}

fn table(text: &str) -> Option<String> {
    let times_ms = |server: &str, kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{server} {kind} ")))?;
        let (p50, p99) = line.split_once(' ')?;
        Some([p50.parse::<f64>().ok()? / 1e3, p99.parse::<f64>().ok()? / 1e3])
    };
    let mut table = format!(
        "{STREAMS} streams of ten responses, 5 ms apart, to each server in turn, over gRPC with tritonclient.\n\n\
         | time until | Triton p50 ms | through Hostler | added | Triton p99 ms | through Hostler | added |\n\
         |---|---:|---:|---:|---:|---:|---:|\n"
    );
    for (kind, name) in [("first", "first response"), ("gap", "next response")] {
        let ([p50, p99], [through_p50, through_p99]) =
            (times_ms("direct", kind)?, times_ms("hostler", kind)?);
        let _ = writeln!(
            table,
            "| {name} | {p50:.2} | {through_p50:.2} | {:.2} | {p99:.2} | {through_p99:.2} | {:.2} |",
            through_p50 - p50,
            through_p99 - p99
        );
    }
    Some(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_difference_is_shown() {
        let text =
            "direct first 5000 6000\ndirect gap 5000 7000\nhostler first 5500 6100\nhostler gap 4900 7000\n";
        let table = table(text).unwrap();
        assert!(table.contains("| first response | 5.00 | 5.50 | 0.50 | 6.00 | 6.10 | 0.10 |"), "{table}");
        assert!(table.contains("| next response | 5.00 | 4.90 | -0.10 | 7.00 | 7.00 | 0.00 |"), "{table}");
        assert!(super::table("direct first 1 2\n").is_none());
    }
}
