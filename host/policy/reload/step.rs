//! What a thread that builds a policy reports.

use crate::policy::content::PolicyContent;
use crate::policy::files::Signature;
use crate::policy::load::{LoadFaults, Phases};
use crate::policy::plan::{Plan, Unplanned};
use std::sync::Arc;

/// The result of one step of an attempt.
#[allow(clippy::large_enum_variant, reason = "it is sent in a box")]
pub(super) enum Step {
    Planned { planned: Result<Plan, Unplanned>, seen: Signature },
    Loaded { loaded: Result<Arc<PolicyContent>, LoadFaults>, phases: Phases },
    Panicked(String),
}
