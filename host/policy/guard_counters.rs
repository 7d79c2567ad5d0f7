//! Outcomes and latencies of one route's calls: one relaxed increment per call, read by the guard.
//!
//! Latencies are counted in buckets about a fifth apart, which is fine enough to tell two versions
//! apart.

use crate::error::{Error, Kind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Four buckets for each doubling, from 1 us to about a minute.
const BUCKETS: usize = 104;

/// How one call ended, for the guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// Succeeded; queue and service took this long.
    Ok(Duration),
    /// Failed by the fault of the plugin, the model or the host.
    Fault,
    /// The model's graph refused the inputs, by the fault of the caller or of the model.
    Refused,
    /// Failed by the fault of the caller or because a queue was full. This says nothing about the
    /// version.
    Other,
}

impl CallOutcome {
    pub fn of(error: Option<&Error>, took: Duration) -> Self {
        match error.map(Error::kind) {
            None => CallOutcome::Ok(took),
            Some(_) if error.is_some_and(Error::is_unjudged) => CallOutcome::Other,
            Some(Kind::InvalidInput) if error.is_some_and(Error::is_graph_refusal) => CallOutcome::Refused,
            Some(Kind::Failed | Kind::Unavailable | Kind::Deadline) => CallOutcome::Fault,
            Some(
                Kind::InvalidInput
                | Kind::NotFound
                | Kind::Unsupported
                | Kind::TooLarge
                | Kind::Overloaded
                | Kind::Cancelled
                | Kind::Conflict
                | Kind::Forbidden
                | Kind::Unauthenticated,
            ) => CallOutcome::Other,
        }
    }
}

/// Counters that only grow while the route lives.
pub struct GuardCounters {
    latencies: [AtomicU64; BUCKETS],
    faults: AtomicU64,
    refusals: AtomicU64,
    others: AtomicU64,
    /// Faults and refusals that were replayed on the version before, and those that it answered.
    replayed: AtomicU64,
    confirmed: AtomicU64,
    /// Replays in progress.
    pub(super) pending: AtomicU64,
}

impl Default for GuardCounters {
    fn default() -> Self {
        GuardCounters {
            latencies: [const { AtomicU64::new(0) }; BUCKETS],
            faults: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
            others: AtomicU64::new(0),
            replayed: AtomicU64::new(0),
            confirmed: AtomicU64::new(0),
            pending: AtomicU64::new(0),
        }
    }
}

impl GuardCounters {
    pub fn record(&self, outcome: CallOutcome) {
        let counter = match outcome {
            CallOutcome::Ok(took) => &self.latencies[bucket(took)],
            CallOutcome::Fault => &self.faults,
            CallOutcome::Refused => &self.refusals,
            CallOutcome::Other => &self.others,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a replay: whether the version before answered a request that this one failed.
    pub(super) fn replayed(&self, is_answered: bool) {
        // In this order, so that no reader sees more confirmed than replayed.
        self.replayed.fetch_add(1, Ordering::Release);
        self.confirmed.fetch_add(u64::from(is_answered), Ordering::Release);
    }

    /// Whether replays are in progress.
    pub(super) fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Acquire) > 0
    }

    pub(super) fn counts(&self) -> Counts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        let confirmed = get(&self.confirmed);
        Counts {
            latencies: self.latencies.iter().map(get).collect(),
            suspects: get(&self.faults),
            refusals: get(&self.refusals),
            others: get(&self.others),
            replayed: get(&self.replayed),
            confirmed,
        }
    }
}

/// Counters at one moment, or their growth between two moments.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    latencies: Vec<u64>,
    /// Faults, no matter whether the version before would have answered.
    suspects: u64,
    pub refusals: u64,
    /// Calls that are not judged.
    pub others: u64,
    pub replayed: u64,
    pub confirmed: u64,
}

impl Counts {
    pub fn since(&self, earlier: &Counts) -> Counts {
        let before = earlier.latencies.iter().copied().chain(std::iter::repeat(0));
        Counts {
            latencies: self.latencies.iter().zip(before).map(|(now, before)| now - before).collect(),
            suspects: self.suspects - earlier.suspects,
            refusals: self.refusals - earlier.refusals,
            others: self.others - earlier.others,
            replayed: self.replayed - earlier.replayed,
            confirmed: self.confirmed - earlier.confirmed,
        }
    }

    pub fn ok(&self) -> u64 {
        self.latencies.iter().sum()
    }

    /// Returns all faults, no matter what replays on the version before showed.
    pub fn suspects(&self) -> u64 {
        self.suspects
    }

