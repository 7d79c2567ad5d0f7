//! What happened to the calls of one route: one relaxed increment a call, read by the guard.
//!
//! Latencies fall into buckets a fifth apart, which is fine enough to tell two versions from each other.

use super::Route;
use crate::error::{Error, Kind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Four to each doubling, from 1 us to about a minute.
const BUCKETS: usize = 104;

/// How one call ended, for the guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// Queue and service took this long.
    Ok(Duration),
    /// The plugin's, the model's or the host's fault.
    Fault,
    /// The graph of the model refused the inputs: the caller's fault, or the model's.
    Refused,
    /// The caller's fault, or a full queue: says nothing about the version.
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
                | Kind::Forbidden,
            ) => CallOutcome::Other,
        }
    }
}

/// Counts up for the life of a route.
pub struct GuardCounters {
    latencies: [AtomicU64; BUCKETS],
    faults: AtomicU64,
    refusals: AtomicU64,
    others: AtomicU64,
    /// Faults and refusals that the version before was asked about, and those that it has answered.
    replayed: AtomicU64,
    confirmed: AtomicU64,
    /// Replays under way.
    pending: AtomicU64,
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

    /// What the version before made of a request that this one failed.
    pub(super) fn replayed(&self, is_answered: bool) {
        // In this order: nobody sees more confirmed than replayed.
        self.replayed.fetch_add(1, Ordering::Release);
        self.confirmed.fetch_add(u64::from(is_answered), Ordering::Release);
    }

    /// Whether replays are under way.
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

/// A tally as it was at some moment, or what it grew by between two.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    latencies: Vec<u64>,
    /// Faults, whatever the version before would have answered.
    suspects: u64,
    pub refusals: u64,
    /// Not judged.
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

    /// Faults, before the version before was asked.
    pub fn suspects(&self) -> u64 {
        self.suspects
    }

    /// Faults that count. Where the version before was asked about some of what failed, the same share of
    /// all counts as it has answered of these; where it was not, all faults do, and no refusals.
    pub fn faults(&self) -> u64 {
        if self.replayed == 0 {
            return self.suspects;
        }
        let (failed, replayed) = (self.suspects + self.refusals, self.replayed);
        (failed * self.confirmed.min(replayed) + replayed / 2) / replayed
    }

    /// Calls that say something about the version.
    pub fn judged(&self) -> u64 {
        self.ok() + self.faults()
    }

    pub fn fault_rate(&self) -> f64 {
        self.faults() as f64 / self.judged().max(1) as f64
    }

    /// The latency under which this share of the good calls stays; zero without any.
    pub fn quantile(&self, share: f64) -> Duration {
        let mut left = (self.ok() as f64 * share).ceil() as u64;
        for (bucket, count) in self.latencies.iter().enumerate() {
            if left > 0 && *count >= left {
                return upper(bucket);
            }
            left = left.saturating_sub(*count);
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

/// A replay under way for a route.
pub(super) struct Pending(Arc<Route>);

impl Pending {
    pub fn new(route: Arc<Route>) -> Self {
        route.counters.pending.fetch_add(1, Ordering::AcqRel);
        Pending(route)
    }

    pub fn counters(&self) -> &GuardCounters {
        &self.0.counters
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.counters.pending.fetch_sub(1, Ordering::AcqRel);
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

/// The first latency above a bucket.
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
