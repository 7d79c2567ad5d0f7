//! `cargo xtask bench jobs`: how many jobs a store on disk accepts, beside what the disk can do and
//! beside direct requests; and what a store with many jobs costs.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::http::Connection;
use super::paired::{interval, median};
use super::server::{self, Server};
use super::{PREDICT, REQUIREMENTS, machine, report, wrk};
use xtask::command::step;
use xtask::content::make_folder;
use xtask::error::{Attempt, Error, Result};
use xtask::layout::Layout;
use xtask::{onnxruntime, packages, serve};

const USAGE: &str = "bench jobs [--seconds N] [--rounds N] [--kept N] [--quick] [--hostler PATH]";
const MARKERS: [&str; 2] = ["<!-- jobs:begin -->", "<!-- jobs:end -->"];
const CONNECTIONS: u32 = 100;
const SUBMIT: &str = "/predict/async";
/// One row of the model of the other comparisons.
const DATA: &str = "[[0,0,0,0,0,0,0,0,0,1,0,0,0,1,0,1,0,0]]";
/// Items of one submission while the store is filled.
const FILL_AT_ONCE: usize = 1000;
/// Jobs of a page whose time is measured.
const PAGE: usize = 100;
const PAGES: usize = 50;
/// How long a store may take to run what it has accepted.
const DRAIN_LIMIT: Duration = Duration::from_secs(600);

struct Plan {
    seconds: u64,
    rounds: usize,
    /// Jobs in the store when start, lists and memory are measured.
    kept: usize,
    quick: bool,
    hostler: Option<PathBuf>,
}

/// One round: the same load on `/predict` and on `/predict/async`.
struct Round {
    direct_per_s: f64,
    direct_cpu_us: f64,
    accepted_per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// From the first submission to the end of the last job.
    job_cpu_us: f64,
    jobs_per_s: f64,
}

/// What a store with many jobs costs.
struct Kept {
    jobs: usize,
    fill_s: f64,
    database_mb: f64,
    /// From the start of the process after a kill to the first answer of the store.
    ready_s: f64,
    rss_mb: f64,
    page_ms: Vec<f64>,
    purge_s: f64,
    purged_mb: f64,
}

pub fn jobs(layout: &Layout, args: &[String]) -> Result<()> {
    let plan = parse(args)?;
    packages::debian_program("wrk")?;
    let library = onnxruntime::library(layout)?;
    let binary = match &plan.hostler {
        Some(path) => path.clone(),
        None => serve::build_host(layout, true)?,
    };
    let folder = layout.target()?.join("bench").join("jobs");
    let _ = fs::remove_dir_all(&folder);
    make_folder(&folder)?;
    let busy_percent = machine::busy_percent()?;
    machine::warn_if_busy(busy_percent);
    let syncs = syncs_per_s(&folder)?;
    step(&format!("the disk syncs a small file {syncs:.0} times per second"));
    let manifest = write_manifest(layout, &folder)?;
    let start = || server::hostler(layout, &manifest, &binary, &library, &folder);
    let mut server = start()?;
    let mut rounds = Vec::new();
    load(layout, &server, &folder, PREDICT, 1)?;
    for number in 1..=plan.rounds {
        let round = round(layout, &server, &folder, plan.seconds)?;
        step(&format!(
            "round {number}/{}: direct {:.0}/s, {:.1} us CPU; accepted {:.0}/s, {:.1} us CPU per job, {:.2} times",
            plan.rounds,
            round.direct_per_s,
            round.direct_cpu_us,
            round.accepted_per_s,
            round.job_cpu_us,
            round.job_cpu_us / round.direct_cpu_us
        ));
        rounds.push(round);
    }
    let kept = keep(&mut server, start, &folder, plan.kept)?;
    let machine = machine::describe(layout, &binary, REQUIREMENTS, busy_percent)?;
    let text = text(&plan, &machine, syncs, &rounds, &kept);
    println!("{text}");
    if !plan.quick {
        let page = layout.root.join("docs/measured/performance.md");
        report::write(&page, &MARKERS, &text)?;
        step(&format!("wrote the results to {}", layout.relative(&page)));
    }
    drop(server);
    fs::remove_dir_all(&folder).attempting(|| format!("remove {}", folder.display()))
}

