//! The first policy of a process: from its files, or from the last-good copy if the files are
//! faulty.

use crate::error::Result;
use crate::policy::content::PolicyContent;
use crate::policy::files::Files;
use crate::policy::last_good::LastGood;
use crate::policy::load::{Loader, Phases};
use crate::policy::plan::{Plan, Unplanned};
use crate::policy::record::{Record, ReloadOutcome};
use std::path::Path;
use std::sync::Arc;

/// The plan that a process starts with.
pub struct FirstPlan {
    pub plan: Plan,
    /// The last-good copy if the plan was read from it, and the faults of the files.
    copy: Option<(Files, Vec<String>)>,
    /// Whether the files were faulty for a reason that may pass.
    transient: bool,
}

/// What a process starts with.
pub(super) struct Started {
    pub content: Arc<PolicyContent>,
    /// Whether it is the copy, for a reason that may pass.
    pub transient: bool,
}

impl FirstPlan {
    /// Reads the manifest. If it is faulty and there is a last-good copy, reads that of the copy.
    pub fn read(path: &Path, files: &Files, last_good: Option<&LastGood>) -> Result<Self, Unplanned> {
        Plan::read(path, files).map(|plan| FirstPlan { plan, copy: None, transient: false }).or_else(
            |unplanned| {
                let transient = unplanned.is_transient();
                let copy = last_good.and_then(LastGood::files).and_then(|copy| {
                    let plan = plan_of_copy(path, &copy)?;
                    Some(FirstPlan { plan, copy: Some((copy, unplanned.lines())), transient })
                });
                copy.ok_or(unplanned)
            },
        )
    }
}

/// Loads what a process starts with. If the files do not load, loads the copy.
pub(super) fn load(
    path: &Path,
    files: &Files,
    first: FirstPlan,
    loader: &Loader,
    last_good: Option<&LastGood>,
    record: &mut Record,
) -> Result<Started> {
    let mut phases = Phases::default();
    record.digest = Some(first.plan.digest.clone());
    if let Some((copy, errors)) = first.copy {
        record.errors = errors;
        record.outcome = ReloadOutcome::Fallback;
        let content = loader.load(first.plan, &copy, &[], &mut phases)?;
        return Ok(Started { content, transient: first.transient });
    }
    let mut transient = false;
    let loaded = loader.load(first.plan, files, &[], &mut phases).or_else(|faults| {
        let Some(copy) = last_good.and_then(LastGood::files) else { return Err(faults) };
        let Some(plan) = plan_of_copy(path, &copy) else { return Err(faults) };
        record.errors = faults.lines();
        transient = faults.is_transient();
        record.outcome = ReloadOutcome::Fallback;
        loader.load(plan, &copy, &[], &mut phases)
    });
    record.phases_ms = phases.in_ms().into();
    Ok(Started { content: loaded?, transient })
}

/// Reads the plan of the last-good copy. A copy of an earlier version of the host may have faults.
fn plan_of_copy(path: &Path, copy: &Files) -> Option<Plan> {
    let plan = Plan::read(path, copy);
    plan.inspect_err(|why| tracing::warn!("last-good copy not used: {}", why.lines().join("; "))).ok()
}
