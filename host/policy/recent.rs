//! Recent counts of the live policy's routes, which a new policy is compared with.

use super::content::Policy;
use super::guard_counters::Counts;
use super::model_name::ModelName;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What the live policy's routes did during the last one to two periods.
pub(super) struct Recent {
    generation: u64,
    older: Snapshot,
    newer: Snapshot,
}

#[derive(Clone)]
struct Snapshot {
    at: Instant,
    counts: BTreeMap<ModelName, Counts>,
}

impl Snapshot {
    fn of(policy: &Policy) -> Self {
        let routes = policy.content.models().flat_map(|(_, model)| model.versions.values());
        let counts = routes.map(|route| (route.name.clone(), route.counters.counts())).collect();
        Snapshot { at: Instant::now(), counts }
    }
}

impl Recent {
    pub fn new(policy: &Policy) -> Self {
        let now = Snapshot::of(policy);
        Recent { generation: policy.generation, older: now.clone(), newer: now }
    }

    /// Forgets counts that are older than two periods, and those of another policy.
    pub fn rotate(&mut self, policy: &Policy, period: Duration) {
        if policy.generation != self.generation {
            *self = Recent::new(policy);
        } else if self.newer.at.elapsed() >= period {
            self.older = std::mem::replace(&mut self.newer, Snapshot::of(policy));
        }
    }

    pub fn counts(&self, policy: &Policy, name: &ModelName) -> Counts {
        let Some(route) = policy.content.route(name) else { return Counts::default() };
        let now = route.counters.counts();
        let older = self.older.counts.get(name).filter(|_| policy.generation == self.generation);
        older.map_or_else(|| now.clone(), |before| now.since(before))
    }
}
