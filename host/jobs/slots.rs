//! Slots: how many jobs may have an attempt at once.

use crate::lock::LockUnpoisoned;
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;

pub(super) struct Slots {
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    limit: usize,
    held: usize,
}

/// Permission to run an attempt.
pub(super) struct Slot(Arc<Slots>);

impl Slots {
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Slots { state: Mutex::new(State { limit, held: 0 }), changed: Notify::new() })
    }

    /// Waits until there is a free slot, and takes all that are free. For one task only.
    pub async fn take_free(self: &Arc<Self>) -> Vec<Slot> {
        loop {
            let free = {
                let mut state = self.state.lock_unpoisoned();
                let free = state.limit.saturating_sub(state.held);
                state.held += free;
                free
            };
            if free > 0 {
                return (0..free).map(|_| Slot(Arc::clone(self))).collect();
            }
            self.changed.notified().await;
        }
    }

    /// Changes the number of slots. A lower number does not revoke slots that are held.
    pub fn resize(&self, limit: usize) {
        self.state.lock_unpoisoned().limit = limit;
        self.changed.notify_one();
    }
}

impl Slot {
    /// Whether the slot may be used for another job. It may not while more slots are held than
    /// there are.
    pub fn is_wanted(&self) -> bool {
        let state = self.0.state.lock_unpoisoned();
        state.held <= state.limit
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.state.lock_unpoisoned().held -= 1;
        self.0.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn free(slots: &Arc<Slots>) -> Option<Vec<Slot>> {
        slots.take_free().now_or_never()
    }

    #[test]
    fn no_more_slots_are_held_than_there_are() {
        let slots = Slots::new(2);
        let mut held = free(&slots).expect("both are free");
        assert_eq!(held.len(), 2);
        assert!(free(&slots).is_none());
        held.pop();
        assert_eq!(free(&slots).expect("one is free").len(), 1);
    }

    #[test]
    fn the_limit_can_change() {
        let slots = Slots::new(1);
        let held = free(&slots).expect("it is free");
        slots.resize(3);
        let more = free(&slots).expect("two more are free");
        assert_eq!((held.len(), more.len()), (1, 2));
        assert!(held[0].is_wanted());
        slots.resize(1);
        assert!(!held[0].is_wanted());
        drop(more);
        assert!(held[0].is_wanted());
        assert!(free(&slots).is_none(), "one is held, which is the limit");
        drop(held);
        assert_eq!(free(&slots).expect("it is free").len(), 1);
    }
}
