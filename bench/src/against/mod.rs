//! `cargo xtask bench --against BINARY`: compares two builds of hostler in one run, pair by pair. A
//! second server of the earlier build runs too and is paired in the same way (A/A): it shows by how
//! much two servers of one build differ on this machine.

use std::fmt::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::paired::{self, Interval};
use crate::server::{self, Server};
use crate::{Cell, PREDICT, Target, Wire, grpc, load, machine, number, report, write_bodies};
use xtask::command::{output, step};
use xtask::error::{Attempt, Error, Result};
use xtask::layout::Layout;
use xtask::{clients, onnxruntime, packages, plugin, serve};

const USAGE: &str =
    "bench --against BINARY [--seconds N] [--rounds PAIRS] [--only ROW] [--quick] [--hostler PATH]";
const MARKERS: [&str; 2] = ["<!-- against:begin -->", "<!-- against:end -->"];
const MANIFEST: &str = "bench/data/against.toml";
const CONNECTIONS: u32 = 100;
/// With fewer pairs, the interval is wider than the differences to be detected.
const PAIRS_MIN: usize = 20;

/// The requests to each server: the model, which gives the row its name, and part of a correct
/// answer.
struct Row {
    name: &'static str,
    expected: &'static str,
    grpc: bool,
}

const ROWS: [Row; 8] = [
    Row { name: "plain", expected: "probabilities", grpc: false },
    Row { name: "reused", expected: "churn", grpc: false },
    Row { name: "fresh", expected: "churn", grpc: false },
    Row { name: "batched", expected: "churn", grpc: false },
    Row { name: "passed", expected: "churn", grpc: false },
    Row { name: "calls-shared", expected: "\"y\"", grpc: false },
    Row { name: "waits", expected: "OUT", grpc: false },
    Row { name: "plain-grpc", expected: "", grpc: true },
];

struct Options {
    /// The earlier build.
    binary: PathBuf,
    /// The later build. `None` builds this repository's.
    hostler: Option<PathBuf>,
    seconds: u64,
    pairs: usize,
    quick: bool,
    only: Option<String>,
}

/// Three servers that run at the same time: the earlier build twice, and the later build.
struct Servers {
    before: Server,
    again: Server,
    after: Server,
}

/// The results of all pairs of one row.
struct Measured {
    row: &'static str,
    before: Vec<Cell>,
    after: Vec<Cell>,
    /// The cost of the later build relative to the earlier one, for each pair.
    change: Vec<Cost>,
    /// The cost of the earlier build's second server relative to its first, for each pair.
    same: Vec<Cost>,
    /// Failed requests: to both servers of the earlier build, and to the later build.
    failed: [u64; 2],
    /// Resident memory after the last pair, in MB: both servers of the earlier build, and the later
    /// build.
    rss_mb: [f64; 3],
}

/// The cost of one server relative to another, its base; above 1, it costs more than its base.
#[derive(Clone, Copy)]
struct Cost {
    cpu: f64,
    /// Time between two answers: the inverse of requests/s.
    time: f64,
}

impl Cost {
    fn of(cell: &Cell, base: &Cell) -> Cost {
        Cost { cpu: cell.cpu_us / base.cpu_us, time: base.requests_per_s / cell.requests_per_s }
    }
}

