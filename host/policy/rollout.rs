//! How a new policy takes over: what serves meanwhile, and the stages that it goes through.
//!
//! Shadow, then the canary's steps, then a watch once it serves everybody; each stage is judged by the guard.
//! Nothing here is driven by a clock of its own: the reload thread asks, and does what the answer says.

use super::evidence::{Evidence, Replays};
use super::guard::{self, QUANTILE, ms};
use super::guard_counters::Counts;
use super::plan::{ModelName, StickyBy};
use super::record::{Judged, Progress, Record, RouteNumbers, seconds};
use super::rollout_settings::{CanarySettings, GuardSettings};
use super::shadow::Shadow;
use super::{Policy, PolicyContent, Route, RouteQuery, sticky_hash};
use crate::metrics::Metrics;
use arc_swap::ArcSwap;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// A step that has seen too few requests to be judged lasts at most this many times as long: a service
/// without traffic does not wait for ever.
const STEP_TIMES_MAX: u32 = 4;

/// Fewer replays than this are no ground for a verdict while others are under way.
const REPLAYS_LEAST: u64 = 5;

/// What requests get. Readers take a snapshot; `reload` alone replaces it.
pub struct LivePolicy(pub(super) ArcSwap<Serving>);

/// One policy, or two while a new one takes over.
pub(super) struct Serving {
    pub stable: Arc<Policy>,
    pub candidate: Option<Candidate>,
}

/// A policy that some of the callers get.
pub(super) struct Candidate {
    pub policy: Arc<Policy>,
    share: f64,
    by: StickyBy,
    /// Other callers come first in each rollout, and others than in the routing rules.
    salt: u64,
    shadow: Option<Arc<Shadow>>,
}

/// What one request uses to its end.
pub struct SelectedPolicy {
    pub policy: Arc<Policy>,
    /// Set while copies of requests are wanted.
    pub shadow: Option<Arc<Shadow>>,
}

impl LivePolicy {
    pub(super) fn new(policy: Arc<Policy>) -> Self {
        LivePolicy(ArcSwap::from_pointee(Serving { stable: policy, candidate: None }))
    }

    /// The policy that is live, whatever a rollout does beside it.
    pub fn snapshot(&self) -> Arc<Policy> {
        Arc::clone(&self.0.load().stable)
    }

    /// What serves now: the policy that is live, and the one that takes over, if there is one.
    pub fn contents(&self) -> Vec<Arc<PolicyContent>> {
        let serving = self.0.load();
        let candidate = serving.candidate.as_ref().map(|candidate| Arc::clone(&candidate.policy.content));
        [Some(Arc::clone(&serving.stable.content)), candidate].into_iter().flatten().collect()
    }

    /// The policy for this caller. It stays on its side while the share is constant, and never goes back
    /// while the share grows.
    pub fn pick(&self, caller: &RouteQuery<'_>) -> SelectedPolicy {
        let serving = self.0.load();
        let Some(candidate) = &serving.candidate else {
            return SelectedPolicy { policy: Arc::clone(&serving.stable), shadow: None };
        };
        let policy = if candidate.takes(caller) { &candidate.policy } else { &serving.stable };
        SelectedPolicy { policy: Arc::clone(policy), shadow: candidate.shadow.clone() }
    }
}

impl Candidate {
    fn takes(&self, caller: &RouteQuery<'_>) -> bool {
        if self.share <= 0.0 {
            return false;
        }
        let key = match &self.by {
            StickyBy::RequestId => None,
            StickyBy::Header(name) => (caller.header)(name),
        };
        hash_bucket(self.salt, key.as_deref().unwrap_or(caller.request_id)) < self.share
    }
}

