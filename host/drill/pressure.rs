//! Clients that disconnect, overload, and the shutdown: SIGTERM while requests run.

use super::fixture::{ExerciseResult, Fixture};
use super::load::{Load, Until};
use super::report::Row;
use crate::app;
use crate::error::{Error, Result};
use crate::shutdown;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Connections that disconnect early.
const DISCONNECTS: usize = 4;

/// The overload exercise uses one worker without a queue, and at least this many connections.
const OVERLOAD_CONNECTIONS: usize = 16;

/// How long a host may take to exit after its shutdown.
const EXIT: Duration = Duration::from_secs(2);

/// Clients that send a whole or half a request, and disconnect before its answer.
pub async fn disconnects(fixture: &mut Fixture, until: Instant) -> Result<ExerciseResult> {
    let mut tasks = JoinSet::new();
    for index in 0..DISCONNECTS {
        let (http, samples) = (fixture.host.http, Arc::clone(&fixture.samples));
        tasks.spawn(async move {
            let mut left = 0;
            while left == 0 || Instant::now() < until {
                let sample = &samples[(index + left) % samples.len()];
                disconnect(http, &sample.body, left).await?;
                left += 1;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok::<usize, std::io::Error>(left)
        });
    }
    let mut left = 0;
    while let Some(task) = tasks.join_next().await {
        left += task
            .map_err(std::io::Error::other)
            .and_then(|left| left)
            .map_err(|error| Error::failed(format!("a client could not send its request: {error}")))?;
    }
    Ok(ExerciseResult::done(left, "clients disconnected"))
}

async fn disconnect(http: SocketAddr, body: &[u8], number: usize) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(http).await?;
    let length = body.len();
    let head = format!("POST /predict HTTP/1.1\r\nhost: {http}\r\ncontent-length: {length}\r\n\r\n");
    // Every third client sends half of its body.
    let sent = if number % 3 == 2 { &body[..length / 2] } else { body };
    stream.write_all(&[head.as_bytes(), sent].concat()).await?;
    // The client disconnects while the host reads, while it runs, or after its answer.
    tokio::time::sleep(Duration::from_millis(number as u64 % 4)).await;
    Ok(())
}

/// One worker, no queue, many connections. Every answer must be 200 or 429, and afterwards all is
/// as before.
pub async fn overload(fixture: &mut Fixture) -> Row {
    let mut row = Row::new("overload", "");
    let executor = fixture.executors_in_use().swap_remove(0);
    let connections = fixture.connections.max(OVERLOAD_CONNECTIONS);
    row.done = format!("{connections} clients of 1 worker");
    if let Err(error) = overload_executor(fixture, &executor, connections, &mut row).await {
        row.broke(&error);
    }
    row
}

async fn overload_executor(
    fixture: &mut Fixture,
    executor: &str,
    connections: usize,
    row: &mut Row,
) -> Result<()> {
    let manifest = fixture.copy.manifest.clone();
    let table = fixture.copy.table(&["executors", executor]);
    table.insert("workers".into(), 1.into());
    table.insert("queue".into(), 0.into());
    let before = fixture.host.mark().await?;
    fixture.copy.write_manifest()?;
    fixture.go_live(&before).await?;
    let load = Load::start(fixture.host.http, &fixture.samples, connections, Until::Stopped);
    tokio::time::sleep(fixture.time).await;
    row.take(&load.stop().await, true);
    row.faults.extend(fixture.settled().await?);
    if row.refused == 0 {
        row.remarks.push("never at capacity: the host answers faster than the clients send".into());
    }
    fixture.restore(manifest).await?;
    // Each sample once, to check that nothing of the overload remains.
    let load = Load::start(fixture.host.http, &fixture.samples, 1, Until::Stopped);
    tokio::time::sleep(fixture.time / 10).await;
    let after = load.stop().await;
    let bad = after.with_status(|status| status != 200) + after.lost + after.wrong;
    if bad > 0 || after.answers() == 0 {
        row.fault(format!("afterwards {bad} of {} requests failed", after.answers() + after.lost));
    }
    Ok(())
}

/// SIGTERM while requests run. Every request that the host took must be answered, and the exit code
/// must be 0.
pub async fn stop(fixture: &mut Fixture) -> Row {
    let mut row = Row::new("stop", "SIGTERM under load");
    let load = Load::start(fixture.host.http, &fixture.samples, fixture.connections, Until::HostGone);
    load.under_way().await;
    tokio::time::sleep(fixture.time / 2).await;
    let limit = app::shutdown_limit(&fixture.plan.settings) + shutdown::MARGIN + EXIT;
    let started = Instant::now();
    fixture.host.terminate();
    match fixture.host.wait(limit).await {
        Some(status) if status.code() == Some(0) => {
            row.remarks.push(format!("ended {} ms after the signal", started.elapsed().as_millis()));
        }
        Some(status) => row.fault(format!("it ended with {status}; expected exit code 0")),
        None => {
            row.fault(format!("it did not end within {} s", limit.as_secs()));
            fixture.host.end();
        }
    }
    let counts = load.end().await;
    row.take(&counts, fixture.refusals_expected);
    let (taken, late): (Vec<_>, Vec<_>) =
        counts.unanswered.iter().partition(|id| fixture.host.has_answered(id));
    if !taken.is_empty() {
        row.failed += taken.len() as u64;
        row.fault(format!("{} requests were accepted but never answered", taken.len()));
    }
    if !late.is_empty() {
        row.remarks.push(format!("{} requests were sent during the shutdown and not accepted", late.len()));
    }
    row
}
