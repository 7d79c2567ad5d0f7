//! Formats cells as Markdown: medians over the rounds with the smallest and the largest value, and
//! ratios per round. Does not change the manually written parts of the page.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use super::Cell;
use xtask::content;
use xtask::error::{Error, Result};

/// The lines around the tables in the page.
pub const MARKERS: [&str; 2] = ["<!-- bench:begin -->", "<!-- bench:end -->"];
const PEER: &str = "fastapi";

/// The initial content of the page; later runs replace only the text between the markers.
const PAGE: &str = "\
# Performance

`cargo xtask bench` measures Hostler and FastAPI with uvicorn on one machine, in one interleaved
run. Both serve the same ONNX model (`examples/bankchurn/model.onnx`), with one row per request.

- `fastapi`: one process with uvloop and httptools, a pool of four threads that run ONNX Runtime
  with one thread each, pydantic models, no access log. Requests contain ready-made floats.
- `plain`: Hostler with the model alone. Requests contain the same floats.
- `fresh`, `reused`: Hostler with a WebAssembly plugin (Rust) before and after the model. Requests
  contain a customer's record. `fresh` uses a new instance for each request, `reused` pooled instances.
- `python-…`, `js-…`: the same plugin written in Python and in JavaScript.

The servers, the load generator (`wrk`, one thread, closed loop) and the `/health` probe (one
request every 10 ms on its own connection) share the machine, so the ratios are more reliable than
the times. CPU per request is the server's user and system time during the run, with that of the
probes, divided by the number of responses that `wrk` counted. All Hostler rows come from one
process and share its memory.
";

pub fn report(command: &str, machine: &str, cells: &[Cell]) -> String {
    let mut text =
        format!("Command: `{command}`\n\n{machine}\nMedian over the rounds (smallest to largest).\n\n");
    text += "| connections | target | requests/s | p50 ms | p99 ms | failed | CPU us/request | RSS MB | /health p99 ms |\n";
    text += "|---:|---|---:|---:|---:|---:|---:|---:|---:|\n";
    for (connections, target) in groups(cells) {
        let rounds = select(cells, connections, target);
        let failed: u64 = rounds.iter().map(|cell| cell.failed + cell.health_failed).sum();
        let _ = writeln!(
            text,
            "| {connections} | {target} | {} | {} | {} | {failed} | {} | {} | {} |",
            spread(&rounds, 0, |cell| cell.requests_per_s),
            spread(&rounds, 2, |cell| cell.p50_us / 1e3),
            spread(&rounds, 2, |cell| cell.p99_us / 1e3),
            spread(&rounds, 1, |cell| cell.cpu_us),
            spread(&rounds, 0, |cell| cell.rss_mb),
            spread(&rounds, 2, |cell| cell.health_p99_us / 1e3),
        );
    }
    text += "\nTimes better than FastAPI in the same round:\n\n";
    text += "| connections | target | CPU per request | requests/s |\n|---:|---|---:|---:|\n";
    for (connections, target) in groups(cells).into_iter().filter(|(_, target)| *target != PEER) {
        let peer = select(cells, connections, PEER);
        let rounds: Vec<_> = select(cells, connections, target).into_iter().zip(peer).collect();
        let cpu = spread(&rounds, 1, |(cell, peer)| peer.cpu_us / cell.cpu_us);
        let rate = spread(&rounds, 1, |(cell, peer)| cell.requests_per_s / peer.requests_per_s);
        let _ = writeln!(text, "| {connections} | {target} | {cpu} | {rate} |");
    }
    text
}

/// Returns the rows of the table, in the order in which they were first measured.
fn groups(cells: &[Cell]) -> Vec<(u32, &'static str)> {
    let mut groups = Vec::new();
    for group in cells.iter().map(|cell| (cell.connections, cell.target)) {
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    groups
}

/// Returns one cell per round.
pub fn select<'a>(cells: &'a [Cell], connections: u32, target: &str) -> Vec<&'a Cell> {
    cells.iter().filter(|cell| cell.connections == connections && cell.target == target).collect()
}

/// Formats values as `median (smallest–largest)`, or as the median alone if there was one round.
pub fn spread<T>(rounds: &[T], digits: usize, value: impl Fn(&T) -> f64) -> String {
    let mut values: Vec<_> = rounds.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    match values[..] {
        [] => "-".to_owned(),
        [one] => format!("{one:.digits$}"),
        [min, .., max] => {
            let median = f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2]);
            format!("{median:.digits$} ({min:.digits$}–{max:.digits$})")
        }
    }
}

/// Replaces the text between the markers in `page`. Creates the page if it does not exist.
pub fn write(page: &Path, markers: &[&str; 2], report: &str) -> Result<()> {
    let [begin, end] = markers;
    let old = fs::read_to_string(page).unwrap_or_else(|_| format!("{PAGE}\n{begin}\n{end}\n"));
    let new = between(markers, &old, report).ok_or_else(|| {
        Error::new(
            format!("cannot update {}: it has no lines {begin} and {end}", page.display()),
            "add both lines where the tables belong",
        )
    })?;
    content::write(page, new.as_bytes())
}

fn between([begin, end]: &[&str; 2], page: &str, report: &str) -> Option<String> {
    let (before, rest) = page.split_once(begin)?;
    let (_, after) = rest.split_once(end)?;
    Some(format!("{before}{begin}\n{report}{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_shows_median_and_extremes() {
        let cases: [(&[f64], &str); 4] = [
            (&[], "-"),
            (&[2.0], "2.0"),
            (&[3.0, 1.0], "2.0 (1.0–3.0)"),
            (&[9.0, 1.0, 2.0], "2.0 (1.0–9.0)"),
        ];
        for (values, expected) in cases {
            assert_eq!(spread(values, 1, |value| *value), expected);
        }
    }

    #[test]
    fn only_what_is_between_the_markers_is_replaced() {
        let [begin, end] = MARKERS;
        let page = |text: &str| format!("# A\n{begin}\n{text}\n{end}\nrest\n");
        assert_eq!(between(&MARKERS, &page("old"), "new\n"), Some(page("new")));
        assert_eq!(between(&MARKERS, "# A\n", "new\n"), None);
    }
}