pub fn against(layout: &Layout, args: &[String]) -> Result<()> {
    let options = parse(args)?;
    check_program(&options.binary)?;
    let built = layout.target()?.join("release/hostler");
    if options.hostler.is_none() && same_file(&options.binary, &built) {
        return Err(Error::new(
            format!("bench: --against {}: the later build would overwrite it", options.binary.display()),
            "copy the earlier build to another path before you change the source",
        ));
    }
    packages::debian_program("wrk")?;
    packages::debian_program_of("h2load", "nghttp2-client")?;
    let library = onnxruntime::library(layout)?;
    let python = clients::packages(layout)?;
    plugin::build_all(layout, true)?;
    let later = match &options.hostler {
        Some(path) => path.clone(),
        None => serve::build_host(layout, true)?,
    };
    let folder = layout.target()?.join("bench");
    write_bodies(layout, &python, &folder)?;
    let mut script = Command::new("python3");
    packages::see_packages(&mut script, &python);
    output(script.current_dir(&layout.root).arg("bench/data/grpc_bodies.py").arg(&folder), "")?;
    let busy_percent = machine::busy_percent()?;
    machine::warn_if_busy(busy_percent);
    let start =
        |name, binary: &Path| server::hostler_named(layout, name, MANIFEST, [binary, &library, &folder]);
    let servers = Servers {
        before: start("hostler-before", &options.binary)?,
        again: start("hostler-again", &options.binary)?,
        after: start("hostler-after", &later)?,
    };
    let rows = ROWS.iter().filter(|row| options.only.as_ref().is_none_or(|only| only == row.name));
    let rows: Vec<_> =
        rows.map(|row| targets(layout, &python, &folder, row, &servers)).collect::<Result<_>>()?;
    let measured = measure(layout, &options, &rows, &folder)?;

    let mut machine = machine::describe(layout, &later, clients::REQUIREMENTS, busy_percent)?;
    let builds = [("before", &options.binary), ("after", &later)];
    for (name, binary) in builds {
        let _ = writeln!(machine, "- {name}: {}", machine::build(binary)?);
    }
    let text = report(&options, &machine, &measured);
    println!("{text}");
    if !options.quick && options.only.is_none() {
        report::write(&layout.root.join("docs/measured/performance.md"), &MARKERS, &text)?;
    }
    verdict(&options, &measured)
}

fn parse(args: &[String]) -> Result<Options> {
    let (mut binary, mut hostler, mut only) = (None, None, None);
    let (mut seconds, mut pairs, mut quick) = (None, None, false);
    let mut args = args.iter();
    let path = |arg: &str, value: Option<&String>| {
        let path = value.ok_or_else(|| Error::new(format!("bench: {arg} needs a path"), USAGE))?;
        std::path::absolute(path).attempting(|| format!("use {arg} {path}"))
    };
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--against" => binary = Some(path(arg, args.next())?),
            "--hostler" => hostler = Some(path(arg, args.next())?),
            "--seconds" => seconds = Some(number(arg, args.next())?),
            "--rounds" => pairs = Some(number(arg, args.next())? as usize),
            "--only" => only = args.next().cloned().or(Some(String::new())),
            "--quick" => quick = true,
            _ => {
                return Err(Error::new(format!("bench: unexpected argument {arg:?} with --against"), USAGE));
            }
        }
    }
    let binary = binary.ok_or_else(|| Error::new("bench: --against needs a path", USAGE))?;
    if let Some(only) = &only
        && !ROWS.iter().any(|row| row.name == only)
    {
        let names = ROWS.map(|row| row.name).join(", ");
        return Err(Error::new(format!("bench: --only {only:?}: unknown row"), format!("rows: {names}")));
    }
    let pairs = pairs.unwrap_or(if quick { 2 } else { PAIRS_MIN });
    if pairs < PAIRS_MIN && !quick {
        return Err(Error::new(
            format!(
                "bench: --rounds {pairs}: fewer than {PAIRS_MIN} pairs cannot distinguish 3 % from noise"
            ),
            format!("use {PAIRS_MIN} or more, or add --quick to check only that everything works"),
        ));
    }
    let seconds = seconds.unwrap_or(if quick { 1 } else { 2 });
    Ok(Options { binary, hostler, seconds, pairs, quick, only })
}

/// Rejects a path that is not a program, before anything is built.
fn check_program(path: &Path) -> Result<()> {
    let refused = |why: &str| {
        let fix = "pass the path of an earlier build of hostler, such as a copy of target/release/hostler";
        Err(Error::new(format!("bench: --against {}: {why}", path.display()), fix))
    };
    match std::fs::metadata(path) {
        Err(cause) => refused(&cause.to_string()),
        Ok(file) if !file.is_file() => refused("it is not a file"),
        Ok(file) if file.permissions().mode() & 0o111 == 0 => refused("it is not executable"),
        Ok(_) => Ok(()),
    }
}