/// A number from 0 to 100 that stays with a key.
fn hash_bucket(salt: u64, key: &str) -> f64 {
    let mixed = (sticky_hash(key) ^ salt).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed ^ (mixed >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93) >> 40) as f64 / (1_u64 << 24) as f64 * 100.0
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Shadow,
    /// A step of the canary, from 0.
    Canary(usize),
    /// It is live; the policy before it is kept.
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
    /// This stage went well.
    Next,
    /// The new policy is worse, and why.
    Worse(String),
}

/// A new policy on its way.
pub(super) struct Rollout {
    pub generation: u64,
    guard: GuardSettings,
    canary: Option<CanarySettings>,
    salt: u64,
    routes: Vec<Watched>,
    stage: Stage,
    began: Instant,
    since: SystemTime,
    shadow: Option<Arc<Shadow>>,
    /// The reload that brought it, to be told again when it is live.
    pub record: Record,
}

/// A route that is not what it was.
struct Watched {
    name: ModelName,
    new: Arc<Route>,
    old: Option<Arc<Route>>,
    /// The old side once the new one serves everybody.
    before: Counts,
    /// Both sides when the rollout began, when its stage began, and when metrics were last told.
    start: Sides,
    stage: Sides,
    last_exported: Sides,
}

#[derive(Clone, Default)]
struct Sides {
    new: Counts,
    old: Counts,
}

impl Sides {
    fn since(&self, earlier: &Sides) -> Sides {
        Sides { new: self.new.since(&earlier.new), old: self.old.since(&earlier.old) }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.new.evidence.store(None);
    }
}

impl Watched {
    /// Whether too little is known of these faults yet: replays are under way.
    fn waits_for_evidence(&self, new: &Counts) -> bool {
        new.replayed < REPLAYS_LEAST && self.new.counters.is_pending()
    }

    fn now(&self) -> Sides {
        let old = self.old.as_ref().map_or_else(Counts::default, |route| route.counters.counts());
        Sides { new: self.new.counters.counts(), old }
    }
}

impl Rollout {
    /// A rollout that has not begun. `before` gives a route's counts of the time before.
    pub fn new(
        policy: &Policy,
        old: &Arc<PolicyContent>,
        guard: GuardSettings,
        record: Record,
        before: impl Fn(&ModelName) -> Counts,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let replays = Replays::new(metrics);
        let routes = differing(&policy.content, old).map(|(new, before_it)| {
            let evidence = before_it
                .as_ref()
                .and_then(|route| Evidence::new((&*policy.content, &*new), (old, route), &replays));
            new.evidence.store(evidence);
            let mut watched = Watched {
                name: new.name.clone(),
                before: before(&new.name),
                new,
                old: before_it,
                start: Sides::default(),
                stage: Sides::default(),
                last_exported: Sides::default(),
            };
            watched.start = watched.now();
            watched.last_exported = watched.start.clone();
            watched
        });
        Rollout {
            generation: policy.generation,
            guard,
            canary: None,
            salt: sticky_hash(&policy.content.plan.digest),
            routes: routes.collect(),
            stage: Stage::Watch,
            began: Instant::now(),
            since: SystemTime::now(),
            shadow: None,
            record,
        }
    }

    /// Goes through a canary first.
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

