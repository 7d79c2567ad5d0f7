//! Claims pending jobs while there are free slots, and starts tasks that run them. A task claims
//! the next job when its job ends, so this finds jobs only for slots that were free.

use super::registry::JobRegistry;
use super::run;
use super::slots::Slot;
use crate::error::Result;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// How long to wait after the store was unavailable.
const PAUSE: Duration = Duration::from_millis(500);

/// Runs until the host stops accepting jobs. A claim is never dropped halfway: its jobs would have
/// no task.
pub(super) async fn claim_jobs(registry: Weak<JobRegistry>) {
    let Some(registry) = registry.upgrade() else { return };
    let mut closing = registry.closing.subscribe();
    let mut ready = registry.store().ready();
    loop {
        let slots = tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => return,
            slots = registry.slots.take_free() => slots,
        };
        ready.mark_unchanged();
        let wait = match claim(&registry, slots).await {
            Ok(0) => None,
            Ok(_) => continue,
            Err(error) => {
                tracing::debug!("cannot claim jobs: {error}");
                Some(PAUSE)
            }
        };
        tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => return,
            () = tokio::time::sleep(wait.unwrap_or(Duration::MAX)), if wait.is_some() => {}
            _ = ready.changed(), if wait.is_none() => {}
        }
    }
}

/// Claims up to one job for each slot, and returns how many there were.
async fn claim(registry: &Arc<JobRegistry>, mut slots: Vec<Slot>) -> Result<usize> {
    let claimed = registry.store().claim(registry.claim_up_to(slots.len())).await?;
    let count = claimed.len();
    for claimed in claimed {
        let slot = slots.pop().expect("invariant: no more jobs than slots");
        let claim = registry.activate(claimed);
        registry.config.runtime.spawn(run::run(Arc::clone(registry), claim, slot));
    }
    registry.publish_usage();
    Ok(count)
}