fn same_file(a: &Path, b: &Path) -> bool {
    a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b))
}

/// Returns one row's target for each of the servers. Each has returned the correct answer and has
/// been warmed up by a short load.
fn targets<'a>(
    layout: &Layout,
    python: &Path,
    folder: &Path,
    row: &'static Row,
    servers: &'a Servers,
) -> Result<[Target<'a>; 3]> {
    let servers = [&servers.before, &servers.again, &servers.after];
    let mut wires = [Wire::Json; 3];
    if row.grpc {
        let body = folder.join(row.name).with_extension("grpc");
        let calls = servers.map(|server| (body.clone(), server.grpc));
        for (wire, answer) in wires.iter_mut().zip(grpc::ask(&layout.root, python, &calls)?) {
            *wire = Wire::Grpc { answer };
        }
    }
    let mut wires = wires.into_iter();
    let targets = servers.map(|server| Target {
        name: row.name,
        server,
        expected: row.expected,
        path: PREDICT,
        wire: wires.next().unwrap_or(Wire::Json),
        connections: &[CONNECTIONS],
    });
    for (name, target) in ["before", "before, second server", "after"].iter().zip(&targets) {
        let warmed = crate::check(target, folder).and_then(|()| load(layout, target, 10, 1, folder));
        warmed.attempting(|| format!("warm up the build {name}"))?;
    }
    Ok(targets)
}

/// Measures pair by pair, and in each pair row by row, so that a slow minute affects all rows.
fn measure(layout: &Layout, options: &Options, rows: &[[Target; 3]], folder: &Path) -> Result<Vec<Measured>> {
    let measure = |target: &Target| {
        let cell = load(layout, target, CONNECTIONS, options.seconds, folder)?;
        match cell.requests_per_s > 0.0 && cell.cpu_us > 0.0 {
            true => Ok(cell),
            false => Err(Error::new(format!("{}: no answer within {} s", target.name, options.seconds), "")),
        }
    };
    let mut all: Vec<Measured> = rows.iter().map(|[target, ..]| Measured::new(target.name)).collect();
    for pair in 0..options.pairs {
        for ([before, again, after], measured) in rows.iter().zip(&mut all) {
            // A B, then B A: drift over time affects both equally.
            let in_turn = |first: &Target, second: &Target| {
                if pair % 2 == 0 {
                    let first = measure(first)?;
                    Ok((first, measure(second)?))
                } else {
                    let second = measure(second)?;
                    Ok((measure(first)?, second))
                }
            };
            let change: (Cell, Cell) = in_turn(before, after)?;
            let same: (Cell, Cell) = in_turn(before, again)?;
            measured.add(change, same);
            step(&format!("pair {}/{}: {}", pair + 1, options.pairs, measured.last()));
        }
    }
    Ok(all)
}

impl Measured {
    fn new(row: &'static str) -> Measured {
        let (before, after, change, same) = Default::default();
        Measured { row, before, after, change, same, failed: [0, 0], rss_mb: [0.0; 3] }
    }

    fn add(&mut self, (before, after): (Cell, Cell), same: (Cell, Cell)) {
        let failed = |cell: &Cell| cell.failed + cell.health_failed;
        self.change.push(Cost::of(&after, &before));
        self.same.push(Cost::of(&same.1, &same.0));
        self.failed[0] += failed(&before) + failed(&same.0) + failed(&same.1);
        self.failed[1] += failed(&after);
        self.rss_mb = [same.0.rss_mb, same.1.rss_mb, after.rss_mb];
        self.before.push(before);
        self.after.push(after);
    }

    fn last(&self) -> String {
        let cpu = |costs: &[Cost]| costs.last().map_or(f64::NAN, |cost| cost.cpu);
        format!("{:<10} CPU {:.3}, A/A {:.3}", self.row, cpu(&self.change), cpu(&self.same))
    }

