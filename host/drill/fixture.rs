//! What the exercises share: the copy, its host, the load, and how an exercise begins and ends.

use super::copy::Copy;
use super::host::{Host, Mark};
use super::load::{Load, Until};
use super::report::Row;
use super::samples::Sample;
use super::{Options, hostile, pressure, swaps};
use crate::config::Instances;
use crate::error::Result;
use crate::plugin::Role;
use crate::policy::plan::{ExecutorKind, ExecutorPlan, Plan};
use std::sync::Arc;
use std::time::{Duration, Instant};
use toml::Table;

/// What is left over of an exercise must be gone within this, even on a busy machine.
const SETTLE: Duration = Duration::from_secs(20);

/// Everything that the exercises share.
pub struct Fixture {
    /// The user's manifest.
    pub plan: Plan,
    pub copy: Copy,
    pub host: Host,
    pub samples: Arc<Vec<Sample>>,
    pub connections: usize,
    /// Of each exercise.
    pub time: Duration,
    between_swaps: Duration,
    /// There are more connections than places for their requests.
    pub refusals_expected: bool,
    steady_p99_ms: Option<f64>,
}

/// What an exercise did besides its load.
#[derive(Default)]
pub struct ExerciseResult {
    pub done: String,
    pub faults: Vec<String>,
    /// Rows of its own.
    pub parts: Vec<Row>,
}

impl ExerciseResult {
    pub fn done(count: usize, what: &str) -> Self {
        ExerciseResult { done: format!("{count} {what}"), ..ExerciseResult::default() }
    }
}

impl Fixture {
    pub fn new(
        plan: Plan,
        copy: Copy,
        host: Host,
        samples: Vec<Sample>,
        connections: usize,
        options: &Options,
    ) -> Self {
        let places = samples.iter().filter_map(|sample| {
            let own = plan.executors.get(&*sample.executor)?;
            let base = plan.base(&sample.executor).1;
            let places = base.workers().saturating_add(base.queue());
            Some(if own.kind() == ExecutorKind::Custom { places.min(own.workers()) } else { places })
        });
        let instances = plan.settings.engine.instances as usize;
        let room = places.min().unwrap_or(usize::MAX).min(instances);
        Fixture {
            refusals_expected: connections > room,
            samples: Arc::new(samples),
            connections,
            time: options.time,
            between_swaps: Duration::from_secs_f64(1.0 / options.swaps_per_second),
            steady_p99_ms: None,
            plan,
            copy,
            host,
        }
    }

    /// Runs one of the exercises; gives its row, and those of its parts.
    pub async fn exercise(&mut self, name: &'static str) -> Vec<Row> {
        let mut rows = self.rows_of(name).await;
        for fault in rows.iter_mut().flat_map(|row| &mut row.faults) {
            *fault = self.copy.in_the_users_words(fault);
        }
        rows
    }

    async fn rows_of(&mut self, name: &'static str) -> Vec<Row> {
        match name {
            "steady" => {
                let rows = self.under_load(name, steady).await;
                self.steady_p99_ms = rows.first().and_then(|row| row.p99_ms);
                rows
            }
            "manifest" => self.under_load(name, swaps::manifest).await,
            "plugins" if self.copy.plugins.is_empty() => vec![Row::skipped(name, "there is no plugin")],
            "plugins" => self.under_load(name, swaps::plugins).await,
            "models" if self.copy.models.is_empty() => vec![Row::skipped(name, "there is no model file")],
            "models" => self.under_load(name, swaps::models).await,
            "moves" if swaps::movable(self).is_empty() => {
                vec![Row::skipped(name, "no model can run on another executor")]
            }
            "moves" => self.under_load(name, swaps::moves).await,
            "damage" => self.under_load(name, swaps::damage).await,
            "rollback" => self.under_load(name, swaps::rollback).await,
            "hostile" => self.under_load(name, hostile::guests).await,
            "leavers" => self.under_load(name, pressure::disconnects).await,
            "overload" => vec![pressure::overload(self).await],
            "stop" => vec![pressure::stop(self).await],
            other => vec![Row::skipped(other, "not known")],
        }
    }

    /// Does something while the load runs, puts the manifest back, and looks at what is left over.
    async fn under_load(
        &mut self,
        name: &str,
        result: impl AsyncFnOnce(&mut Fixture, Instant) -> Result<ExerciseResult>,
    ) -> Vec<Row> {
        let manifest = self.copy.manifest.clone();
        let load = Load::start(self.host.http, &self.samples, self.connections, Until::Stopped);
        let done = result(self, Instant::now() + self.time).await;
        let restored = self.restore(manifest).await;
        let tally = load.stop().await;
        let settled = self.settled().await;
        let mut row = Row::new(name, "");
        row.take(&tally, self.refusals_expected);
        row.compare(self.steady_p99_ms);
        if row.refused > 0 && self.refusals_expected {
            let why = "429 is expected: there are more connections than workers and places in a queue";
            row.remarks.push(why.into());
        }
        let (mut parts, mut errors) = (Vec::new(), Vec::new());
        match done {
            Ok(result) => {
                row.done = result.done;
                result.faults.into_iter().for_each(|fault| row.fault(fault));
                parts = result.parts;
            }
            Err(error) => errors.push(error),
        }
        errors.extend(restored.err());
        match settled {
            Ok(left) => left.into_iter().for_each(|left| row.fault(left)),
            Err(error) => errors.push(error),
        }
        // The first is the cause of the others.
        errors.iter().take(1).for_each(|error| row.broke(error));
        std::iter::once(row).chain(parts).collect()
    }

