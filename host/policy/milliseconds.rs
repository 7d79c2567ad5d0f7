//! Durations of the manifest, which are numbers of milliseconds.

use std::time::Duration;

/// A year: longer than any duration that is meant seriously.
pub(super) const MS_MAX: u64 = 31_536_000_000;

/// Returns a duration that can be added to any instant. It is at most a year.
pub(super) fn milliseconds(ms: u64) -> Duration {
    Duration::from_millis(ms.min(365 * 24 * 3600 * 1000))
}
