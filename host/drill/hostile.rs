//! Hostile guests beside the user's own models. Each call must end with its expected error, in
//! time, and other requests must not be affected.

use super::client::{Client, Histogram};
use super::files::replace;
use super::fixture::{ExerciseResult, Fixture};
use super::report::Row;
use crate::error::{Error, Result};
use bytes::Bytes;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// The component of all guests, compiled from `hostile.wat`. Its input selects the case.
const COMPONENT: &[u8] = include_bytes!("hostile.wasm");

/// The guests have their own executor, so they share only cores with other models.
const EXECUTOR: &str = "drill-hostile";
const WORKERS: usize = 2;

/// The guests' limits, low enough to be reached quickly.
const TIMEOUT_MS: i64 = 200;
const MEMORY_MB: i64 = 16;
const HANDLES: i64 = 64;

/// A guest is stopped within milliseconds, but on a busy machine its answer may take longer to
/// arrive.
const ANSWER_TIME_MAX: Duration = Duration::from_millis(TIMEOUT_MS as u64 + 2_000);

/// What the guest does, in the order of the numbers in `hostile.wat`, and the error that it must
/// end with.
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

/// The guests, as plugins and as models: name, kind of instances, and how many instances may stay.
/// A pool keeps clean instances, at most one for each worker.
const GUESTS: [(&str, &str, usize); 2] = [("drill-fresh", "fresh", 0), ("drill-reused", "reused", WORKERS)];

/// Adds the guests to the copy's manifest.
fn add_guests(fixture: &mut Fixture) -> Result<()> {
    let file = fixture.copy.manifest_path().with_file_name("drill-guest.wasm");
    replace(&file, COMPONENT)?;
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

/// The results of the calls of one guest.
#[derive(Default)]
struct CallCounts {
    count: u64,
    failed: u64,
    latencies: Histogram,
    faults: Vec<String>,
}

/// Calls every case in turn, on one connection for each worker, for the time of an exercise and at
/// least twice each.
pub async fn guests(fixture: &mut Fixture, _until: Instant) -> Result<ExerciseResult> {
    let before = fixture.host.mark().await?;
    add_guests(fixture)?;
    fixture.copy.write_manifest()?;
    fixture.go_live(&before).await?;
    // The time that it takes to compile the guests does not count.
    let until = Instant::now() + fixture.time;
    let mut callers = JoinSet::new();
    for caller in 0..WORKERS {
        callers.spawn(call_all(fixture.host.http, caller, until));
    }
    let mut all: BTreeMap<&'static str, CallCounts> = BTreeMap::new();
    while let Some(calls) = callers.join_next().await {
        let calls = calls.map_err(|error| Error::failed(format!("a client task failed: {error}")))?;
        for (name, calls) in calls {
            let sum = all.entry(name).or_default();
            sum.count += calls.count;
            sum.failed += calls.failed;
            sum.latencies.merge(&calls.latencies);
            sum.faults.extend(calls.faults);
        }
    }
    let mut result = ExerciseResult::done(HOSTILE_CASES.len(), "hostile cases");
    for case in &HOSTILE_CASES {
        let calls = all.remove(case.name).unwrap_or_default();
        let done = format!("{} calls, each {}", calls.count, case.status);
        let mut row = Row::new(format!("hostile: {}", case.name), done);
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
            // The callers begin with different cases.
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
    let case = &HOSTILE_CASES[number];
    let body = Bytes::from(json!({"model": model, "data": [number]}).to_string());
    let started = Instant::now();
    calls.count += 1;
    let answer = client.post("/predict", "drill-hostile", body).await.map_err(|lost| lost.to_string())?;
    let took = started.elapsed();
    calls.latencies.add(took);
    let error: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    if answer.status != case.status || error["error"]["kind"] != case.kind {
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        return Err(format!("expected {} {}, got {} {text}", case.status, case.kind, answer.status));
    }
    if took > ANSWER_TIME_MAX {
        return Err(format!("stopped after {TIMEOUT_MS} ms, answered after {} ms", took.as_millis()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled() -> Vec<u8> {
        wat::parse_str(include_str!("hostile.wat")).unwrap()
    }

    #[test]
    fn the_component_is_compiled_from_its_text() {
        let hint = "run `cargo test --lib drill::hostile -- --ignored`, which compiles it anew";
        assert!(compiled() == COMPONENT, "hostile.wasm differs from hostile.wat; {hint}");
    }

    #[test]
    #[ignore = "writes hostile.wasm"]
    fn compile_the_component() {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("host/drill/hostile.wasm");
        std::fs::write(file, compiled()).unwrap();
    }
}
