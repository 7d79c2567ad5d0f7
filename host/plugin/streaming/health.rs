//! The health of a replica: whether its instance takes calls, and if not, why and until when.

use crate::error::Error;
use crate::lock::LockUnpoisoned;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Instances that may be lost in a row, none of which has completed a call, before the replica is
/// quarantined.
pub(super) const QUARANTINE_AFTER: u32 = 8;

/// A fault that lasts longer than this needs a person; a fault that passes by itself must not wait
/// for one.
const QUARANTINE: Duration = Duration::from_secs(60);

/// The longest pause before another attempt to make an instance.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, Default)]
enum Phase {
    #[default]
    Ready,
    /// The guest itself reports that it is not ready.
    Unready,
    Pausing(Error),
    Quarantined(Error, Instant),
}

/// The status of a replica, as shown to operators.
pub struct ReplicaStatus {
    /// `ready`, `not ready`, `restarting` or `quarantined`.
    pub state: &'static str,
    pub in_flight: usize,
    /// Instances lost since the start.
    pub lost: u64,
    /// Why it takes no calls; `None` if it takes calls.
    pub reason: Option<String>,
}

#[derive(Default)]
pub(super) struct ReplicaHealth {
    inner: Mutex<Inner>,
    wake: Notify,
}

#[derive(Default)]
struct Inner {
    phase: Phase,
    /// Losses in a row, without a completed call.
    losses: u32,
    lost: u64,
}

impl ReplicaHealth {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock_unpoisoned()
    }

    /// Records that an instance exists, and whether it is ready. Returns whether that is a change.
    pub fn set_ready(&self, ready: bool) -> bool {
        let mut inner = self.lock();
        let before = matches!(inner.phase, Phase::Ready);
        inner.phase = if ready { Phase::Ready } else { Phase::Unready };
        before != ready
    }

    /// Records that an instance was lost or could not be made. Returns the pause before the next
    /// attempt.
    pub fn record_loss(&self, fault: &Error, served: bool) -> Duration {
        let mut inner = self.lock();
        inner.lost += 1;
        inner.losses = if served { 1 } else { inner.losses.saturating_add(1) };
        let losses = inner.losses;
        let (phase, pause) = match losses {
            // After an instance that has served, another one is made immediately; calls that arrive
            // meanwhile can wait for it. The same applies to a first failure.
            0 | 1 => return Duration::ZERO,
            2..QUARANTINE_AFTER => {
                let pause = Duration::from_millis(10 << (losses - 1).min(10)).min(BACKOFF_MAX);
                (Phase::Pausing(fault.clone()), pause)
            }
            _ => (Phase::Quarantined(fault.clone(), Instant::now() + QUARANTINE), QUARANTINE),
        };
        inner.phase = phase;
        pause
    }

    pub fn is_quarantined(&self) -> bool {
        matches!(self.lock().phase, Phase::Quarantined(..))
    }

    /// Ends a pause or a quarantine, and resets the count of losses.
    pub fn lift_quarantine(&self) {
        let mut inner = self.lock();
        if matches!(inner.phase, Phase::Pausing(_) | Phase::Quarantined(..)) {
            inner.losses = 0;
            drop(inner);
            self.wake.notify_one();
        }
    }

    /// Waits for `pause`, or until it is lifted.
    pub async fn pause(&self, pause: Duration) {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = self.wake.notified() => {}
        }
    }

    /// Returns why the replica takes no calls; `None` if it takes calls.
    pub fn refusal(&self) -> Option<Error> {
        let message = match &self.lock().phase {
            Phase::Ready => return None,
            Phase::Unready => "it reports that it is not ready".to_owned(),
            Phase::Pausing(fault) => format!("it has no instance at the moment: {fault}"),
            Phase::Quarantined(fault, until) => {
                let seconds = until.saturating_duration_since(Instant::now()).as_secs();
                format!(
                    "it is quarantined: {QUARANTINE_AFTER} instances in a row were lost before they completed a request; the \
                     next attempt is in {seconds} s, or when its file changes or an operator reloads: {fault}"
                )
            }
        };
        Some(Error::unavailable(message))
    }

    pub fn status(&self, in_flight: usize) -> ReplicaStatus {
        let reason = self.refusal().map(|error| error.message().to_owned());
        let inner = self.lock();
        let state = match &inner.phase {
            Phase::Ready => "ready",
            Phase::Unready => "not ready",
            Phase::Pausing(_) => "restarting",
            Phase::Quarantined(..) => "quarantined",
        };
        ReplicaStatus { state, in_flight, lost: inner.lost, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault() -> Error {
        Error::failed("it fell over")
    }

    #[test]
    fn pauses_grow_until_the_quarantine_and_a_served_call_ends_them() {
        let health = ReplicaHealth::default();
        assert_eq!(health.record_loss(&fault(), false), Duration::ZERO);
        assert!(health.refusal().is_none(), "the next one is made at once");
        let pauses: Vec<u128> =
            (2..QUARANTINE_AFTER).map(|_| health.record_loss(&fault(), false).as_millis()).collect();
        assert_eq!(pauses, [20, 40, 80, 160, 320, 640]);
        assert!(
            health.refusal().unwrap().message().contains("it has no instance at the moment: it fell over")
        );
        assert!(!health.is_quarantined());
        assert_eq!(health.record_loss(&fault(), false), QUARANTINE);
        assert!(health.is_quarantined() && health.refusal().unwrap().message().contains("it fell over"));
        // The next attempt succeeds and serves.
        health.set_ready(true);
        assert!(health.refusal().is_none());
        assert_eq!(health.record_loss(&fault(), true), Duration::ZERO);
    }

    #[tokio::test]
    async fn a_quarantine_can_be_lifted() {
        let health = ReplicaHealth::default();
        let last = (0..QUARANTINE_AFTER).map(|_| health.record_loss(&fault(), false)).last().unwrap();
        health.lift_quarantine();
        tokio::time::timeout(Duration::from_secs(30), health.pause(last)).await.expect("it waits no longer");
        assert_eq!(health.record_loss(&fault(), false), Duration::ZERO, "and what was is forgotten");
    }
}
