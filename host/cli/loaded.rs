//! A manifest that is loaded for a command.

use crate::app;
use crate::error::Result;
use crate::metrics::Metrics;
use crate::policy::files::Files;
use crate::policy::plan::Plan;
use crate::policy::{Loader, PolicyContent};
use std::sync::Arc;

/// A manifest that was loaded and checked, without listeners.
pub(super) struct Loaded {
    pub content: Arc<PolicyContent>,
    pub runtime: tokio::runtime::Runtime,
}

impl Loaded {
    pub fn new(plan: Plan, files: &Files) -> Result<Self> {
        let runtime = app::runtime(&plan.settings)?;
        let loader: Loader = app::loader(&plan.settings, &Arc::new(Metrics::new()), runtime.handle())?;
        let content = loader.load(plan, files, &[], &mut Default::default())?;
        Ok(Loaded { content, runtime })
    }
}
