//! The rule that selects a version for a request that names none.

use crate::policy::sticky_by::StickyBy;
use std::sync::Arc;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutingPlan {
    /// Versions and weights. The sum of the weights is positive.
    pub weights: Vec<(Arc<str>, u32)>,
    pub by: StickyBy,
}