    /// The stage after this one; none after the last.
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
            // Where both sides served at the same time, nothing compares better.
            let beside = watched.stage.since(&watched.start).old;
            if stage == Stage::Watch && beside.judged() >= self.guard.min_requests {
                watched.before = beside;
            }
        }
        (self.stage, self.began, self.since) = (stage, Instant::now(), SystemTime::now());
    }

    /// Judges a model no longer.
    pub fn forget(&mut self, model: &str) {
        self.routes.retain(|watched| *watched.name.name != *model);
    }

    /// Whether nothing is left to watch.
    pub fn is_over(&self) -> bool {
        self.stage == Stage::Watch && self.guard.watch.is_zero()
    }

    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// What the old side did before this rollout, for one that takes its place.
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

    /// What serves while `policy` is not live yet.
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
                // A slow trickle shows over all stages, a sudden change in one.
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

    /// Adds what was counted since the last time to the metrics.
    pub fn tell(&mut self, metrics: &Metrics) {
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
                    metrics.generation_requests.with_label_values(&[side, outcome]).inc_by(count);
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

/// Routes of `new` that compute something else, run elsewhere, or get other requests, each with its old one.
fn differing(
    new: &PolicyContent,
    old: &PolicyContent,
) -> impl Iterator<Item = (Arc<Route>, Option<Arc<Route>>)> {
    new.models().flat_map(|(name, model)| {
        let before = old.models.get(name);
        let rerouted = before.is_some_and(|before| before.routing != model.routing);
        model.versions.values().filter_map(move |route| {
            let old = before.and_then(|before| before.versions.get(&route.name.version));
            let same = old.is_some_and(|old| {
                route.computes_the_same(old)
                    && Arc::ptr_eq(&route.executor, &old.executor)
                    && route.timeout == old.timeout
            });
            (!same || rerouted).then(|| (Arc::clone(route), old.cloned()))
        })
    })
}

/// What the live policy's routes did lately: the last one to two periods.
pub(super) struct Recent {
    generation: u64,
    older: Sample,
    newer: Sample,
}

#[derive(Clone)]
struct Sample {
    at: Instant,
    counts: BTreeMap<ModelName, Counts>,
}

impl Sample {
    fn of(policy: &Policy) -> Self {
        let routes = policy.content.models().flat_map(|(_, model)| model.versions.values());
        let counts = routes.map(|route| (route.name.clone(), route.counters.counts())).collect();
        Sample { at: Instant::now(), counts }
    }
}

impl Recent {
    pub fn new(policy: &Policy) -> Self {
        let now = Sample::of(policy);
        Recent { generation: policy.generation, older: now.clone(), newer: now }
    }

    /// Forgets what is older than two periods, and what was before another policy.
    pub fn turn(&mut self, policy: &Policy, period: Duration) {
        if policy.generation != self.generation {
            *self = Recent::new(policy);
        } else if self.newer.at.elapsed() >= period {
            self.older = std::mem::replace(&mut self.newer, Sample::of(policy));
        }
    }

    pub fn counts(&self, policy: &Policy, name: &ModelName) -> Counts {
        let Some(route) = policy.content.route(name) else { return Counts::default() };
        let now = route.counters.counts();
        let older = self.older.counts.get(name).filter(|_| policy.generation == self.generation);
        older.map_or_else(|| now.clone(), |before| now.since(before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_are_shared_out_by_the_percent_and_never_go_back() {
        let salt = sticky_hash("a digest");
        let buckets: Vec<f64> = (0..10_000).map(|id| hash_bucket(salt, &format!("user-{id}"))).collect();
        for share in [1.0, 10.0, 50.0] {
            let hits = buckets.iter().filter(|hash_bucket| **hash_bucket < share).count() as f64 / 100.0;
            assert!((hits - share).abs() < share * 0.3, "{hits} of {share}");
        }
        assert!(buckets.iter().all(|hash_bucket| (0.0..100.0).contains(hash_bucket)));
        assert_eq!(hash_bucket(salt, "user-1"), hash_bucket(salt, "user-1"));
    }

    #[test]
    fn the_canary_is_independent_of_the_routing_rule_and_of_other_rollouts() {
        let salts = [sticky_hash("one digest"), sticky_hash("another")];
        let keys: Vec<String> = (0..10_000).map(|id| format!("user-{id}")).collect();
        let chosen = |salt, key: &str| hash_bucket(salt, key) < 50.0;
        let routed = keys.iter().filter(|key| sticky_hash(key) % 100 < 50 && chosen(salts[0], key)).count();
        let both = keys.iter().filter(|key| chosen(salts[0], key) && chosen(salts[1], key)).count();
        assert!((2_200..2_800).contains(&routed), "{routed}");
        assert!((2_200..2_800).contains(&both), "{both}");
    }
}
