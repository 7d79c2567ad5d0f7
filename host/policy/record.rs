//! What operators see of the policy: the last reload, the policies that serve, and those that are
//! kept.

use super::description::Description;
use super::overlay::Overlay;
use crate::timestamp::seconds;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::SystemTime;

/// The most records of reloads that are kept.
pub const RECORDS_MAX: usize = 200;

/// What caused a reload.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    Start,
    /// A file changed.
    Watch,
    /// An operator asked for it, from this address.
    Admin(String),
    /// The guard found the new policy worse than the old one.
    Guard,
    /// A client loaded or unloaded this model.
    ModelControl(String),
}

impl Trigger {
    pub fn is_control(&self) -> bool {
        matches!(self, Trigger::ModelControl(_))
    }
}

#[derive(Clone, Copy, Debug, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum ReloadOutcome {
    /// The new policy is live.
    Applied,
    /// The new policy is loaded, and is introduced step by step.
    RollingOut,
    /// The files say what is already live.
    Unchanged,
    /// A dry run whose policy would have gone live.
    WouldApply,
    /// The new files have faults, and the old policy serves.
    Rejected,
    /// A pinned file does not have its digest yet, and the old policy serves.
    Pending,
    /// These files were rolled back or rejected before and have not changed since.
    Refused,
    /// The previous policy is live again.
    RolledBack,
    /// The files have faults, and the last-good copy serves.
    Fallback,
}

impl ReloadOutcome {
    pub fn as_str(self) -> &'static str {
        match self {
            ReloadOutcome::Applied => "applied",
            ReloadOutcome::RollingOut => "rolling_out",
            ReloadOutcome::Unchanged => "unchanged",
            ReloadOutcome::WouldApply => "would_apply",
            ReloadOutcome::Rejected => "rejected",
            ReloadOutcome::Pending => "pending",
            ReloadOutcome::Refused => "refused",
            ReloadOutcome::RolledBack => "rolled_back",
            ReloadOutcome::Fallback => "fallback",
        }
    }
}

/// One reload, as operators see it.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    pub outcome: ReloadOutcome,
    pub trigger: Trigger,
    /// Seconds since 1970.
    pub at: f64,
    pub generation: u64,
    /// The digest of the plan that the files gave, if they gave one.
    pub digest: Option<String>,
    pub phases_ms: BTreeMap<&'static str, f64>,
    pub changes: Vec<String>,
    pub errors: Vec<String>,
    pub warnings: Vec<String>,
    /// Attempts in a row, including this one, that failed for a reason which may pass.
    pub failures: u32,
    /// The time until the next attempt after such a failure.
    pub retry_in_ms: Option<u64>,
}

/// What is being built.
#[derive(Clone, Debug, Serialize)]
pub struct Building {
    pub trigger: Trigger,
    /// Seconds since 1970.
    pub since: f64,
    /// `reading` or `loading`.
    pub phase: &'static str,
    /// Attempts that wait for this one.
    pub waiting: usize,
}

/// A generation that is kept or still in use.
#[derive(Clone, Debug, Serialize)]
pub struct Generation {
    pub generation: u64,
    pub digest: String,
    /// `live`, `canary`, `previous` (kept for a rollback) or `retired` (waiting for its last
    /// requests).
    pub state: &'static str,
    /// Requests that use it now.
    pub requests: usize,
}

/// How far the introduction of a new policy is.
#[derive(Clone, Debug, Serialize)]
pub struct Progress {
    /// `shadow`, `canary` or `watch`.
    pub stage: &'static str,
    pub generation: u64,
    /// Percent of the requests.
    pub share: f64,
    /// When the stage began and when it may end, in seconds since 1970.
    pub since: f64,
    pub next_at: f64,
    /// From `model:version` to its numbers in this stage.
    pub judged: BTreeMap<String, Judged>,
    pub shadow: Option<Compared>,
}

/// A route on both sides.
#[derive(Clone, Debug, Serialize)]
pub struct Judged {
    #[serde(flatten)]
    pub new: RouteNumbers,
    pub old: RouteNumbers,
}

#[derive(Clone, Debug, Serialize)]
pub struct RouteNumbers {
    pub requests: u64,
    /// Faults that count.
    pub faults: u64,
    /// Requests that the model's graph refused.
    pub refused: u64,
    /// Faults and refusals that were replayed on the version before, and those that it answered.
    pub replayed: u64,
    pub confirmed: u64,
    pub fault_rate: f64,
    pub p95_ms: f64,
}

/// The results of the copies of requests.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Compared {
    pub requests: u64,
    pub differences: u64,
    pub faults: u64,
    pub dropped: u64,
}

/// Everything that operators may want to know about the policy.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub generation: u64,
    pub digest: String,
    pub since: f64,
    pub stale: bool,
    pub stale_reason: Option<String>,
    /// Set while a policy is built.
    pub building: Option<Building>,
    pub mode: &'static str,
    pub manifest: PathBuf,
    pub generations: Vec<Generation>,
    /// Set while a new policy is introduced or watched.
    pub rollout: Option<Progress>,
    pub last_reload: Record,
    /// The changes of model control to the manifest.
    pub model_control: Overlay,
    pub description: Description,
}

/// What an operator must know first.
pub struct Summary {
    /// Why the files differ from what serves, if they do.
    pub stale_reason: Option<String>,
    /// Set while a new policy is introduced or watched.
    pub rollout: Option<Progress>,
}

impl Record {
    pub(super) fn new(trigger: Trigger) -> Self {
        Record {
            outcome: ReloadOutcome::Applied,
            trigger,
            at: seconds(SystemTime::now()),
            generation: 1,
            digest: None,
            phases_ms: BTreeMap::new(),
            changes: Vec::new(),
            errors: Vec::new(),
            warnings: Vec::new(),
            failures: 0,
            retry_in_ms: None,
        }
    }
}
