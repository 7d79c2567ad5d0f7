//! The introduction of a new policy in stages, each judged by the guard.
//!
//! The stages are a shadow, the canary's steps, and a watch once the policy serves all requests. A
//! rollout has no clock of its own: the reload thread asks for its verdict and acts on it.

use super::content::{Policy, PolicyContent};
use super::guard::{self, QUANTILE, ms};
use super::guard_counters::Counts;
use super::live::Candidate;
use super::model_name::ModelName;
use super::record::{Judged, Progress, Record, RouteNumbers};
use super::rollout_settings::{CanarySettings, GuardSettings};
use super::shadow::Shadow;
use super::sticky_by::{StickyBy, sticky_hash};
use super::watched_route::WatchedRoute;
use crate::metrics::Metrics;
use crate::timestamp::seconds;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// A step with too few requests to be judged lasts at most this many times as long, so that a
/// service without traffic does not wait forever.
const STEP_TIMES_MAX: u32 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Shadow,
    /// A step of the canary, from 0.
    Canary(usize),
    /// The policy is live, and the one before it is kept.
    Watch,
}

impl Stage {
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Shadow => "shadow",
            Stage::Canary(_) => "canary",
            Stage::Watch => "watch",
        }
    }
}

/// What to do with a rollout now.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    Hold,
    /// This stage succeeded.
    Next,
    /// The new policy is worse, and why.
    Worse(String),
}

/// A new policy that is being introduced.
pub(super) struct Rollout {
    pub generation: u64,
    guard: GuardSettings,
    canary: Option<CanarySettings>,
    salt: u64,
    routes: Vec<WatchedRoute>,
    stage: Stage,
    began: Instant,
    since: SystemTime,
    shadow: Option<Arc<Shadow>>,
    /// The reload that built the policy, which is recorded again when the policy is live.
    pub record: Record,
}

impl Rollout {
    /// Returns a rollout that has not begun. `before` returns a route's counts from before the
    /// rollout.
    pub fn new(
        policy: &Policy,
        old: &Arc<PolicyContent>,
        guard: GuardSettings,
        record: Record,
        before: impl Fn(&ModelName) -> Counts,
        metrics: &Arc<Metrics>,
    ) -> Self {
        Rollout {
            generation: policy.generation,
            guard,
            canary: None,
            salt: sticky_hash(&policy.content.plan.digest),
            routes: WatchedRoute::all(policy, old, before, metrics),
            stage: Stage::Watch,
            began: Instant::now(),
            since: SystemTime::now(),
            shadow: None,
            record,
        }
    }

    /// Adds a canary before the watch.
    pub fn with_canary(
        mut self,
        canary: CanarySettings,
        candidate: &Arc<PolicyContent>,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let routes = self.routes.iter().filter(|watched| watched.old.is_some());
        let routes = routes.map(|watched| Arc::clone(&watched.new));
        let shadow = |settings| Shadow::new(settings, Arc::clone(candidate), routes, metrics);
        self.shadow = canary.shadow.map(shadow).map(Arc::new);
        self.canary = Some(canary);
        self
    }

    pub fn first(&self) -> Stage {
        let Some(canary) = &self.canary else { return Stage::Watch };
        match (&self.shadow, canary.steps.is_empty()) {
            (Some(_), _) => Stage::Shadow,
            (None, false) => Stage::Canary(0),
            (None, true) => Stage::Watch,
        }
    }

    /// Returns the stage after this one; `None` after the last.
    pub fn following(&self) -> Option<Stage> {
        let steps = self.canary.as_ref().map_or(0, |canary| canary.steps.len());
        match self.stage {
            Stage::Shadow if steps > 0 => Some(Stage::Canary(0)),
            Stage::Canary(step) if step + 1 < steps => Some(Stage::Canary(step + 1)),
            Stage::Shadow | Stage::Canary(_) => Some(Stage::Watch),
            Stage::Watch => None,
        }
    }

    pub fn enter(&mut self, stage: Stage) {
        for watched in &mut self.routes {
            watched.stage = watched.now();
            // Counts of the old side from the same time compare best.
            let beside = watched.stage.since(&watched.start).old;
            if stage == Stage::Watch && beside.judged() >= self.guard.min_requests {
                watched.before = beside;
            }
        }
        (self.stage, self.began, self.since) = (stage, Instant::now(), SystemTime::now());
    }

    /// Stops judging a model.
    pub fn forget(&mut self, model: &str) {
        self.routes.retain(|watched| *watched.name.name != *model);
    }

