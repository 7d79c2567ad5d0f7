//! The rate at which an exercise repeats its step.

use super::fixture::Fixture;
use std::time::{Duration, Instant};

/// Turns at a fixed rate until an instant, but at least `least` of them.
pub struct Pace {
    every: Duration,
    next: Instant,
    until: Instant,
    least: usize,
    pub done: usize,
}

impl Pace {
    pub fn new(fixture: &Fixture, until: Instant) -> Self {
        // At least one change and its reverse.
        Pace { every: fixture.between_swaps, next: Instant::now(), until, least: 2, done: 0 }
    }

    pub fn at_least(mut self, rounds: usize) -> Self {
        self.least = self.least.max(rounds);
        self
    }

    /// Waits for the next turn and returns its number, from 0. Returns `None` once the time is
    /// over.
    pub async fn turn(&mut self) -> Option<usize> {
        let next = self.next.max(Instant::now());
        if self.done >= self.least && next >= self.until {
            tokio::time::sleep_until(self.until.into()).await;
            return None;
        }
        tokio::time::sleep_until(next.into()).await;
        self.next = next + self.every;
        self.done += 1;
        Some(self.done - 1)
    }
}
