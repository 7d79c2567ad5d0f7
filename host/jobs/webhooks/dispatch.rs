//! Claims deliveries that are due, and starts their attempts.

use super::attempt::attempt;
use super::delivery::DeliveryClaim;
use crate::error::Result;
use crate::jobs::registry::JobRegistry;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Attempts at once while the manifest has no `[jobs.webhooks]`; they fail immediately.
const IN_FLIGHT_WITHOUT: usize = 8;

/// How much longer a claim holds than an attempt may take: time to record the outcome.
const LEASE_MARGIN: Duration = Duration::from_secs(60);

/// The longest wait for an event. Changed limits take effect after it.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// How long to wait after the store was unavailable.
const PAUSE: Duration = Duration::from_millis(500);

/// Runs until the registry is dropped, or the host stops and deliveries outlive it.
pub(in crate::jobs) async fn deliver(registry: Weak<JobRegistry>) {
    let Some(first) = registry.upgrade() else { return };
    let (mut ready, receivers) = (first.store().ready(), Arc::clone(&first.receivers));
    drop(first);
    loop {
        // Before the look, so that no event in between is missed.
        ready.mark_unchanged();
        let mut ended = std::pin::pin!(receivers.ended());
        ended.as_mut().enable();
        let wait = {
            let Some(registry) = registry.upgrade() else { return };
            if *registry.closing.borrow() && registry.store().is_durable() {
                return;
            }
            match start_due(&registry).await {
                Ok(()) => {
                    let now = registry.store().now();
                    let next = registry.store().next_delivery(Some(now));
                    // The clock of the store counts milliseconds.
                    next.map_or(WAIT_MAX, |at| now.until(at) + Duration::from_millis(1)).min(WAIT_MAX)
                }
                Err(error) => {
                    tracing::debug!("cannot claim webhooks: {error}");
                    PAUSE
                }
            }
        };
        tokio::select! {
            _ = ready.changed() => {}
            () = ended => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Starts the attempts for which there is room.
async fn start_due(registry: &Arc<JobRegistry>) -> Result<()> {
    // Every change of a job comes here, and most hosts have nothing to deliver.
    let store = registry.store();
    if store.next_delivery(None).is_none_or(|due| due > store.now()) {
        return Ok(());
    }
    let webhooks = registry.config.router.policy().content.webhooks.clone();
    let limits = webhooks.as_ref().map(|webhooks| &webhooks.plan.limits);
    let max = limits.map_or(IN_FLIGHT_WITHOUT, |limits| limits.in_flight);
    let lease = limits.map_or(Duration::ZERO, |limits| limits.timeout) + LEASE_MARGIN;
    for capacity in registry.receivers.capacity(max) {
        let limit = capacity.total;
        let capacity: super::ReceiverCapacity = Arc::new(move |receiver| capacity.of(receiver));
        for delivery in registry.store().claim_deliveries(DeliveryClaim { limit, lease, capacity }).await? {
            let in_flight = registry.receivers.begin(&delivery.webhook.receiver);
            registry.config.runtime.spawn(attempt(Arc::clone(registry), delivery, in_flight, lease));
        }
    }
    Ok(())
}

/// Returns when no attempt is in flight. If deliveries do not outlive the process, none is due
/// either.
pub(in crate::jobs) async fn drained(registry: &JobRegistry) {
    loop {
        let mut ended = std::pin::pin!(registry.receivers.ended());
        ended.as_mut().enable();
        let store = registry.store();
        let is_due = !store.is_durable() && store.next_delivery(None).is_some_and(|at| at <= store.now());
        if registry.receivers.is_idle() && !is_due {
            return;
        }
        ended.await;
    }
}
