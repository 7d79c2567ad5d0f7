//! The priority of a request or job among those of its tenant.

use std::time::{Duration, Instant};

/// A priority: 1 comes first, 9 last. Waiting raises it, so that nothing waits for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(u8);

impl Priority {
    pub const FIRST: Priority = Priority(1);
    pub const LAST: Priority = Priority(9);

    /// Waiting for this long in the queue of an executor outweighs one priority.
    const AGING: Duration = Duration::from_millis(250);

    /// Returns the priority that a client asks for: 0 is the default, and more than 9 is 9.
    pub fn asked(number: u64) -> Self {
        match number {
            0 => Priority::default(),
            number => Priority(number.min(u64::from(Priority::LAST.0)) as u8),
        }
    }

    pub fn number(self) -> u8 {
        self.0
    }

    /// Returns the place in a queue of what has waited since then: earlier ones come first.
    pub fn rank(self, since: Instant) -> Instant {
        since + Priority::AGING * u32::from(self.0)
    }
}

impl Default for Priority {
    fn default() -> Self {
        Priority(5)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_outweighs_any_priority() {
        let (first, last, now) = (Priority::asked(1), Priority::asked(1000), Instant::now());
        assert_eq!((first, last), (Priority::FIRST, Priority::LAST));
        assert_eq!(Priority::asked(0), Priority::asked(5));
        assert!(first.rank(now) < last.rank(now));
        assert!(first.rank(now + Duration::from_millis(1999)) < last.rank(now));
        assert!(first.rank(now + Duration::from_millis(2001)) > last.rank(now));
    }
}
