//! A model in a policy: all its versions, and the rule that selects one of them.

use super::plan::RoutingPlan;
use super::route::Route;
use super::route_query::RouteQuery;
use super::sticky_by::{StickyBy, sticky_hash};
use std::collections::BTreeMap;
use std::sync::Arc;

/// All versions of a model.
#[derive(Clone)]
pub struct Model {
    pub versions: BTreeMap<Arc<str>, Arc<Route>>,
    pub(super) routing: Option<RoutingPlan>,
}

impl Model {
    /// Returns the version that the routing rule selects for this caller; without a rule, the
    /// first.
    pub(super) fn route_for(&self, caller: &RouteQuery<'_>) -> &Arc<Route> {
        let first = self.versions.values().next().expect("invariant: a model has a version");
        let Some(routing) = &self.routing else { return first };
        let key = match &routing.by {
            StickyBy::RequestId => None,
            StickyBy::Header(name) => (caller.header)(name),
        };
        let hash = sticky_hash(key.as_deref().unwrap_or(caller.request_id));
        let total: u64 = routing.weights.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let mut point = hash % total.max(1);
        for (version, weight) in &routing.weights {
            match point.checked_sub(u64::from(*weight)) {
                Some(rest) => point = rest,
                None => return self.versions.get(version).unwrap_or(first),
            }
        }
        first
    }
}
