//! Files that must not go live again until they change.

use crate::policy::plan::Plan;
use std::collections::VecDeque;

/// What the files of a plan say, by digest, and the settings that a verdict on them depends on
/// besides.
#[derive(Clone, PartialEq)]
pub(super) struct Written {
    digest: String,
    /// What bounds the load, and does not change what is served.
    load: String,
    /// The thresholds of the guard.
    guard: String,
}

impl Written {
    pub fn of(plan: &Plan) -> Self {
        let reload = &plan.reload;
        let compile: Vec<_> = plan.plugins.values().map(|plugin| &plugin.limits.compile).collect();
        // Checks of models without a timeout have the default one.
        let times = (reload.model_load_timeout, plan.settings.limits.default_timeout);
        Written {
            digest: plan.written.clone(),
            load: format!("{compile:?} {times:?}"),
            guard: format!("{:?} {:?}", reload.guard, reload.canary),
        }
    }

    pub fn has_files_of(&self, plan: &Plan) -> bool {
        self.digest == plan.written
    }
}

/// Who refused files. A verdict holds until the files change, or the settings that it depends on.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Verdict {
    /// They did not load.
    NotLoaded,
    Guard,
    Operator,
}

struct Entry {
    written: Written,
    verdict: Verdict,
    /// One line for each fault.
    why: Vec<String>,
}

impl Entry {
    fn holds_for(&self, other: &Written) -> bool {
        let Written { digest, load, guard } = &self.written;
        *digest == other.digest
            && match self.verdict {
                Verdict::NotLoaded => *load == other.load,
                Verdict::Guard => *guard == other.guard,
                Verdict::Operator => true,
            }
    }
}

/// What the files said when they were rolled back or failed to load, and why. Keeps only the latest
/// few.
#[derive(Default)]
pub(super) struct Refused(VecDeque<Entry>);

impl Refused {
    const KEPT_MAX: usize = 8;

    pub fn insert(&mut self, written: Written, verdict: Verdict, why: Vec<String>) {
        self.0.retain(|known| known.written.digest != written.digest);
        self.0.truncate(Self::KEPT_MAX - 1);
        self.0.push_front(Entry { written, verdict, why });
    }

    /// Returns why these files are refused. They count as the latest ones then.
    pub fn why(&mut self, written: &Written) -> Option<Vec<String>> {
        let at = self.0.iter().position(|known| known.holds_for(written))?;
        let entry = self.0.remove(at)?;
        let why = entry.why.clone();
        self.0.push_front(entry);
        Some(why)
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }
}