    /// Returns the faults that count against the version. If some failed requests were replayed on
    /// the version before, the share of them that it answered applies to all faults and refusals.
    /// Without replays, all faults count and no refusals.
    pub fn faults(&self) -> u64 {
        if self.replayed == 0 {
            return self.suspects;
        }
        let (failed, replayed) = (self.suspects + self.refusals, self.replayed);
        (failed * self.confirmed.min(replayed) + replayed / 2) / replayed
    }

    /// Returns the number of calls that say something about the version.
    pub fn judged(&self) -> u64 {
        self.ok() + self.faults()
    }

    pub fn fault_rate(&self) -> f64 {
        self.faults() as f64 / self.judged().max(1) as f64
    }

    /// Returns the latency that this share of the successful calls stays below; zero without any.
    pub fn quantile(&self, share: f64) -> Duration {
        let mut remaining = (self.ok() as f64 * share).ceil() as u64;
        for (bucket, count) in self.latencies.iter().enumerate() {
            if remaining > 0 && *count >= remaining {
                return upper(bucket);
            }
            remaining = remaining.saturating_sub(*count);
        }
        Duration::ZERO
    }

    #[cfg(test)]
    pub fn made_up(ok: &[(u64, Duration)], faults: u64) -> Counts {
        let counters = GuardCounters::default();
        for (count, took) in ok {
            (0..*count).for_each(|_| counters.record(CallOutcome::Ok(*took)));
        }
        (0..faults).for_each(|_| counters.record(CallOutcome::Fault));
        counters.counts()
    }
}

fn bucket(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    if micros < 4 {
        return micros as usize;
    }
    let exponent = micros.ilog2() as usize;
    let quarter = (micros >> (exponent - 2)) as usize & 3;
    ((exponent - 1) * 4 + quarter).min(BUCKETS - 1)
}

/// Returns the first latency above a bucket.
fn upper(bucket: usize) -> Duration {
    let next = bucket as u64 + 1;
    Duration::from_micros(if next < 4 { next } else { (4 + next % 4) << (next / 4 - 1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_in_order_and_hold_what_falls_into_them() {
        for micros in (0..5_000).chain([65_535, 65_536, 1_000_000, 60_000_000]) {
            let took = Duration::from_micros(micros);
            let index = bucket(took);
            assert!(took < upper(index), "{took:?} in bucket {index}");
            assert!(index == 0 || took >= upper(index - 1), "{took:?} in bucket {index}");
        }
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_and_rates_are_of_the_difference() {
        let ms = Duration::from_millis;
        let counters = GuardCounters::default();
        (0..100).for_each(|_| counters.record(CallOutcome::Ok(ms(1))));
        let before = counters.counts();
        (0..90).for_each(|_| counters.record(CallOutcome::Ok(ms(10))));
        (0..10).for_each(|_| counters.record(CallOutcome::Fault));
        counters.record(CallOutcome::Other);
        let counts = counters.counts().since(&before);
        assert_eq!((counts.judged(), counts.faults(), counts.others), (100, 10, 1));
        assert!((counts.fault_rate() - 0.1).abs() < 1e-9);
        let p95 = counts.quantile(0.95);
        assert!(p95 > ms(10) && p95 < ms(13), "{p95:?}");
        assert_eq!(Counts::default().quantile(0.95), Duration::ZERO);
    }

    #[test]
    fn faults_count_as_far_as_the_version_before_answers() {
        let counters = GuardCounters::default();
        (0..10).for_each(|_| counters.record(CallOutcome::Fault));
        (0..30).for_each(|_| counters.record(CallOutcome::Refused));
        assert_eq!(counters.counts().faults(), 10, "nothing was replayed");
        counters.replayed(false);
        assert_eq!(counters.counts().faults(), 0);
        counters.replayed(true);
        assert_eq!(counters.counts().faults(), 20, "one half of all that failed");
        (0..2).for_each(|_| counters.replayed(false));
        assert_eq!((counters.counts().faults(), counters.counts().judged()), (10, 10));
    }

    #[test]
    fn a_kind_is_a_fault_or_says_nothing() {
        let outcome = |error: &Error| CallOutcome::of(Some(error), Duration::ZERO);
        let faults =
            Kind::ALL.into_iter().filter(|kind| outcome(&Error::new(*kind, "why")) == CallOutcome::Fault);
        assert_eq!(faults.collect::<Vec<_>>(), [Kind::Unavailable, Kind::Deadline, Kind::Failed]);
        assert_eq!(outcome(&Error::deadline("the caller's own").unjudged()), CallOutcome::Other);
        assert_eq!(outcome(&Error::invalid("x").graph_refusal()), CallOutcome::Refused);
        assert_eq!(outcome(&Error::failed("x").graph_refusal()), CallOutcome::Fault);
    }
}
