//! A route that a rollout changes, watched on the new and on the old side.

use super::content::{Policy, PolicyContent};
use super::evidence::{Evidence, Replays};
use super::guard_counters::Counts;
use super::model::Model;
use super::model_name::ModelName;
use super::route::Route;
use crate::metrics::Metrics;
use std::sync::Arc;

/// With fewer replays than this, faults are not judged while other replays are in progress.
const REPLAYS_LEAST: u64 = 5;

/// A route that differs from the one before it.
pub(super) struct WatchedRoute {
    pub name: ModelName,
    pub new: Arc<Route>,
    pub old: Option<Arc<Route>>,
    /// Counts of the old side, which the new side is compared with once it serves all requests.
    pub before: Counts,
    /// Both sides when the rollout began, when its stage began, and when metrics were last
    /// exported.
    pub start: Sides,
    pub stage: Sides,
    pub last_exported: Sides,
}

#[derive(Clone, Default)]
pub(super) struct Sides {
    pub new: Counts,
    pub old: Counts,
}

impl Sides {
    pub fn since(&self, earlier: &Sides) -> Sides {
        Sides { new: self.new.since(&earlier.new), old: self.old.since(&earlier.old) }
    }
}

impl Drop for WatchedRoute {
    fn drop(&mut self) {
        self.new.evidence.store(None);
    }
}

impl WatchedRoute {
    /// Watches every route that differs between two policies. `before` returns a route's counts
    /// from before the rollout.
    pub fn all(
        policy: &Policy,
        old: &Arc<PolicyContent>,
        before: impl Fn(&ModelName) -> Counts,
        metrics: &Arc<Metrics>,
    ) -> Vec<WatchedRoute> {
        let replays = Replays::new(metrics);
        let routes = differing(&policy.content, old).map(|(new, before_it)| {
            let evidence = before_it
                .as_ref()
                .and_then(|route| Evidence::new((&*policy.content, &*new), (old, route), &replays));
            new.evidence.store(evidence);
            let mut watched = WatchedRoute {
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
        routes.collect()
    }

    /// Whether too little is known about these faults yet, because replays are in progress.
    pub fn waits_for_evidence(&self, new: &Counts) -> bool {
        new.replayed < REPLAYS_LEAST && self.new.counters.is_pending()
    }

    pub fn now(&self) -> Sides {
        let old = self.old.as_ref().map_or_else(Counts::default, |route| route.counters.counts());
        Sides { new: self.new.counters.counts(), old }
    }
}

/// Returns the routes of `new` that compute something else, run elsewhere or get other requests,
/// each with its old route.
fn differing(
    new: &PolicyContent,
    old: &PolicyContent,
) -> impl Iterator<Item = (Arc<Route>, Option<Arc<Route>>)> {
    new.models().flat_map(|(name, model)| {
        // Each version is compared below.
        let Model { versions, routing } = model;
        let before = old.models.get(name);
        let rerouted = before.is_some_and(|before| before.routing != *routing);
        versions.values().filter_map(move |route| {
            let old = before.and_then(|before| before.versions.get(&route.name.version));
            let same = old.is_some_and(|old| route.runs_the_same(old));
            (!same || rerouted).then(|| (Arc::clone(route), old.cloned()))
        })
    })
}
