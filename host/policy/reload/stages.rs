//! How new content reaches requests, and how it is taken back: swaps, rollouts and rollbacks.

use super::refused::{self, Written};
use super::thread::ReloadThread;
use crate::error::{Error, Kind, Result};
use crate::policy::content::{Policy, PolicyContent};
use crate::policy::description::diff;
use crate::policy::live::Serving;
use crate::policy::record::{Record, ReloadOutcome, Trigger};
use crate::policy::rollout::{Rollout, Stage, Verdict};
use crate::timestamp::seconds;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// How long the live policy's counts are kept if it has no guard, for a guard of the next policy.
const RECENT: Duration = Duration::from_secs(60);

impl ReloadThread {
    /// Introduces new content: at once, or step by step.
    pub(super) fn introduce(&mut self, content: Arc<PolicyContent>, record: &mut Record) {
        let live = self.shared.live.snapshot();
        self.newest = self.newest.max(live.generation) + 1;
        let policy = Arc::new(Policy { generation: self.newest, since: SystemTime::now(), content });
        let mut settings = policy.content.plan.reload.clone();
        // A client that loads a model waits until it serves all requests.
        settings.canary.take_if(|_| record.trigger.is_control());
        let replaced = self.end_rollout();
        let same = policy.content.plan.digest == live.content.plan.digest;
        record.outcome = ReloadOutcome::Applied;
        let Some(guard) = settings.guard.filter(|_| !same) else { return self.swap(policy, false) };

        // A policy that is still watched has proven nothing. Its successor is compared with the one
        // before it.
        let unproven = replaced.filter(|old| old.stage() == Stage::Watch && settings.canary.is_none());
        let previous = self.shared.history().previous.clone().filter(|_| unproven.is_some());
        let keep_previous = previous.is_some();
        let base = previous.unwrap_or(live);
        let before = |name: &_| {
            let known = unproven.as_ref().and_then(|old| old.before(name));
            known.unwrap_or_else(|| self.recent.counts(&base, name))
        };
        let mut rollout =
            Rollout::new(&policy, &base.content, guard, record.clone(), before, &self.loader.metrics);
        if let Some(canary) = settings.canary {
            rollout = rollout.with_canary(canary, &policy.content, &self.loader.metrics);
        }
        let stage = rollout.first();
        if stage == Stage::Watch {
            self.swap(Arc::clone(&policy), keep_previous);
        } else {
            record.outcome = ReloadOutcome::RollingOut;
        }
        self.enter(rollout, stage, policy);
    }

    /// Makes `policy` live for new requests. The policy before it is kept for a rollback; with
    /// `keep_previous`, the previous one stays instead.
    fn swap(&mut self, policy: Arc<Policy>, keep_previous: bool) {
        let old = Arc::clone(&self.shared.live.0.load().stable);
        self.shared.live.0.store(Arc::new(Serving { stable: policy, candidate: None }));
        let mut history = self.shared.history();
        let retired = if keep_previous { Some(old) } else { history.previous.replace(old) };
        retired.iter().for_each(|policy| history.retire(policy));
        drop(history);
        self.background.free(retired);
    }

    fn enter(&mut self, mut rollout: Rollout, stage: Stage, policy: Arc<Policy>) {
        rollout.enter(stage);
        if stage == Stage::Watch && rollout.is_over() {
            return;
        }
        if stage != Stage::Watch {
            let stable = self.shared.live.snapshot();
            let candidate = Some(rollout.candidate(policy));
            self.shared.live.0.store(Arc::new(Serving { stable, candidate }));
        }
        let (generation, share) = (rollout.generation, rollout.share());
        tracing::info!(generation, stage = stage.as_str(), share, "rollout stage entered");
        self.show_stage(Some((stage, share)));
        self.shared.history().rollout = Some(rollout);
    }

    /// Ends the rollout, and removes its candidate if it has one. Returns the rollout.
    pub(super) fn end_rollout(&mut self) -> Option<Rollout> {
        let mut rollout = self.shared.history().rollout.take()?;
        rollout.export(&self.loader.metrics);
        let serving = self.shared.live.0.load_full();
        if let Some(candidate) = &serving.candidate {
            let stable = Arc::clone(&serving.stable);
            self.shared.live.0.store(Arc::new(Serving { stable, candidate: None }));
            self.shared.history().retire(&candidate.policy);
            tracing::info!(generation = rollout.generation, stage = "ended", share = 0.0, "rollout ended");
        }
        self.background.free(serving);
        self.show_stage(None);
        Some(rollout)
    }

    fn show_stage(&self, now: Option<(Stage, f64)>) {
        let metrics = &self.loader.metrics;
        metrics.rollout.share.set(now.map_or(0.0, |(_, share)| share));
        for stage in [Stage::Shadow, Stage::Canary(0), Stage::Watch] {
            let here = now.is_some_and(|(now, _)| now.as_str() == stage.as_str());
            metrics.rollout.stage.with_label_values(&[stage.as_str()]).set(i64::from(here));
        }
    }

    /// Judges the current rollout, and acts on the verdict.
    pub(super) fn tick(&mut self) {
        let live = self.shared.live.snapshot();
        self.recent.rotate(&live, live.content.plan.reload.guard.map_or(RECENT, |guard| guard.watch));
        let verdict = match &mut self.shared.history().rollout {
            None => return,
            Some(rollout) => {
                rollout.export(&self.loader.metrics);
                rollout.verdict()
            }
        };
        match verdict {
            Verdict::Hold => {}
            Verdict::Next => self.advance(),
            // As long as there is a rollout, there is a candidate or a previous policy.
            Verdict::Worse(reason) => drop(self.rollback(Trigger::Guard, Some(reason))),
        }
    }

