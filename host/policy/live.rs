//! The policies that serve requests: the live one, and a candidate while a rollout introduces it.

use super::content::{Policy, PolicyContent};
use super::route_query::RouteQuery;
use super::shadow::Shadow;
use super::sticky_by::{StickyBy, sticky_hash};
use arc_swap::ArcSwap;
use std::sync::Arc;

/// What requests get. Readers take a snapshot; only `reload` replaces it.
pub struct LivePolicy(pub(super) ArcSwap<Serving>);

/// One policy, or two while a rollout introduces the second.
pub(super) struct Serving {
    pub stable: Arc<Policy>,
    pub candidate: Option<Candidate>,
}

/// A policy that some of the callers get.
pub(super) struct Candidate {
    pub policy: Arc<Policy>,
    /// Percent of the callers.
    pub share: f64,
    pub by: StickyBy,
    /// Makes the choice of callers independent of other rollouts and of the routing rules.
    pub salt: u64,
    pub shadow: Option<Arc<Shadow>>,
}

/// The policy that one request uses to its end.
pub struct SelectedPolicy {
    pub policy: Arc<Policy>,
    /// Set while copies of requests are wanted.
    pub shadow: Option<Arc<Shadow>>,
}

impl LivePolicy {
    pub(super) fn new(policy: Arc<Policy>) -> Self {
        LivePolicy(ArcSwap::from_pointee(Serving { stable: policy, candidate: None }))
    }

    /// Returns the live policy, which is not the candidate of a rollout.
    pub fn snapshot(&self) -> Arc<Policy> {
        Arc::clone(&self.0.load().stable)
    }

    /// Returns the contents that serve now: of the live policy, and of the candidate if there is
    /// one.
    pub fn contents(&self) -> Vec<Arc<PolicyContent>> {
        let serving = self.0.load();
        let candidate = serving.candidate.as_ref().map(|candidate| Arc::clone(&candidate.policy.content));
        [Some(Arc::clone(&serving.stable.content)), candidate].into_iter().flatten().collect()
    }

    /// Selects the policy for this caller. A caller stays on its side while the share is constant,
    /// and does not go back to the live policy while the share grows.
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

/// Returns a number from 0 to 100 that is always the same for a key.
fn hash_bucket(salt: u64, key: &str) -> f64 {
    let mixed = (sticky_hash(key) ^ salt).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed ^ (mixed >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93) >> 40) as f64 / (1_u64 << 24) as f64 * 100.0
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
