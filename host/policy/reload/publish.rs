//! Publishes the record of each reload: keeps it for `/admin/policy`, counts it and logs it.
//!
//! Also saves the last-good copy of a policy that has proven itself.

use super::thread::ReloadThread;
use crate::policy::record::{Building, Record, ReloadOutcome};
use crate::traces::{Attributes, SpanKind, Tracer};
use smallvec::smallvec;
use std::sync::Arc;
use std::time::{Duration, Instant};

impl ReloadThread {
    /// Keeps and publishes a record. A dry run leaves no trace except its answer.
    pub(super) fn finish(&mut self, mut record: Record, dry_run: bool) -> Record {
        record.generation = self.shared.live.snapshot().generation;
        if dry_run {
            return record;
        }
        {
            let serving = self.shared.live.0.load();
            let mut history = self.shared.history();
            history.update_stale(&record, &serving);
            // Published again when the policy is live, with the time that it took to build.
            if let Some(rollout) = history.rollout.as_mut().filter(|new| new.record.phases_ms.is_empty()) {
                rollout.record = record.clone();
            }
            history.keep(&record);
        }
        self.publish(record.clone());
        // A policy that is watched is copied once it is proven.
        if record.outcome == ReloadOutcome::Applied && self.shared.history().rollout.is_none() {
            self.keep_copy();
        }
        record
    }

    /// Remembers what a reading of the files came to, before its record is finished.
    pub(super) fn files_were_read(&self, record: &Record) {
        let serving = self.shared.live.0.load();
        self.shared.history().files_were_read(record, &serving);
    }

    fn is_stale(&self) -> bool {
        self.shared.history().stale().is_some()
    }

    /// Updates metrics, and writes the one line of the log.
    pub(super) fn publish(&self, record: Record) {
        let metrics = &self.loader.metrics;
        metrics.reload.outcomes.with_label_values(&[record.outcome.as_str()]).inc();
        metrics.reload.generation.set(self.shared.live.snapshot().generation as i64);
        metrics.reload.stale.set(i64::from(self.is_stale()));
        if let Some(tracer) = &self.loader.tracer {
            trace(tracer, &record);
        }
        let (failures, retry_in_ms) = (record.failures, record.retry_in_ms);
        let Record { outcome, trigger, generation, digest, phases_ms, changes, errors, warnings, .. } =
            record;
        let event = event_of(outcome);
        let (outcome, digest) = (outcome.as_str(), digest.unwrap_or_default());
        let phases =
            phases_ms.iter().map(|(phase, ms)| format!("{phase}={ms}")).collect::<Vec<_>>().join(" ");
        let (changes, errors) = (changes.join("; "), errors.join("; "));
        for warning in warnings {
            tracing::warn!(generation, "{warning}");
        }
        if errors.is_empty() {
            tracing::info!(generation, digest, outcome, ?trigger, phases_ms = phases, changes, "{event}");
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
                "{event}"
            );
        }
    }

    pub(super) fn keep_copy(&self) {
        let policy = self.shared.live.snapshot();
        // Unloaded models are served again after a restart, but their files are not in the plan.
        if !self.is_stale() && policy.content.plan.overlay.unloaded.is_empty() {
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

/// The phases of a reload in their order.
const PHASES: [&str; 4] = ["plan", "plugins", "models", "checks"];

/// Records the spans of a reload, which ends now. Each is traced, whatever the share of requests
/// is.
fn trace(tracer: &Arc<Tracer>, record: &Record) {
    let took = |phase: &str| {
        let ms = record.phases_ms.get(phase).copied().unwrap_or_default();
        Duration::try_from_secs_f64(ms / 1000.0).unwrap_or_default()
    };
    let phases = PHASES.map(|phase| (phase, took(phase)));
    let total: Duration = phases.iter().map(|(_, took)| *took).sum();
    let now = Instant::now();
    let mut at = now.checked_sub(total).unwrap_or(now);
    let span = tracer.always(at);
    for (phase, took) in phases.into_iter().filter(|(_, took)| !took.is_zero()) {
        span.part(phase, at, took, Attributes::new());
        at += took;
    }
    let attributes = smallvec![
        ("hostler.outcome", record.outcome.as_str().into()),
        ("hostler.generation", (record.generation as usize).into()),
        ("hostler.changes", record.changes.len().into()),
    ];
    let error = record.errors.first().map(String::as_str);
    span.end_as("reload", SpanKind::Internal, attributes, error);
}

/// Returns the log's message for an outcome.
fn event_of(outcome: ReloadOutcome) -> &'static str {
    match outcome {
        ReloadOutcome::Applied => "policy applied",
        ReloadOutcome::RollingOut => "policy rollout started",
        ReloadOutcome::Unchanged => "policy unchanged",
        ReloadOutcome::WouldApply => "policy checked",
        ReloadOutcome::Rejected => "policy rejected",
        ReloadOutcome::Pending => "policy pending",
        ReloadOutcome::Refused => "policy refused",
        ReloadOutcome::RolledBack => "policy rolled back",
        ReloadOutcome::Fallback => "last-good policy applied",
    }
}