    /// Makes the manifest what it was.
    pub async fn restore(&mut self, manifest: Table) -> Result<()> {
        if self.copy.manifest == manifest {
            return Ok(());
        }
        let before = self.host.mark().await?;
        self.copy.manifest = manifest;
        self.copy.write_manifest()?;
        self.go_live(&before).await
    }

    /// Waits until the files of the copy are what serves.
    pub async fn go_live(&mut self, before: &Mark) -> Result<()> {
        let digest = self.copy.digest()?;
        self.host.live_with(&digest, before).await
    }

    /// What is still held once nobody asks any more: calls, instances, policies.
    pub async fn settled(&mut self) -> Result<Vec<String>> {
        let until = Instant::now() + SETTLE;
        let mut left = loop {
            let left = held(&self.host.policy().await?);
            if left.is_empty() || Instant::now() > until {
                break left;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        // A pool may keep an instance for each worker and role, in the live policy and in the previous one.
        let workers: usize = self.plan.executors.values().map(ExecutorPlan::workers).sum();
        let plugins = self.plan.plugins.iter().map(|(name, plugin)| match plugin.limits.instances {
            None | Some(Instances::Fresh) if !plugin.roles.contains(&Role::Model) => (name.to_string(), 0),
            // Without the key a model may be a streaming one, whose instances stay.
            None | Some(Instances::Shared) => (name.to_string(), plugin.limits.shared.replicas * 4),
            Some(Instances::Fresh) => (name.to_string(), 0),
            Some(Instances::Reused) => (name.to_string(), workers * 4),
        });
        for (plugin, allowed) in plugins.collect::<Vec<_>>() {
            if let Some(alive) = self.instances_left(&plugin, allowed).await? {
                left.push(format!("plugin \"{plugin}\" still has {alive} instances"));
            }
        }
        Ok(left)
    }

    /// Waits until a plugin has no more instances than this; the number if it keeps more.
    pub async fn instances_left(&mut self, plugin: &str, allowed: usize) -> Result<Option<f64>> {
        let until = Instant::now() + SETTLE;
        loop {
            let sample = format!("hostler_plugin_instances{{plugin=\"{plugin}\"}}");
            let alive = self.host.metric(&sample).await?;
            if alive <= allowed as f64 {
                return Ok(None);
            }
            if Instant::now() > until {
                return Ok(Some(alive));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The pools that run the models that are asked.
    pub fn executors_in_use(&self) -> Vec<String> {
        let pool = |sample: &Sample| self.plan.base(&sample.executor).0.to_string();
        let mut executors: Vec<String> = self.samples.iter().map(pool).collect();
        executors.sort();
        executors.dedup();
        executors
    }

    /// How long the queue of an executor is in the user's manifest.
    pub fn queue(&self, executor: &str) -> usize {
        self.plan.base(executor).1.queue()
    }
}

/// The load alone.
async fn steady(fixture: &mut Fixture, until: Instant) -> Result<ExerciseResult> {
    tokio::time::sleep_until(until.into()).await;
    Ok(ExerciseResult::done(fixture.connections, "connections"))
}

/// Calls and policies that are held now.
fn held(policy: &serde_json::Value) -> Vec<String> {
    let mut left = Vec::new();
    for (name, executor) in policy["executors"].as_object().into_iter().flatten() {
        for gauge in ["busy", "inflight", "queue_length"] {
            match executor[gauge].as_u64() {
                None | Some(0) => {}
                Some(count) => left.push(format!("executor \"{name}\" still has {gauge} {count}")),
            }
        }
    }
    for generation in policy["generations"].as_array().into_iter().flatten() {
        if generation["state"] == "retired" {
            left.push(format!("the policy of generation {} is still held", generation["generation"]));
        }
    }
    left
}

/// Turns at a fixed rate until a moment, and a few in any case.
pub struct Pace {
    every: Duration,
    next: Instant,
    until: Instant,
    least: usize,
    pub done: usize,
}

impl Pace {
    pub fn new(fixture: &Fixture, until: Instant) -> Self {
        // There and back.
        Pace { every: fixture.between_swaps, next: Instant::now(), until, least: 2, done: 0 }
    }

    pub fn at_least(mut self, turns: usize) -> Self {
        self.least = self.least.max(turns);
        self
    }

    /// Waits for the next turn and gives its number, from 0; none once the time is over.
    pub async fn turn(&mut self) -> Option<usize> {
        let next = self.next.max(Instant::now());
        if self.done >= self.least && next >= self.until {
            tokio::time::sleep_until(self.until.into()).await;
            return None;
        }
        tokio::time::sleep_until(next.into()).await;
        self.next = next + self.every;
        self.done += 1;
        Some(self.done - 1)
    }
}
