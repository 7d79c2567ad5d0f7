//! Slots: how many jobs may have an attempt at once. The longest waiting job is next.

use crate::lock::LockUnpoisoned;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::oneshot;

/// Up to this many cancelled waiters may stay in the queue before it is swept.
const SWEEP_FROM: usize = 64;

pub(super) struct Slots(Mutex<State>);

struct State {
    limit: usize,
    held: usize,
    waiting: VecDeque<oneshot::Sender<Slot>>,
    sweep_at: usize,
}

/// Permission to run an attempt. Passed to the next waiter when dropped.
pub(super) struct Slot(Arc<Slots>);

impl Slots {
    pub fn new(limit: usize) -> Arc<Self> {
        let state = State { limit, held: 0, waiting: VecDeque::new(), sweep_at: SWEEP_FROM };
        Arc::new(Slots(Mutex::new(state)))
    }

    /// Enters the queue immediately. Dropping the receiver leaves it.
    pub fn queue(self: &Arc<Self>) -> oneshot::Receiver<Slot> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut state = self.lock();
            if state.waiting.len() >= state.sweep_at {
                state.waiting.retain(|waiter| !waiter.is_closed());
                state.sweep_at = (state.waiting.len() * 2).max(SWEEP_FROM);
            }
            state.waiting.push_back(sender);
        }
        self.assign_free();
        receiver
    }

    /// Changes the number of slots. A lower number does not revoke slots that are held.
    pub fn resize(self: &Arc<Self>, limit: usize) {
        self.lock().limit = limit;
        self.assign_free();
    }

    fn assign_free(self: &Arc<Self>) {
        loop {
            let next = self.lock().next();
            let Some(waiter) = next else { return };
            // Sent without the lock: if the waiter has just left, the slot is dropped here and
            // takes the lock.
            let _ = waiter.send(Slot(Arc::clone(self)));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock_unpoisoned()
    }
}

impl State {
    /// Removes the next waiter from the queue, and counts its slot as held.
    fn next(&mut self) -> Option<oneshot::Sender<Slot>> {
        while self.held < self.limit {
            let waiter = self.waiting.pop_front()?;
            if !waiter.is_closed() {
                self.held += 1;
                return Some(waiter);
            }
        }
        None
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.lock().held -= 1;
        self.0.assign_free();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(place: &mut oneshot::Receiver<Slot>) -> Option<Slot> {
        place.try_recv().ok()
    }

    #[test]
    fn slots_go_to_who_waits_longest_and_still_waits() {
        let slots = Slots::new(1);
        let mut places: Vec<_> = (0..5).map(|_| slots.queue()).collect();
        let first = taken(&mut places[0]).expect("it was free");
        assert!(places[1..].iter_mut().all(|place| taken(place).is_none()));
        drop(places.remove(1));
        drop(first);
        let second = taken(&mut places[1]).expect("the one before it has left");
        assert!(taken(&mut places[2]).is_none());
        // The slot is granted to a waiter that leaves without taking it.
        drop(second);
        drop(places.remove(2));
        assert!(taken(&mut places[2]).is_some());
        assert_eq!(slots.lock().held, 0);
    }

    #[test]
    fn the_limit_can_change() {
        let slots = Slots::new(1);
        let mut places: Vec<_> = (0..4).map(|_| slots.queue()).collect();
        slots.resize(3);
        let held: Vec<_> = places.iter_mut().filter_map(taken).collect();
        assert_eq!(held.len(), 3);
        slots.resize(1);
        drop(held);
        assert!(taken(&mut places[3]).is_some());
    }

    #[test]
    fn those_who_have_left_do_not_pile_up() {
        let slots = Slots::new(1);
        let _held = taken(&mut slots.queue()).expect("it was free");
        for _ in 0..10_000 {
            drop(slots.queue());
        }
        assert!(slots.lock().waiting.len() <= 2 * SWEEP_FROM);
    }
}