    /// Whether the watch is over as soon as it begins.
    pub fn is_over(&self) -> bool {
        self.stage == Stage::Watch && self.guard.watch.is_zero()
    }

    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Returns the counts of the old side, for a rollout that replaces this one.
    pub fn before(&self, name: &ModelName) -> Option<Counts> {
        self.routes.iter().find(|watched| watched.name == *name).map(|watched| watched.before.clone())
    }

    pub fn share(&self) -> f64 {
        match (self.stage, &self.canary) {
            (Stage::Canary(step), Some(canary)) => canary.steps[step],
            (Stage::Watch, _) => 100.0,
            _ => 0.0,
        }
    }

    /// Returns `policy` as the candidate of this stage.
    pub fn candidate(&self, policy: Arc<Policy>) -> Candidate {
        let by = self.canary.as_ref().map_or(StickyBy::RequestId, |canary| canary.by.clone());
        let shadow = self.shadow.clone().filter(|_| self.stage == Stage::Shadow);
        Candidate { policy, share: self.share(), by, salt: self.salt, shadow }
    }

    fn period(&self) -> Duration {
        match (self.stage, &self.canary) {
            (Stage::Shadow, Some(CanarySettings { shadow: Some(shadow), .. })) => shadow.period,
            (Stage::Canary(_), Some(canary)) => canary.step,
            _ => self.guard.watch,
        }
    }

    pub fn verdict(&self) -> Verdict {
        let mut seen = 0;
        for watched in &self.routes {
            let now = watched.now();
            let stage = now.since(&watched.stage);
            seen += stage.new.judged();
            let name = watched.name.to_string();
            let judge = |new: &Counts, old: &Counts| {
                if watched.waits_for_evidence(new) {
                    return None;
                }
                guard::judge(&self.guard, &name, new, old)
            };
            let worse = match self.stage {
                Stage::Watch => judge(&stage.new, &watched.before),
                // A slow trickle of faults shows over all stages, a sudden change in one.
                _ => {
                    let whole = now.since(&watched.start);
                    judge(&stage.new, &stage.old).or_else(|| judge(&whole.new, &whole.old))
                }
            };
            if let Some(reason) = worse {
                return Verdict::Worse(reason);
            }
        }
        if let Some(shadow) = &self.shadow {
            let (compared, allowed) = (shadow.compared(), shadow.settings.max_difference_rate);
            let reason =
                guard::judge_differences(&self.guard, allowed, compared.requests, compared.differences);
            if let Some(reason) = reason {
                return Verdict::Worse(reason);
            }
        }
        let (elapsed, period) = (self.began.elapsed(), self.period());
        let enough = seen >= self.guard.min_requests || self.routes.is_empty() || self.stage == Stage::Watch;
        if elapsed < period || (!enough && elapsed < period.saturating_mul(STEP_TIMES_MAX)) {
            return Verdict::Hold;
        }
        Verdict::Next
    }

    /// Adds what was counted since the last call to the metrics.
    pub fn export(&mut self, metrics: &Metrics) {
        for watched in &mut self.routes {
            let now = watched.now();
            let grown = now.since(&watched.last_exported);
            watched.last_exported = now;
            for (side, counts) in [("new", grown.new), ("old", grown.old)] {
                for (outcome, count) in [
                    ("ok", counts.ok()),
                    ("fault", counts.suspects()),
                    ("refused", counts.refusals),
                    ("other", counts.others),
                ] {
                    metrics.rollout.generation_requests.with_label_values(&[side, outcome]).inc_by(count);
                }
            }
        }
    }

    pub fn progress(&self) -> Progress {
        let metrics = |counts: &Counts| RouteNumbers {
            requests: counts.judged(),
            faults: counts.faults(),
            refused: counts.refusals,
            replayed: counts.replayed,
            confirmed: counts.confirmed,
            fault_rate: counts.fault_rate(),
            p95_ms: ms(counts.quantile(QUANTILE)),
        };
        let judged = self.routes.iter().map(|watched| {
            let stage = watched.now().since(&watched.stage);
            let old = if self.stage == Stage::Watch { &watched.before } else { &stage.old };
            (watched.name.to_string(), Judged { new: metrics(&stage.new), old: metrics(old) })
        });
        Progress {
            stage: self.stage.as_str(),
            generation: self.generation,
            share: self.share(),
            since: seconds(self.since),
            next_at: seconds(self.since) + self.period().as_secs_f64(),
            judged: judged.collect(),
            shadow: self.shadow.as_ref().map(|shadow| shadow.compared()),
        }
    }
}
