//! The exercises by name, and what each one runs.

use super::fixture::{ExerciseResult, Fixture};
use super::report::Row;
use super::{hostile, pressure, swaps};
use crate::error::Result;
use std::time::Instant;

/// The exercises, in the order in which they run.
pub const EXERCISES: [&str; 11] = [
    "steady", "manifest", "plugins", "models", "moves", "damage", "rollback", "hostile", "leavers",
    "overload", "stop",
];

/// Runs one exercise. Returns its row and the rows of its parts.
pub async fn run(fixture: &mut Fixture, name: &'static str) -> Vec<Row> {
    let mut rows = rows_of(fixture, name).await;
    for fault in rows.iter_mut().flat_map(|row| &mut row.faults) {
        *fault = fixture.copy.with_original_paths(fault);
    }
    rows
}

async fn rows_of(fixture: &mut Fixture, name: &'static str) -> Vec<Row> {
    match name {
        "steady" => {
            let rows = fixture.under_load(name, steady).await;
            fixture.steady_p99_ms = rows.first().and_then(|row| row.p99_ms);
            rows
        }
        "manifest" => fixture.under_load(name, swaps::manifest).await,
        "plugins" if fixture.copy.plugins.is_empty() => {
            vec![Row::skipped(name, "the manifest has no plugin")]
        }
        "plugins" => fixture.under_load(name, swaps::plugins).await,
        "models" if fixture.copy.models.is_empty() => {
            vec![Row::skipped(name, "the manifest has no model file")]
        }
        "models" => fixture.under_load(name, swaps::models).await,
        "moves" if swaps::movable(fixture).is_empty() => {
            vec![Row::skipped(name, "no model can run on another executor")]
        }
        "moves" => fixture.under_load(name, swaps::moves).await,
        "damage" => fixture.under_load(name, swaps::damage).await,
        "rollback" => fixture.under_load(name, swaps::rollback).await,
        "hostile" => fixture.under_load(name, hostile::guests).await,
        "leavers" => fixture.under_load(name, pressure::disconnects).await,
        "overload" => vec![pressure::overload(fixture).await],
        "stop" => vec![pressure::stop(fixture).await],
        other => vec![Row::skipped(other, "unknown exercise")],
    }
}

/// Only the load.
async fn steady(fixture: &mut Fixture, until: Instant) -> Result<ExerciseResult> {
    tokio::time::sleep_until(until.into()).await;
    Ok(ExerciseResult::done(fixture.connections, "connections"))
}
