//! What the exercises share: the copy, its host, the load, and the checks before and after an
//! exercise.

use super::copy::Copy;
use super::host::{Host, Mark};
use super::load::{Load, Until};
use super::options::Options;
use super::report::Row;
use super::samples::Sample;
use crate::config::Instances;
use crate::error::Result;
use crate::plugin::Role;
use crate::policy::plan::{ExecutorKind, ExecutorPlan, Plan};
use std::sync::Arc;
use std::time::{Duration, Instant};
use toml::Table;

/// How long after an exercise the host may take to release everything, even on a busy machine.
const SETTLE: Duration = Duration::from_secs(20);

/// Shared by all exercises.
pub struct Fixture {
    /// The original manifest's plan.
    pub plan: Plan,
    pub copy: Copy,
    pub host: Host,
    pub samples: Arc<Vec<Sample>>,
    pub connections: usize,
    /// The duration of each exercise.
    pub time: Duration,
    pub between_swaps: Duration,
    /// There are more connections than the workers and queues can admit.
    pub refusals_expected: bool,
    pub steady_p99_ms: Option<f64>,
}

/// What an exercise did besides the load.
#[derive(Default)]
pub struct ExerciseResult {
    pub done: String,
    pub faults: Vec<String>,
    /// Rows of the exercise's own.
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
        let capacity = samples.iter().filter_map(|sample| {
            let own = plan.executors.get(&*sample.executor)?;
            let base = plan.base(&sample.executor).1;
            let capacity = base.workers().saturating_add(base.queue());
            Some(if own.kind() == ExecutorKind::Custom { capacity.min(own.workers()) } else { capacity })
        });
        let instances = plan.settings.engine.instances as usize;
        let capacity = capacity.min().unwrap_or(usize::MAX).min(instances);
        Fixture {
            refusals_expected: connections > capacity,
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

    /// Runs an exercise under load, restores the manifest, and checks that nothing is left over.
    pub async fn under_load(
        &mut self,
        name: &str,
        result: impl AsyncFnOnce(&mut Fixture, Instant) -> Result<ExerciseResult>,
    ) -> Vec<Row> {
        let manifest = self.copy.manifest.clone();
        let load = Load::start(self.host.http, &self.samples, self.connections, Until::Stopped);
        let done = result(self, Instant::now() + self.time).await;
        let restored = self.restore(manifest).await;
        let counts = load.stop().await;
        let settled = self.settled().await;
        let mut row = Row::new(name, "");
        row.take(&counts, self.refusals_expected);
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
            Ok(leftovers) => leftovers.into_iter().for_each(|left| row.fault(left)),
            Err(error) => errors.push(error),
        }
        // The first error caused the others.
        errors.iter().take(1).for_each(|error| row.broke(error));
        std::iter::once(row).chain(parts).collect()
    }

    /// Restores the manifest.
    pub async fn restore(&mut self, manifest: Table) -> Result<()> {
        if self.copy.manifest == manifest {
            return Ok(());
        }
        let before = self.host.mark().await?;
        self.copy.manifest = manifest;
        self.copy.write_manifest()?;
        self.go_live(&before).await
    }

    /// Waits until the host serves the files of the copy.
    pub async fn go_live(&mut self, before: &Mark) -> Result<()> {
        let digest = self.copy.digest()?;
        self.host.live_with(&digest, before).await
    }

    /// Returns what the host still holds when there is no load any more: calls, instances,
    /// policies.
    pub async fn settled(&mut self) -> Result<Vec<String>> {
        let until = Instant::now() + SETTLE;
        let mut leftovers = loop {
            let leftovers = held(&self.host.policy().await?);
            if leftovers.is_empty() || Instant::now() > until {
                break leftovers;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        // A pool may keep an instance for each worker and role, in the live policy and in the
        // previous one.
        let workers: usize = self.plan.executors.values().map(ExecutorPlan::workers).sum();
        let plugins = self.plan.plugins.iter().map(|(name, plugin)| match plugin.limits.instances {
            None | Some(Instances::Fresh) if !plugin.roles.contains(&Role::Model) => (name.to_string(), 0),
            // Without the key, a model may be a streaming model, whose instances stay.
            None | Some(Instances::Shared) => (name.to_string(), plugin.limits.shared.replicas * 4),
            Some(Instances::Fresh) => (name.to_string(), 0),
            Some(Instances::Reused) => (name.to_string(), workers * 4),
        });
        for (plugin, allowed) in plugins.collect::<Vec<_>>() {
            if let Some(alive) = self.instances_left(&plugin, allowed).await? {
                leftovers.push(format!("plugin \"{plugin}\" still has {alive} instances"));
            }
        }
        Ok(leftovers)
    }

    /// Waits until a plugin has at most this many instances. Returns their number if it keeps more.
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

    /// Returns the executors that run the sampled models.
    pub fn executors_in_use(&self) -> Vec<String> {
        let pool = |sample: &Sample| self.plan.base(&sample.executor).0.to_string();
        let mut executors: Vec<String> = self.samples.iter().map(pool).collect();
        executors.sort();
        executors.dedup();
        executors
    }

    /// Returns the queue length of an executor in the original manifest.
    pub fn queue(&self, executor: &str) -> usize {
        self.plan.base(executor).1.queue()
    }
}

/// Lists the calls and policies that the host holds now.
fn held(policy: &serde_json::Value) -> Vec<String> {
    let mut leftovers = Vec::new();
    for (name, executor) in policy["executors"].as_object().into_iter().flatten() {
        for gauge in ["busy", "inflight", "queue_length"] {
            match executor[gauge].as_u64() {
                None | Some(0) => {}
                Some(count) => leftovers.push(format!("executor \"{name}\" still has {gauge} {count}")),
            }
        }
    }
    for generation in policy["generations"].as_array().into_iter().flatten() {
        if generation["state"] == "retired" {
            leftovers.push(format!("the policy of generation {} is still held", generation["generation"]));
        }
    }
    leftovers
}
