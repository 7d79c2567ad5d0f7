//! When to repeat an attempt that failed for a reason that may pass.

use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(30);

/// A delay that grows with each such failure in a row. Any other end of an attempt resets it.
#[derive(Default)]
pub(super) struct Retry {
    failures: u32,
    due: Option<Instant>,
}

impl Retry {
    /// Notes that an attempt has ended. `passes` says whether it failed for a reason that may pass.
    pub fn ended(&mut self, passes: bool) {
        if !passes {
            return self.forget();
        }
        let delay = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        self.due = Some(Instant::now() + delay);
    }

    pub fn forget(&mut self) {
        *self = Retry::default();
    }

    /// Notes that the attempt that is due begins.
    pub fn begin(&mut self) {
        self.due = None;
    }

    pub fn is_due(&self) -> bool {
        self.due.is_some_and(|due| Instant::now() >= due)
    }

    pub fn due_in(&self) -> Option<Duration> {
        self.due.map(|due| due.saturating_duration_since(Instant::now()))
    }

    /// Returns the number of failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_a_verdict_ends_them() {
        let mut retry = Retry::default();
        let mut pauses = Vec::new();
        for _ in 0..10 {
            retry.ended(true);
            pauses.push(retry.due_in().unwrap().as_secs_f64());
        }
        assert!(
            pauses[0] <= 0.25 && pauses[1] > pauses[0] && pauses[9] <= 30.0 && pauses[9] > 29.0,
            "{pauses:?}"
        );
        retry.ended(false);
        assert_eq!((retry.due_in(), retry.failures()), (None, 0));
    }
}
