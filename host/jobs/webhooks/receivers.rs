//! The attempts in flight, by receiver.
//!
//! A receiver that answers may have a quarter of all attempts. One that did not answer its latest
//! attempt has one at a time, and all of those together have a quarter: however many there are, and
//! however slow, the others go on.

use crate::lock::LockUnpoisoned;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How long it is remembered that a receiver did not answer. Longer than the longest pause between
/// two attempts.
const SILENCE_TIME: Duration = Duration::from_secs(600);

/// Receivers that are remembered. With more, all without an attempt in flight are forgotten: they
/// are tried as if they were new.
const RECEIVERS_MAX: usize = 1024;

#[derive(Default)]
pub(in crate::jobs) struct Receivers {
    state: Mutex<State>,
    /// Notified when an attempt has ended.
    ended: Notify,
}

#[derive(Clone, Default)]
struct State {
    in_flight: usize,
    receivers: HashMap<Arc<str>, Receiver>,
}

#[derive(Clone, Default)]
struct Receiver {
    in_flight: usize,
    /// When it did not answer; `None` if it has answered since.
    silent_since: Option<Instant>,
}

/// How many attempts may begin: in total, and to each receiver.
pub(super) struct Capacity {
    pub total: usize,
    state: State,
    share: usize,
    /// Whether it is for receivers that did not answer.
    is_for_silent: bool,
}

/// An attempt in flight.
pub(super) struct InFlight {
    receivers: Arc<Receivers>,
    receiver: Arc<str>,
}

impl Receivers {
    /// Returns the capacity for receivers that answer, and for those that do not, if there may be
    /// `max` attempts at once.
    pub(super) fn capacity(&self, max: usize) -> [Capacity; 2] {
        let mut state = self.state.lock_unpoisoned();
        let has_room = state.receivers.len() <= RECEIVERS_MAX;
        state.receivers.retain(|_, receiver| {
            receiver.in_flight > 0
                || has_room && receiver.silent_since.is_some_and(|since| since.elapsed() < SILENCE_TIME)
        });
        let share = (max / 4).max(1);
        let silent = state.receivers.values().filter(|receiver| receiver.silent_since.is_some());
        let silent_in_flight: usize = silent.map(|receiver| receiver.in_flight).sum();
        let free = max.saturating_sub(state.in_flight);
        // The share of silent receivers is kept free for them.
        let free_for_silent = free.min(share.saturating_sub(silent_in_flight));
        let answering =
            Capacity { total: free - free_for_silent, state: state.clone(), share, is_for_silent: false };
        let silent = Capacity { total: free_for_silent, state: state.clone(), share, is_for_silent: true };
        [answering, silent]
    }

    pub(super) fn begin(self: &Arc<Self>, receiver: &Arc<str>) -> InFlight {
        let mut state = self.state.lock_unpoisoned();
        state.in_flight += 1;
        state.receivers.entry(Arc::clone(receiver)).or_default().in_flight += 1;
        InFlight { receivers: Arc::clone(self), receiver: Arc::clone(receiver) }
    }

    /// Returns when an attempt has ended after this was called.
    pub(super) fn ended(&self) -> tokio::sync::futures::Notified<'_> {
        self.ended.notified()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.state.lock_unpoisoned().in_flight == 0
    }
}

impl Capacity {
    pub fn of(&self, receiver: &str) -> usize {
        match self.state.receivers.get(receiver) {
            Some(known) if known.silent_since.is_some() => {
                usize::from(self.is_for_silent && known.in_flight == 0)
            }
            _ if self.is_for_silent => 0,
            Some(known) => self.share.saturating_sub(known.in_flight),
            None => self.share,
        }
    }
}

impl InFlight {
    /// Records whether the receiver has answered, whatever it said.
    pub fn answered(&self, has_answered: bool) {
        let mut state = self.receivers.state.lock_unpoisoned();
        if let Some(receiver) = state.receivers.get_mut(&self.receiver) {
            receiver.silent_since = (!has_answered).then(Instant::now);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut state = self.receivers.state.lock_unpoisoned();
        state.in_flight -= 1;
        if let Some(receiver) = state.receivers.get_mut(&self.receiver) {
            receiver.in_flight -= 1;
        }
        drop(state);
        self.receivers.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capacities(receivers: &Receivers, name: &str) -> (usize, usize) {
        let [answering, silent] = receivers.capacity(8);
        (answering.of(name).min(answering.total), silent.of(name).min(silent.total))
    }

    #[test]
    fn receivers_that_do_not_answer_leave_room_for_the_others() {
        let receivers = Arc::<Receivers>::default();
        let [down, up, other]: [Arc<str>; 3] = ["down".into(), "up".into(), "other".into()];
        assert_eq!(capacities(&receivers, "down"), (2, 0));
        let attempts = [receivers.begin(&down), receivers.begin(&down)];
        assert_eq!(capacities(&receivers, "down"), (0, 0), "it has its share");
        attempts[0].answered(false);
        drop(attempts);
        assert_eq!(capacities(&receivers, "down"), (0, 1), "one at a time");
        let attempt = receivers.begin(&down);
        assert_eq!(capacities(&receivers, "down"), (0, 0));
        for name in [&up, &other] {
            receivers.begin(name).answered(false);
        }
        let second = receivers.begin(&other);
        assert_eq!(capacities(&receivers, "up"), (0, 0), "silent receivers have a quarter");
        assert_eq!(capacities(&receivers, "new"), (2, 0), "the others have the rest");
        drop(second);
        let probe = receivers.begin(&up);
        probe.answered(true);
        drop((attempt, probe));
        assert_eq!(capacities(&receivers, "up"), (2, 0), "it is back");
        assert!(receivers.is_idle());
    }

    #[tokio::test]
    async fn the_end_of_an_attempt_is_announced() {
        let receivers = Arc::<Receivers>::default();
        let attempt = receivers.begin(&"a".into());
        let ended = receivers.ended();
        drop(attempt);
        ended.await;
    }
}