    fn advance(&mut self) {
        let following = self.shared.history().rollout.as_ref().and_then(Rollout::following);
        let serving = self.shared.live.0.load_full();
        match (following, &serving.candidate) {
            (Some(stage), Some(candidate)) if stage != Stage::Watch => {
                let rollout = self.shared.history().rollout.take();
                let policy = Arc::clone(&candidate.policy);
                rollout.into_iter().for_each(|rollout| self.enter(rollout, stage, Arc::clone(&policy)));
            }
            (Some(_), Some(_)) => drop(self.promote(None, None)),
            _ => {
                if let Some(rollout) = self.end_rollout() {
                    let generation = rollout.generation;
                    tracing::info!(generation, stage = "proven", share = 100.0, "rollout proven");
                }
                self.keep_copy();
            }
        }
    }

    /// Makes the candidate live, for an operator or after its last step. The guard continues to
    /// watch it.
    pub(super) fn promote(&mut self, generation: Option<u64>, operator: Option<String>) -> Result<Record> {
        let serving = self.shared.live.0.load_full();
        let candidate = serving.candidate.as_ref().map(|candidate| candidate.policy.generation);
        if let (Some(wanted), Some(candidate)) = (generation, candidate)
            && wanted != candidate
        {
            let message =
                format!("cannot promote generation {wanted}: the candidate is generation {candidate}");
            return Err(Error::new(Kind::Conflict, message));
        }
        let rollout = self.shared.history().rollout.take_if(|_| serving.candidate.is_some());
        let (Some(candidate), Some(rollout)) = (&serving.candidate, rollout) else {
            return Err(Error::invalid("no rollout is in progress, so there is no policy to promote"));
        };
        let mut record = rollout.record.clone();
        record.outcome = ReloadOutcome::Applied;
        record.at = seconds(SystemTime::now());
        record.trigger = operator.map_or(record.trigger, Trigger::Admin);
        self.swap(Arc::clone(&candidate.policy), false);
        self.show_stage(None);
        self.enter(rollout, Stage::Watch, Arc::clone(&candidate.policy));
        Ok(self.finish(record, false))
    }

    /// Rolls back for an operator, to the policy of this generation if one is named. Nothing that
    /// is being built goes live afterwards.
    pub(super) fn roll_back_to(&mut self, generation: Option<u64>, operator: String) -> Result<Record> {
        let serving = self.shared.live.0.load_full();
        let previous = match &serving.candidate {
            Some(_) => Some(serving.stable.generation),
            None => self.shared.history().previous.as_ref().map(|previous| previous.generation),
        };
        if let Some(wanted) = generation.filter(|wanted| previous != Some(*wanted)) {
            let why = match previous {
                Some(previous) => format!("a rollback would restore generation {previous}"),
                None => "there is no previous policy".to_owned(),
            };
            let message = format!("cannot roll back to generation {wanted}: {why}");
            return Err(Error::new(Kind::Conflict, message));
        }
        if previous.is_some() {
            let bad = serving.candidate.as_ref().map_or(&serving.stable, |candidate| &candidate.policy);
            let generation = bad.generation;
            // The record of the build comes first, so that the last one is that of the rollback.
            self.overrule(&format!(
                "generation {generation} was rolled back while these files were being built"
            ));
        }
        self.rollback(Trigger::Admin(operator), None)
    }

    /// Removes a candidate, or makes the previous policy live again. `reason` is set by the guard.
    pub(super) fn rollback(&mut self, trigger: Trigger, reason: Option<String>) -> Result<Record> {
        let started = Instant::now();
        let serving = self.shared.live.0.load_full();
        let previous = self.shared.history().previous.clone();
        let (bad, good) = match (&serving.candidate, previous) {
            (Some(candidate), _) => (&candidate.policy, Arc::clone(&serving.stable)),
            (None, Some(previous)) => (&serving.stable, previous),
            (None, None) => return Err(Error::invalid("there is no previous policy to roll back to")),
        };
        let mut record = Record::new(trigger);
        record.outcome = ReloadOutcome::RolledBack;
        record.digest = Some(good.content.plan.digest.clone());
        record.changes = diff(&bad.content.plan.description, &good.content.plan.description);
        let (by, verdict) = match reason {
            Some(_) => ("guard", refused::Verdict::Guard),
            None => ("operator", refused::Verdict::Operator),
        };
        let why = match reason {
            Some(reason) => {
                let why = format!("generation {} was rolled back by the guard: {reason}", bad.generation);
                record.errors = vec![why.clone()];
                why
            }
            None => format!(
                "these are the files of generation {}, which was rolled back; change them, or reload by the page or \
                 POST /admin/reload to try them again",
                bad.generation
            ),
        };
        let bad_files = Written::of(&bad.content.plan);
        // Otherwise model control made the difference, and there are no files to refuse.
        if !bad_files.has_files_of(&good.content.plan) {
            self.refused.insert(bad_files, verdict, vec![why]);
        }
        let unproven = self.end_rollout().is_some();
        if serving.candidate.is_none() {
            self.newest = self.newest.max(bad.generation) + 1;
            let content = Arc::clone(&good.content);
            self.swap(Arc::new(Policy { generation: self.newest, since: SystemTime::now(), content }), false);
            // The next rollback must not bring this policy back.
            let mut history = self.shared.history();
            if let Some(bad) = history.previous.take() {
                history.retire(&bad);
            }
        }
        // A policy is copied once it is proven.
        if !unproven {
            self.background.roll_back();
        }
        self.background.free(serving);
        self.loader.metrics.rollout.rollbacks.with_label_values(&[by]).inc();
        record.phases_ms.insert("total", (started.elapsed().as_secs_f64() * 1e4).round() / 10.0);
        Ok(self.finish(record, false))
    }
}
