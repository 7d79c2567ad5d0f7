//! A manifest that is loaded for a command.

use crate::access::Access;
use crate::app;
use crate::error::Result;
use crate::metrics::Metrics;
use crate::policy::files::Files;
use crate::policy::plan::Plan;
use crate::policy::{Loader, PolicyContent};
use std::sync::Arc;

/// A manifest that was loaded and checked, without listeners.
pub(super) struct Loaded {
    metrics: Arc<Metrics>,
    pub content: Arc<PolicyContent>,
    pub runtime: tokio::runtime::Runtime,
}

impl Loaded {
    pub fn new(plan: Plan, files: &Files) -> Result<Self> {
        let runtime = app::runtime(&plan.settings)?;
        let metrics = Arc::new(Metrics::new());
        let access = match &plan.settings.access_rules {
            None => None,
            Some(rules) => Some(Arc::new(Access::open(rules, &metrics)?)),
        };
        let loader: Loader = app::loader(&plan.settings, &metrics, runtime.handle(), access)?;
        let content = loader.load(plan, files, &[], &mut Default::default())?;
        Ok(Loaded { metrics, content, runtime })
    }

    /// Returns the largest linear memory of one instance of a plugin so far, in bytes.
    pub fn memory_largest(&self, plugin: &str) -> u64 {
        let largest = self.metrics.plugins.memory_largest_bytes.with_label_values(&[plugin]);
        largest.get().try_into().unwrap_or_default()
    }

    /// Returns how many instances of plugins were made so far, and the seconds that took.
    pub fn instantiations(&self) -> (u64, f64) {
        let instantiate = &self.metrics.plugins.instantiate;
        (instantiate.get_sample_count(), instantiate.get_sample_sum())
    }
}
