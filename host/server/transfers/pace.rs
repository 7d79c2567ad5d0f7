//! How fast a transfer is, measured by sweeps about a second apart. Nothing is measured while bytes
//! move.

use std::time::{Duration, Instant};

/// The minimum rate applies to every span of this length.
const WINDOW: Duration = Duration::from_secs(5);

/// The bytes that had moved by an instant.
#[derive(Clone, Copy)]
struct Mark {
    at: Instant,
    moved: u64,
}

pub(super) struct Pace {
    /// The marks of the last two sweeps.
    marks: [Mark; 2],
    window: Mark,
    /// Bytes per second over the last complete window.
    window_rate: Option<u64>,
    /// When a sweep last saw that bytes had moved, or that there were none to move.
    progressed: Instant,
}

impl Pace {
    pub fn new(now: Instant) -> Self {
        let mark = Mark { at: now, moved: 0 };
        Pace { marks: [mark; 2], window: mark, window_rate: None, progressed: now }
    }

    pub fn sweep(&mut self, moved: u64, is_holding: bool, now: Instant) {
        if moved != self.marks[1].moved || !is_holding {
            self.progressed = now;
        }
        let mark = Mark { at: now, moved };
        self.marks = [self.marks[1], mark];
        let elapsed = now.saturating_duration_since(self.window.at);
        if elapsed >= WINDOW {
            let rate = (moved - self.window.moved) as f64 / elapsed.as_secs_f64();
            self.window_rate = Some(rate as u64);
            self.window = mark;
        }
    }

    /// Whether the last window was slower than this.
    pub fn is_below(&self, bytes_per_s: u64) -> bool {
        self.window_rate.is_some_and(|rate| rate < bytes_per_s)
    }

    /// Returns how long nothing has moved.
    pub fn stalled_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.progressed)
    }

    /// Returns how long these bytes would take at the pace of the last one or two seconds.
    pub fn time_for(&self, bytes: u64, moved: u64, now: Instant) -> Duration {
        let since = self.marks[0];
        let elapsed = now.saturating_duration_since(since.at).as_secs_f64();
        let seconds = bytes as f64 * elapsed / (moved.saturating_sub(since.moved)) as f64;
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_rate_of_every_window_counts_and_not_the_average() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        for second in 1..=5 {
            pace.sweep(u64::from(second) * 2_000, true, start + SECOND * second);
        }
        assert!(!pace.is_below(1_024));
        for second in 6..=9 {
            pace.sweep(10_000, true, start + SECOND * second);
            assert!(!pace.is_below(1_024), "the window is not over");
        }
        pace.sweep(10_000, true, start + SECOND * 10);
        assert!(pace.is_below(1_024) && !pace.is_below(0));
        assert_eq!(pace.stalled_for(start + SECOND * 10), SECOND * 5);
    }

    #[test]
    fn what_holds_nothing_is_not_stalled() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        pace.sweep(7, false, start + SECOND);
        pace.sweep(7, false, start + SECOND * 60);
        assert_eq!(pace.stalled_for(start + SECOND * 61), SECOND);
        pace.sweep(7, true, start + SECOND * 61);
        assert_eq!(pace.stalled_for(start + SECOND * 63), SECOND * 3);
    }

    #[test]
    fn the_time_left_is_that_of_the_last_seconds() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        assert_eq!(pace.time_for(1_000, 500, start + SECOND), SECOND * 2);
        pace.sweep(1_000_000, true, start + SECOND);
        pace.sweep(1_000_000, true, start + SECOND * 2);
        assert_eq!(pace.time_for(1, 1_000_000, start + SECOND * 3), Duration::MAX, "it has stopped");
        assert_eq!(pace.time_for(2_000, 1_001_000, start + SECOND * 3), SECOND * 4);
    }
}
