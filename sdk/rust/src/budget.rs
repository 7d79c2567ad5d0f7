//! A budget for work in addition to requests, such as retries: each request earns a share of one,
//! and a small reserve covers a burst. The budget is one counter of the state, so it holds across
//! instances that run at the same time and across swaps.

use crate::state;

/// One unit of what the budget pays for, in the unit of the counter.
const UNIT: i64 = 10_000;

/// Allows at most `percent` of the requests that earned, and `reserve` more.
#[derive(Debug, Clone)]
pub struct Budget {
    /// Holds what was taken and not yet earned back. A counter starts at 0, which is a full
    /// reserve.
    counter: &'static str,
    earned: i64,
    reserve: i64,
}

impl Budget {
    /// Creates a budget that is kept in the state counter `counter`. The finest share is a
    /// hundredth of a percent.
    pub fn new(counter: &'static str, percent: f64, reserve: u32) -> Budget {
        let earned = (percent / 100.0 * UNIT as f64).round() as i64;
        Budget { counter, earned, reserve: i64::from(reserve) * UNIT }
    }

    /// Must be called once for each request.
    pub fn earn(&self) {
        // If nothing is owed, nothing is written: the usual case is one read.
        let _ = state::update(self.counter, |owed| self.after_earning(owed));
    }

    /// Takes one unit. Returns false if the budget is exhausted.
    pub fn take(&self) -> bool {
        state::update(self.counter, |owed| self.after_taking(owed)).is_ok()
    }

    fn after_earning(&self, owed: i64) -> Option<i64> {
        (owed > 0 && self.earned > 0).then(|| (owed - self.earned).max(0))
    }

    fn after_taking(&self, owed: i64) -> Option<i64> {
        // If nothing is earned, nothing is spent: 0 percent turns the budget off, whatever the
        // reserve.
        (self.earned > 0 && owed + UNIT <= self.reserve).then_some(owed + UNIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets every request try to take one unit, and returns how many succeeded.
    fn taken(budget: &Budget, requests: usize) -> usize {
        let (mut owed, mut taken) = (0, 0);
        for _ in 0..requests {
            owed = budget.after_earning(owed).unwrap_or(owed);
            if let Some(more) = budget.after_taking(owed) {
                (owed, taken) = (more, taken + 1);
            }
        }
        taken
    }

    #[test]
    fn takes_a_share_of_the_requests_and_the_reserve() {
        assert_eq!(taken(&Budget::new("b", 10.0, 10), 1_000), 109);
        assert_eq!(taken(&Budget::new("b", 0.5, 2), 10_000), 51);
        assert_eq!(taken(&Budget::new("b", 100.0, 1), 1_000), 1_000);
    }

    #[test]
    fn quiet_times_save_no_more_than_the_reserve() {
        let budget = Budget::new("b", 10.0, 3);
        let mut owed = 0;
        for _ in 0..1_000 {
            owed = budget.after_earning(owed).unwrap_or(owed);
        }
        let mut taken = 0;
        while let Some(more) = budget.after_taking(owed) {
            (owed, taken) = (more, taken + 1);
        }
        assert_eq!(taken, 3);
    }

    #[test]
    fn nothing_is_free() {
        assert_eq!(taken(&Budget::new("b", 0.0, 10), 100), 0);
        assert_eq!(taken(&Budget::new("b", 10.0, 0), 100), 0);
    }
}
