//! Makes the client for webhooks of a plan, or takes it from an earlier policy, with its
//! connections.

use super::loader::Loader;
use crate::error::Result;
use crate::policy::content::PolicyContent;
use crate::policy::files::Files;
use crate::policy::plan::Plan;
use crate::policy::webhooks::Webhooks;
use std::sync::Arc;

impl Loader {
    pub(super) fn webhooks(
        &self,
        plan: &Plan,
        files: &Files,
        reuse: &[Arc<PolicyContent>],
    ) -> Result<Option<Arc<Webhooks>>> {
        let Some(wanted) = &plan.webhooks else { return Ok(None) };
        let mut known = reuse.iter().filter_map(|old| old.webhooks.as_ref());
        if let Some(known) = known.find(|known| known.plan == *wanted) {
            return Ok(Some(Arc::clone(known)));
        }
        let ca = wanted.ca.as_ref().map(|file| files.read(file)).transpose()?;
        Ok(Some(Arc::new(Webhooks::new(wanted.clone(), ca.as_deref())?)))
    }
}
