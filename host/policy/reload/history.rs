//! What the reload thread remembers and an operator may see: the last record, what is kept, what goes on.

use crate::policy::record::{Building, Generation, Record, ReloadOutcome, Report, seconds};
use crate::policy::rollout::Rollout;
use crate::policy::{LivePolicy, Policy};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

pub(super) struct Shared {
    pub live: Arc<LivePolicy>,
    pub history: Mutex<History>,
    pub path: PathBuf,
}

pub(super) struct History {
    pub last: Record,
    pub previous: Option<Arc<Policy>>,
    pub retired: Vec<Weak<Policy>>,
    /// Why the files are not what serves, if they are not.
    pub stale: Option<String>,
    pub rollout: Option<Rollout>,
    /// The model that model control is loading.
    pub loading: Option<String>,
    /// What is being built.
    pub building: Option<Building>,
}

impl History {
    /// Of a process that has just loaded its first policy.
    pub fn new(record: &Record) -> Self {
        let fallback = record.outcome == ReloadOutcome::Fallback;
        let reason = || record.errors.first().cloned().unwrap_or_else(|| record.outcome.as_str().into());
        History {
            last: record.clone(),
            previous: None,
            retired: Vec::new(),
            stale: fallback.then(reason),
            rollout: None,
            loading: None,
            building: None,
        }
    }

    /// Remembers a policy for as long as a request runs on it.
    pub fn retire(&mut self, policy: &Arc<Policy>) {
        self.retired.retain(|policy| policy.strong_count() > 0);
        self.retired.push(Arc::downgrade(policy));
    }
}

impl Shared {
    pub fn history(&self) -> MutexGuard<'_, History> {
        // A panic is survived, and leaves no change half done here.
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Plugins that nothing which serves has any more are to end their calls; those that are back need not.
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

    pub fn report(&self) -> Report {
        let serving = self.live.0.load_full();
        let policy = Arc::clone(&serving.stable);
        let history = self.history();
        // Each request holds its policy; so do this snapshot, the live slot and the history.
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
            stale: history.stale.is_some(),
            stale_reason: history.stale.clone(),
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
