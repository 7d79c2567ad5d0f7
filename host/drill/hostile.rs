//! Guests that do harm, served beside the user's own models: each call must end with its own error, in time,
//! and nobody else may notice.

use super::client::{Client, Histogram};
use super::copy::replace;
use super::fixture::{ExerciseResult, Fixture};
use super::report::Row;
use crate::error::{Error, Result};
use bytes::Bytes;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// The component of all guests. Its input says what it does.
const GUEST: &str = include_str!("hostile.wat");

/// Their own executor: they take workers from nobody, only cores.
const EXECUTOR: &str = "drill-hostile";
const WORKERS: usize = 2;

/// Their limits, low enough to be met soon.
const TIMEOUT_MS: i64 = 200;
const MEMORY_MB: i64 = 16;
const HANDLES: i64 = 64;

/// A guest is stopped within milliseconds; on a busy machine its answer may take longer to be sent and read.
const LATE: Duration = Duration::from_millis(TIMEOUT_MS as u64 + 2_000);

/// What the guest does, in the order of the numbers in `hostile.wat`, and the error that it must end with.
struct HostileCase {
    name: &'static str,
    status: u16,
    kind: &'static str,
}

const fn fails(name: &'static str) -> HostileCase {
    HostileCase { name, status: 500, kind: "failed" }
}

const fn hangs(name: &'static str) -> HostileCase {
    HostileCase { name, status: 504, kind: "deadline" }
}

const HOSTILE_CASES: [HostileCase; 9] = [
    hangs("spins"),
    hangs("sleeps"),
    fails("traps"),
    fails("recurses"),
    fails("takes memory"),
    fails("takes handles"),
    fails("answers too much"),
    fails("answers nonsense"),
    fails("answers other tensors"),
];

/// The guests, as plugins and as models: how their instances live, and how many of them may stay. A pool
/// keeps those that came back clean, one for each worker.
const GUESTS: [(&str, &str, usize); 2] = [("drill-fresh", "fresh", 0), ("drill-reused", "reused", WORKERS)];

/// Puts the guests into the copy's manifest.
fn move_in(fixture: &mut Fixture) -> Result<()> {
    let component = wat::parse_str(GUEST)
        .map_err(|error| Error::failed(format!("the hostile guest is no component: {error}")))?;
    let file = fixture.copy.manifest_path().with_file_name("drill-guest.wasm");
    replace(&file, &component)?;
    let executor = fixture.copy.table(&["executors", EXECUTOR]);
    executor.insert("kind".into(), "thread-pool".into());
    executor.insert("workers".into(), (WORKERS as i64).into());
    let memory_mb_max = (fixture.plan.settings.engine.memory_bytes_max >> 20) as i64;
    for (name, instances, _) in GUESTS {
        let plugin = fixture.copy.table(&["plugins", name]);
        plugin.insert("path".into(), file.display().to_string().into());
        plugin.insert("instances".into(), instances.into());
        for (key, value) in [
            ("timeout_ms", TIMEOUT_MS),
            ("memory_mb", MEMORY_MB.min(memory_mb_max)),
            ("result_mb", 1),
            ("handles", HANDLES),
        ] {
            plugin.insert(key.into(), value.into());
        }
        fixture.copy.table(&["models", name]).insert("plugin".into(), name.into());
        fixture.copy.set_route(name, EXECUTOR);
    }
    Ok(())
}

/// What calls of one guest gave.
#[derive(Default)]
struct CallCounts {
    count: u64,
    failed: u64,
    latencies: Histogram,
    faults: Vec<String>,
}

/// Asks for every misdeed in turn from as many connections as there are workers, for the time of an exercise
/// and at least twice each.
pub async fn guests(fixture: &mut Fixture, _until: Instant) -> Result<ExerciseResult> {
    let before = fixture.host.mark().await?;
    move_in(fixture)?;
    fixture.copy.write_manifest()?;
    fixture.go_live(&before).await?;
    // Compiling them is not what is drilled.
    let until = Instant::now() + fixture.time;
    let mut callers = JoinSet::new();
    for caller in 0..WORKERS {
        callers.spawn(call_all(fixture.host.http, caller, until));
    }
    let mut all: BTreeMap<&'static str, CallCounts> = BTreeMap::new();
    while let Some(calls) = callers.join_next().await {
        let calls = calls.map_err(|error| Error::failed(format!("a caller broke down: {error}")))?;
        for (name, calls) in calls {
            let sum = all.entry(name).or_default();
            sum.count += calls.count;
            sum.failed += calls.failed;
            sum.latencies.merge(&calls.latencies);
            sum.faults.extend(calls.faults);
        }
    }
    let mut result = ExerciseResult::done(HOSTILE_CASES.len(), "kinds of harm");
    for misdeed in &HOSTILE_CASES {
        let calls = all.remove(misdeed.name).unwrap_or_default();
        let done = format!("{} calls, each {}", calls.count, misdeed.status);
        let mut row = Row::new(format!("hostile: {}", misdeed.name), done);
        row.requests = calls.count;
        row.failed = calls.failed;
        row.times(&calls.latencies);
        calls.faults.into_iter().for_each(|fault| row.fault(fault));
        result.parts.push(row);
    }
    for (name, _, allowed) in GUESTS {
        if let Some(alive) = fixture.instances_left(name, allowed).await? {
            result.faults.push(format!("plugin \"{name}\" still has {alive} instances"));
        }
    }
    Ok(result)
}

async fn call_all(http: SocketAddr, caller: usize, until: Instant) -> BTreeMap<&'static str, CallCounts> {
    let mut client = Client::new(http);
    let mut all: BTreeMap<&'static str, CallCounts> = BTreeMap::new();
    let mut round = 0;
    while round < GUESTS.len() || Instant::now() < until {
        for index in 0..HOSTILE_CASES.len() {
            // The callers begin at different misdeeds.
            let number = (index + caller * HOSTILE_CASES.len() / WORKERS) % HOSTILE_CASES.len();
            let (model, ..) = GUESTS[(round + caller) % GUESTS.len()];
            let calls = all.entry(HOSTILE_CASES[number].name).or_default();
            if let Err(fault) = call(&mut client, number, model, calls).await {
                calls.failed += 1;
                if calls.faults.len() < 3 {
                    calls.faults.push(format!("model \"{model}\": {fault}"));
                }
            }
        }
        round += 1;
    }
    all
}

async fn call(client: &mut Client, number: usize, model: &str, calls: &mut CallCounts) -> Result<(), String> {
    let misdeed = &HOSTILE_CASES[number];
    let body = Bytes::from(json!({"model": model, "data": [number]}).to_string());
    let started = Instant::now();
    calls.count += 1;
    let answer = client.post("/predict", "drill-hostile", body).await.map_err(|lost| lost.to_string())?;
    let took = started.elapsed();
    calls.latencies.add(took);
    let error: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    if answer.status != misdeed.status || error["error"]["kind"] != misdeed.kind {
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        return Err(format!("expected {} {}, got {} {text}", misdeed.status, misdeed.kind, answer.status));
    }
    if took > LATE {
        return Err(format!("stopped after {TIMEOUT_MS} ms, answered after {} ms", took.as_millis()));
    }
    Ok(())
}