fn parse(args: &[String]) -> Result<Plan> {
    let mut plan = Plan { seconds: 5, rounds: 6, kept: 1_000_000, quick: false, hostler: None };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--seconds" => plan.seconds = super::number(arg, args.next())?,
            "--rounds" => plan.rounds = super::number(arg, args.next())? as usize,
            "--kept" => plan.kept = super::number(arg, args.next())? as usize,
            "--quick" => (plan.seconds, plan.rounds, plan.kept, plan.quick) = (1, 1, 2_000, true),
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

fn write_manifest(layout: &Layout, folder: &Path) -> Result<String> {
    let model = layout.root.join(super::MODEL);
    let text = format!(
        "[models.plain]\npath = \"{}\"\n\n[stores.main]\nkind = \"redb\"\ndir = \"store\"\n\n[jobs]\nstore = \"main\"\n\
         capacity = 1000000\nstore_mb = 16384\nresult_ttl_s = 86400\n",
        model.display()
    );
    let path = folder.join("hostler.toml");
    let write = |name: &str, text: &str| {
        fs::write(folder.join(name), text).attempting(|| format!("write {name} in {}", folder.display()))
    };
    write("hostler.toml", &text)?;
    write("body.json", &format!("{{\"model\":\"plain\",\"data\":{DATA}}}"))?;
    Ok(path.display().to_string())
}

/// Returns how often a small file can be written and synced, one time after the other.
fn syncs_per_s(folder: &Path) -> Result<f64> {
    let path = folder.join("probe");
    let attempt = || format!("write and sync {}", path.display());
    let mut file = File::create(&path).attempting(attempt)?;
    let (start, mut count) = (Instant::now(), 0_u32);
    while start.elapsed() < Duration::from_secs(2) {
        file.write_all(&[0; 4096]).and_then(|()| file.sync_data()).attempting(attempt)?;
        count += 1;
    }
    Ok(f64::from(count) / start.elapsed().as_secs_f64())
}

fn load(layout: &Layout, server: &Server, folder: &Path, path: &str, seconds: u64) -> Result<wrk::Done> {
    let done = wrk::run(&wrk::Load {
        port: server.port,
        path,
        connections: CONNECTIONS,
        seconds,
        script: &layout.root.join("bench/data/post.lua"),
        body: &folder.join("body.json"),
        json_length: None,
    })?;
    if done.failed > 0 {
        let attempted = format!("measure POST {path}: {} of {} requests failed", done.failed, done.requests);
        return Err(Error::new(attempted, format!("the server's log is in {}", folder.display())));
    }
    Ok(done)
}

fn round(layout: &Layout, server: &Server, folder: &Path, seconds: u64) -> Result<Round> {
    let cpu_us = |before: Duration, requests: u64| {
        Ok::<_, Error>((server.cpu()?.saturating_sub(before)).as_secs_f64() * 1e6 / requests.max(1) as f64)
    };
    let before = server.cpu()?;
    let direct = load(layout, server, folder, PREDICT, seconds)?;
    let direct_cpu_us = cpu_us(before, direct.requests)?;
    let ended_before = count(server, "ended")?;
    let (before, start) = (server.cpu()?, Instant::now());
    let accepted = load(layout, server, folder, SUBMIT, seconds)?;
    drain(server)?;
    let took = start.elapsed();
    let jobs = count(server, "ended")? - ended_before;
    Ok(Round {
        direct_per_s: direct.requests as f64 / direct.seconds,
        direct_cpu_us,
        accepted_per_s: accepted.requests as f64 / accepted.seconds,
        p50_ms: accepted.p50_us / 1e3,
        p99_ms: accepted.p99_us / 1e3,
        // wrk may have left before the last answers.
        job_cpu_us: cpu_us(before, jobs)?,
        jobs_per_s: jobs as f64 / took.as_secs_f64(),
    })
}

/// Returns how many jobs there are that are `open`, or that have `ended`.
fn count(server: &Server, which: &str) -> Result<u64> {
    let page = get(server, "/metrics")?;
    let line = |state: &str| {
        let name = format!("hostler_jobs{{state=\"{state}\"}} ");
        page.lines().find_map(|line| line.strip_prefix(&name)?.parse::<f64>().ok()).unwrap_or(0.0) as u64
    };
    let states: &[&str] = match which {
        "open" => &["pending", "running"],
        _ => &["succeeded", "failed", "cancelled", "timeout"],
    };
    Ok(states.iter().map(|state| line(state)).sum())
}

/// Waits until every job has ended.
fn drain(server: &Server) -> Result<()> {
    let start = Instant::now();
    while count(server, "open")? > 0 {
        if start.elapsed() > DRAIN_LIMIT {
            return Err(Error::new("jobs did not end", format!("limit: {} s", DRAIN_LIMIT.as_secs())));
        }
        sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn get(server: &Server, path: &str) -> Result<String> {
    let answer = Connection::open(server.port)
        .and_then(|mut connection| connection.request("GET", path, b""))
        .attempting(|| format!("GET {path}"))?;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    match answer.status {
        200 => Ok(text),
        status => Err(Error::new(format!("GET {path}: {status} {text}"), "expected 200")),
    }
}

/// Fills the store, kills the host, and measures the next one.
fn keep(
    server: &mut Server,
    start: impl Fn() -> Result<Server>,
    folder: &Path,
    wanted: usize,
) -> Result<Kept> {
    let filling = Instant::now();
    fill(server, wanted)?;
    let fill_s = filling.elapsed().as_secs_f64();
    let jobs = count(server, "ended")? as usize;
    server.kill();
    let database_mb = folder_mb(&folder.join("store"))?;
    let starting = Instant::now();
    *server = start()?;
    while get(server, "/jobs?limit=1").is_err() {
        sleep(Duration::from_millis(10));
    }
    let ready_s = starting.elapsed().as_secs_f64();
    let mut connection = Connection::open(server.port).attempting(|| "connect to hostler".to_owned())?;
    let (mut page_ms, mut after) = (Vec::new(), String::new());
    for _ in 0..PAGES {
        let path = format!("/jobs?state=succeeded&limit={PAGE}{after}");
        let asked = Instant::now();
        let answer = connection.request("GET", &path, b"").attempting(|| format!("GET {path}"))?;
        page_ms.push(asked.elapsed().as_secs_f64() * 1e3);
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let next = text.rsplit_once("\"next\":\"").and_then(|(_, rest)| rest.split('"').next());
        after = next.map(|next| format!("&after={next}")).unwrap_or_default();
    }
    let rss_mb = server.rss_mb()?;
    step(&format!("{jobs} jobs: ready in {ready_s:.2} s, {rss_mb:.0} MB, {database_mb:.0} MB on disk"));
    let purging = Instant::now();
    purge(server)?;
    let purge_s = purging.elapsed().as_secs_f64();
    // The next start compacts.
    server.kill();
    *server = start()?;
    while get(server, "/jobs?limit=1").is_err() {
        sleep(Duration::from_millis(10));
    }
    let purged_mb = folder_mb(&folder.join("store"))?;
    Ok(Kept { jobs, fill_s, database_mb, ready_s, rss_mb, page_ms, purge_s, purged_mb })
}

/// Submits jobs in batches until the store has as many as wanted, and waits for their end.
fn fill(server: &Server, wanted: usize) -> Result<()> {
    let items = vec![format!("{{\"data\":{DATA}}}"); FILL_AT_ONCE].join(",");
    let body = format!("{{\"model\":\"plain\",\"items\":[{items}]}}");
    let mut connection = Connection::open(server.port).attempting(|| "connect to hostler".to_owned())?;
    let mut shown = Instant::now();
    loop {
        let (open, ended) = (count(server, "open")? as usize, count(server, "ended")? as usize);
        // The next batch would not fit.
        if open + ended + FILL_AT_ONCE > wanted {
            return drain(server);
        }
        if shown.elapsed() > Duration::from_secs(30) {
            shown = Instant::now();
            step(&format!("{ended} of {wanted} jobs have ended"));
        }
        // Enough waits that no worker is idle.
        if open > 20 * FILL_AT_ONCE {
            sleep(Duration::from_millis(20));
            continue;
        }
        let path = "/predict/async/batch";
        let answer =
            connection.request("POST", path, body.as_bytes()).attempting(|| format!("POST {path}"))?;
        if answer.status != 202 {
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            return Err(Error::new(format!("POST {path}: {} {text}", answer.status), "expected 202"));
        }
    }
}

/// Deletes all jobs that have ended.
fn purge(server: &Server) -> Result<()> {
    let mut path = "/admin/jobs/purge?all=true".to_owned();
    loop {
        let answer = Connection::open(server.admin)
            .and_then(|mut connection| connection.request("POST", &path, b""))
            .attempting(|| format!("POST {path}"))?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        if answer.status != 200 {
            return Err(Error::new(format!("POST {path}: {} {text}", answer.status), "expected 200"));
        }
        let next = text.rsplit_once("\"next\":\"").and_then(|(_, rest)| rest.split('"').next());
        let Some(next) = next else { return Ok(()) };
        path = format!("/admin/jobs/purge?all=true&after={next}");
    }
}

/// Returns the megabytes of the files of a folder.
fn folder_mb(folder: &Path) -> Result<f64> {
    let attempt = || format!("list {}", folder.display());
    let mut bytes = 0;
    for entry in fs::read_dir(folder).attempting(attempt)? {
        bytes += entry.and_then(|entry| entry.metadata()).attempting(attempt)?.len();
    }
    Ok(bytes as f64 / f64::from(1 << 20))
}

fn text(plan: &Plan, machine: &str, syncs: f64, rounds: &[Round], kept: &Kept) -> String {
    let Plan { seconds, rounds: count, kept: wanted, .. } = plan;
    let command = format!("cargo xtask bench jobs --seconds {seconds} --rounds {count} --kept {wanted}");
    let mut text = format!("Command: `{command}`\n\n{machine}\n");
    let column = |value: fn(&Round) -> f64| rounds.iter().map(value).collect::<Vec<f64>>();
    let middle = |value: fn(&Round) -> f64| median(&column(value));
    let _ = writeln!(
        text,
        "The disk writes and syncs 4 KB {syncs:.0} times per second. {CONNECTIONS} connections, closed loop; medians:\n\n\
         | | requests/s | p50 ms | p99 ms | CPU us, all of it |\n|---|---:|---:|---:|---:|\n\
         | `POST /predict` | {:.0} | | | {:.1} |\n\
         | `POST /predict/async`, accepted | {:.0} | {:.1} | {:.1} | {:.1} per job, to its end |\n\
         | jobs that have ended | {:.0} | | | |",
        middle(|round| round.direct_per_s),
        middle(|round| round.direct_cpu_us),
        middle(|round| round.accepted_per_s),
        middle(|round| round.p50_ms),
        middle(|round| round.p99_ms),
        middle(|round| round.job_cpu_us),
        middle(|round| round.jobs_per_s),
    );
    let ratios = column(|round| round.job_cpu_us / round.direct_cpu_us);
    let _ = match interval(&ratios) {
        Some(ratio) => writeln!(
            text,
            "\nCPU of a job over that of a direct request, in the same round: {:.2} (95 %: {:.2} to {:.2}). One sync of \
             the disk covers {:.0} accepted jobs or more.",
            ratio.median,
            ratio.low,
            ratio.high,
            middle(|round| round.accepted_per_s) / syncs
        ),
        None => writeln!(text, "\nCPU of a job over that of a direct request: {:.2}.", median(&ratios)),
    };
    let Kept { jobs, fill_s, database_mb, ready_s, rss_mb, page_ms, purge_s, purged_mb } = kept;
    let mut sorted = page_ms.clone();
    sorted.sort_by(f64::total_cmp);
    let _ = writeln!(
        text,
        "\n| {jobs} ended jobs in the store | |\n|---|---:|\n\
         | time to run them | {fill_s:.0} s |\n\
         | files | {database_mb:.0} MB |\n\
         | start after `kill -9`, to the first list | {ready_s:.2} s |\n\
         | memory of the process after that and {PAGES} lists | {rss_mb:.0} MB |\n\
         | a page of {PAGE} jobs, median and longest of {PAGES} | {:.1} ms, {:.1} ms |\n\
         | purge of all | {purge_s:.1} s |\n\
         | files after that and the next start | {purged_mb:.1} MB |",
        median(page_ms),
        sorted.last().copied().unwrap_or(f64::NAN),
    );
    text
}
