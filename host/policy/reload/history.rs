//! What the reload thread remembers, and shows to operators: the last record, older policies, work
//! in progress.

use super::records::Records;
use crate::lock::LockUnpoisoned;
use crate::policy::content::Policy;
use crate::policy::live::{LivePolicy, Serving};
use crate::policy::record::{Building, Generation, Record, ReloadOutcome, Report, Summary};
use crate::policy::rollout::Rollout;
use crate::timestamp::seconds;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

pub(super) struct Shared {
    pub live: Arc<LivePolicy>,
    pub history: Mutex<History>,
    pub path: PathBuf,
}

pub(super) struct History {
    last: Record,
    pub records: Records,
    pub previous: Option<Arc<Policy>>,
    pub retired: Vec<Weak<Policy>>,
    files: FilesState,
    /// Why the files differ from what serves, derived by `update_stale`.
    stale: Option<String>,
    pub rollout: Option<Rollout>,
    /// The model that model control is loading.
    pub loading: Option<String>,
    /// What is being built.
    pub building: Option<Building>,
}

/// What the last reading of the files came to.
enum FilesState {
    /// A policy that serves or served, by the digest of what its files say.
    Served(String),
    /// No policy, and why.
    NotServed(String),
}

impl History {
    /// Returns the history of a process that has just loaded its first policy.
    pub fn new(record: &Record, policy: &Policy) -> Self {
        let is_fallback = record.outcome == ReloadOutcome::Fallback;
        let mut records = Records::default();
        records.push(record.clone());
        History {
            last: record.clone(),
            records,
            previous: None,
            retired: Vec::new(),
            files: match is_fallback {
                true => FilesState::NotServed(reason(record)),
                false => FilesState::Served(policy.content.plan.written.clone()),
            },
            stale: is_fallback.then(|| reason(record)),
            rollout: None,
            loading: None,
            building: None,
        }
    }

    /// Keeps the record of the latest reload.
    pub fn keep(&mut self, record: &Record) {
        self.last = record.clone();
        self.records.push(record.clone());
    }

    /// Remembers a policy for as long as a request runs on it.
    pub fn retire(&mut self, policy: &Arc<Policy>) {
        self.retired.retain(|policy| policy.strong_count() > 0);
        self.retired.push(Arc::downgrade(policy));
    }

    /// Remembers what a reading of the files came to. `serving` is what serves as its result.
    pub fn files_were_read(&mut self, record: &Record, serving: &Serving) {
        let candidate = serving.candidate.as_ref().map(|candidate| &candidate.policy);
        let policy = match record.outcome {
            ReloadOutcome::Applied | ReloadOutcome::Unchanged => Some(&serving.stable),
            ReloadOutcome::RollingOut => candidate,
            ReloadOutcome::WouldApply
            | ReloadOutcome::Rejected
            | ReloadOutcome::Pending
            | ReloadOutcome::Refused
            | ReloadOutcome::RolledBack
            | ReloadOutcome::Fallback => None,
        };
        self.files = match policy {
            Some(policy) => FilesState::Served(policy.content.plan.written.clone()),
            None => FilesState::NotServed(reason(record)),
        };
    }

    /// Derives whether the files differ from what serves now, and why. `record` is that of the
    /// latest change.
    pub fn update_stale(&mut self, record: &Record, serving: &Serving) {
        let candidate = serving.candidate.as_ref().map(|candidate| &candidate.policy);
        let mut policies = [Some(&serving.stable), candidate].into_iter().flatten();
        self.stale = match &self.files {
            FilesState::NotServed(why) => Some(why.clone()),
            FilesState::Served(written) if policies.any(|policy| policy.content.plan.written == *written) => {
                None
            }
            // The policy was rolled back. The first record since then says so.
            FilesState::Served(_) => Some(self.stale.take().unwrap_or_else(|| reason(record))),
        };
    }

    /// Returns why the files differ from what serves; `None` if they do not.
    pub fn stale(&self) -> Option<&String> {
        self.stale.as_ref()
    }
}

fn reason(record: &Record) -> String {
    record.errors.first().cloned().unwrap_or_else(|| record.outcome.as_str().into())
}

impl Shared {
    pub fn history(&self) -> MutexGuard<'_, History> {
        // The reload thread survives a panic, and no change here is left half done.
        self.history.lock_unpoisoned()
    }

    /// Tells streaming models that no serving policy uses any more to end their calls, and
    /// withdraws that for those that serve again.
    pub fn drain_replaced(&self) {
        let contents = self.live.contents();
        let serving: Vec<_> = contents.iter().flat_map(|content| content.shared_plugins()).collect();
        let drain = |policy: &Policy| {
            let replaced = policy.content.shared_plugins();
            replaced
                .filter(|plugin| !serving.iter().any(|serving| Arc::ptr_eq(serving, plugin)))
                .for_each(|plugin| plugin.set_replaced(true));
        };
        let history = self.history();
        history.previous.iter().for_each(|policy| drain(policy));
        history.retired.iter().filter_map(Weak::upgrade).for_each(|policy| drain(&policy));
        serving.iter().for_each(|plugin| plugin.set_replaced(false));
    }

    pub fn summary(&self) -> Summary {
        let history = self.history();
        Summary {
            stale_reason: history.stale().cloned(),
            rollout: history.rollout.as_ref().map(Rollout::progress),
        }
    }

    pub fn report(&self) -> Report {
        let serving = self.live.0.load_full();
        let policy = Arc::clone(&serving.stable);
        let history = self.history();
        // Each request holds its policy, and so do this snapshot, the live slot and the history.
        let entry = |policy: &Arc<Policy>, state, held_by_us: usize| Generation {
            generation: policy.generation,
            digest: policy.content.plan.digest.clone(),
            state,
            requests: Arc::strong_count(policy).saturating_sub(held_by_us),
        };
        let mut generations = vec![entry(&policy, "live", 2)];
        let candidate = serving.candidate.as_ref().map(|candidate| entry(&candidate.policy, "canary", 1));
        generations.extend(candidate);
        generations.extend(history.previous.iter().map(|policy| entry(policy, "previous", 1)));
        let retired = history.retired.iter().filter_map(Weak::upgrade);
        generations.extend(retired.map(|policy| entry(&policy, "retired", 1)));
        let plan = &policy.content.plan;
        Report {
            generation: policy.generation,
            digest: plan.digest.clone(),
            since: seconds(policy.since),
            stale: history.stale().is_some(),
            stale_reason: history.stale().cloned(),
            building: history.building.clone(),
            mode: if plan.reload.watch { "watch" } else { "manual" },
            manifest: self.path.clone(),
            generations,
            rollout: history.rollout.as_ref().map(Rollout::progress),
            last_reload: history.last.clone(),
            model_control: plan.overlay.clone(),
            description: plan.description.clone(),
        }
    }
}
