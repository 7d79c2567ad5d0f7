//! Waits until all queued lines are written.

use super::descriptors;
use super::queue::{log, stdout};
use std::time::{Duration, Instant};

/// How long the exit waits for lines that are not written yet.
pub const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a failed start waits until its reason is written.
pub const REPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// Waits until all lines are written, for at most `limit`. Returns false if some are left.
pub fn flush(limit: Duration) -> bool {
    let until = Instant::now() + limit;
    let queues = [log(), stdout()];
    queues.iter().filter(|queue| queue.is_busy()).for_each(|queue| queue.hurry());
    while queues.iter().any(|queue| queue.is_busy()) || descriptors::unread() {
        if Instant::now() >= until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}