    /// Returns the judged measures, each with its name, its values before and after, and its costs.
    fn measures(&self) -> [Measure; 2] {
        let median = |cells: &[Cell], value: fn(&Cell) -> f64| {
            paired::median(&cells.iter().map(value).collect::<Vec<_>>())
        };
        let costs = |costs: &[Cost], value: fn(&Cost) -> f64| costs.iter().map(value).collect::<Vec<_>>();
        let measure = |name, digits, value: fn(&Cell) -> f64, cost: fn(&Cost) -> f64| Measure {
            name,
            digits,
            values: [median(&self.before, value), median(&self.after, value)],
            change: costs(&self.change, cost),
            same: costs(&self.same, cost),
        };
        [
            measure("CPU us/request", 1, |cell| cell.cpu_us, |cost| cost.cpu),
            measure("requests/s", 0, |cell| cell.requests_per_s, |cost| cost.time),
        ]
    }
}

struct Measure {
    name: &'static str,
    digits: usize,
    values: [f64; 2],
    change: Vec<f64>,
    same: Vec<f64>,
}

impl Measure {
    /// Returns whether the cost is within the tolerance, and the verdict in words. `None` if there
    /// are too few pairs.
    fn verdict(&self) -> Option<(bool, &'static str)> {
        let (change, same) = (paired::interval(&self.change)?, paired::interval(&self.same)?);
        Some(match paired::within(change, same) {
            true if change.high <= paired::TOLERANCE => (true, "within 3 %"),
            true => (true, "within A/A"),
            false => (false, "over 3 %"),
        })
    }
}

fn report(options: &Options, machine: &str, measured: &[Measured]) -> String {
    let mut text = format!(
        "Command: `cargo xtask bench --against BINARY --seconds {} --rounds {}`\n\n{machine}\n\
         Medians of {} pairs, {CONNECTIONS} connections. Costs are ratios of each pair (CPU after : before, requests/s\n\
         before : after; above 1, the later build costs more) with the 95 % interval of their median.\n\n",
        options.seconds, options.pairs, options.pairs
    );
    text += "| target | measure | before | after | cost | cost of A/A | failed | verdict |\n";
    text += "|---|---|---:|---:|---:|---:|---:|---|\n";
    for row in measured {
        for measure in row.measures() {
            let (name, digits, [before, after]) = (measure.name, measure.digits, measure.values);
            let verdict = match measure.verdict() {
                _ if row.failed[1] > row.failed[0] => "requests failed",
                Some((_, words)) => words,
                None => "too few pairs",
            };
            let _ = writeln!(
                text,
                "| {} | {name} | {before:.digits$} | {after:.digits$} | {} | {} | {} | {verdict} |",
                row.row,
                shown(&measure.change),
                shown(&measure.same),
                row.failed[0] + row.failed[1],
            );
        }
    }
    if let Some([before, again, after]) = measured.last().map(|row| row.rss_mb) {
        let _ = writeln!(
            text,
            "\nResident memory after all rows: before {before:.0} MB, its second server {again:.0} MB, after {after:.0} MB."
        );
    }
    text
}

fn shown(ratios: &[f64]) -> String {
    match paired::interval(ratios) {
        Some(Interval { median, low, high }) => format!("{median:.3} ({low:.3}–{high:.3})"),
        None => format!("{:.3}", paired::median(ratios)),
    }
}

/// Returns an error if a cost has grown or more requests failed, so that a script can detect it.
fn verdict(options: &Options, measured: &[Measured]) -> Result<()> {
    let mut over = Vec::new();
    for row in measured {
        if row.failed[1] > row.failed[0] {
            over.push(format!("{}: {} requests failed", row.row, row.failed[1]));
        }
        for measure in row.measures() {
            if let Some((false, words)) = measure.verdict() {
                over.push(format!("{}: {} {words}: {}", row.row, measure.name, shown(&measure.change)));
            }
        }
    }
    match over.is_empty() || options.quick {
        true => Ok(()),
        false => Err(Error::new("bench: the later build is worse than the earlier one", over.join("\n"))),
    }
}

#[cfg(test)]
mod tests;
