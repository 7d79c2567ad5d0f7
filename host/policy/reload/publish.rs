//! The record of each reload: kept for `/admin/policy`, counted, logged, and the files of a good one copied.

use super::thread::ReloadThread;
use crate::policy::record::{Building, Record, ReloadOutcome};
use std::sync::Arc;

impl ReloadThread {
    /// Keeps and publishes a record; a dry run leaves no trace but its answer.
    pub(super) fn finish(&mut self, mut record: Record, dry_run: bool) -> Record {
        record.generation = self.shared.live.snapshot().generation;
        if dry_run {
            return record;
        }
        {
            let mut history = self.shared.history();
            history.stale = match record.outcome {
                ReloadOutcome::Applied => None,
                // What the files say is live already, or on its way: nothing is refused any more.
                ReloadOutcome::Unchanged | ReloadOutcome::RollingOut => None,
                outcome => Some(record.errors.first().cloned().unwrap_or_else(|| outcome.as_str().into())),
            };
            // Told again when it is live, with how long it took to build.
            if let Some(rollout) = history.rollout.as_mut().filter(|new| new.record.phases_ms.is_empty()) {
                rollout.record = record.clone();
            }
            history.last = record.clone();
        }
        self.publish(record.clone());
        // What is watched is copied once it is proven.
        if record.outcome == ReloadOutcome::Applied && self.shared.history().rollout.is_none() {
            self.keep_copy();
        }
        record
    }

    /// Why the files are not what serves, if they are not.
    pub(super) fn stale(&self) -> Option<String> {
        self.shared.history().stale.clone()
    }

    pub(super) fn set_stale(&self, stale: Option<String>) {
        self.loader.metrics.policy_stale.set(i64::from(stale.is_some()));
        self.shared.history().stale = stale;
    }

    /// Metrics and the one log line.
    pub(super) fn publish(&self, record: Record) {
        let metrics = &self.loader.metrics;
        metrics.reloads.with_label_values(&[record.outcome.as_str()]).inc();
        metrics.policy_generation.set(self.shared.live.snapshot().generation as i64);
        metrics.policy_stale.set(i64::from(self.stale().is_some()));
        let (failures, retry_in_ms) = (record.failures, record.retry_in_ms);
        let Record { outcome, trigger, generation, digest, phases_ms, changes, errors, warnings, .. } =
            record;
        let (outcome, digest) = (outcome.as_str(), digest.unwrap_or_default());
        let phases =
            phases_ms.iter().map(|(phase, ms)| format!("{phase}={ms}")).collect::<Vec<_>>().join(" ");
        let (changes, errors) = (changes.join("; "), errors.join("; "));
        for warning in warnings {
            tracing::warn!(generation, "{warning}");
        }
        if errors.is_empty() {
            tracing::info!(generation, digest, outcome, ?trigger, phases_ms = phases, changes, "policy");
        } else {
            tracing::error!(
                generation,
                digest,
                outcome,
                ?trigger,
                phases_ms = phases,
                changes,
                errors,
                failures,
                retry_in_ms,
                "policy"
            );
        }
    }

    pub(super) fn keep_copy(&self) {
        let policy = self.shared.live.snapshot();
        // What was unloaded is served after a restart, but its files are not in the plan.
        if self.stale().is_none() && policy.content.plan.overlay.unloaded.is_empty() {
            self.background.save(Arc::clone(&policy.content));
        }
    }

    /// Shows what is being built.
    pub(super) fn show_build(&self) {
        let building = self.build.as_ref().map(|build| Building {
            trigger: build.request.trigger.clone(),
            since: build.record.at,
            phase: if build.written.is_some() { "loading" } else { "reading" },
            waiting: self.waiting.len(),
        });
        self.loader.metrics.reload.building.set(i64::from(building.is_some()));
        self.shared.history().building = building;
    }
}
