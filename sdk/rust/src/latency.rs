//! Estimates a quantile of the calls' latencies from the calls themselves. The counts are counters
//! of the state: all instances learn together, and a swap loses nothing.
//!
//! There are 80 buckets from 64 us to 67 s, four for each power of two. Each 64-bit counter holds
//! four of them. Old calls fade out, because all counts are halved repeatedly.

use crate::state;
use std::time::Duration;

const BUCKETS: usize = 80;
/// The power of two, in microseconds, at which the first bucket begins.
const LOWEST: u32 = 6;
/// Counts of 16 bits in one counter.
const FIELDS: usize = 4;
const WORDS: usize = BUCKETS / FIELDS;

/// Observations before the first estimate.
const SEEN_MIN: i64 = 20;
/// Observations between two estimates.
const ESTIMATE_EVERY: i64 = 32;
/// When this many are counted, all counts are halved. No count comes near 16 bits.
const WINDOW: i64 = 2_000;

/// The latencies of one kind of call, such as those of one model.
#[derive(Debug, Clone)]
pub struct Latencies {
    name: String,
    quantile: f64,
}

impl Latencies {
    /// `name` is the prefix of its 22 counters. `quantile` is 0.95 for the time that 95 of 100
    /// calls take at most.
    pub fn new(name: impl Into<String>, quantile: f64) -> Latencies {
        Latencies { name: name.into(), quantile }
    }

    /// Returns the current estimate, or `None` before 20 observations. Costs one read. The estimate
    /// is the end of a bucket, so up to a quarter too long. It is also low by two standard errors,
    /// the shortest time that few observations allow: if exactly one call in 20 is slow, the p95 is
    /// the time of the others.
    pub fn estimate(&self) -> Option<Duration> {
        let micros = u64::try_from(state::read(&self.estimate_counter())).ok()?;
        (micros > 0).then(|| Duration::from_micros(micros))
    }

    /// Counts one call. If a call was abandoned, count the time until then.
    pub fn record(&self, latency: Duration) {
        let bucket = bucket(latency);
        state::add(&self.word_counter(bucket / FIELDS), 1 << (16 * (bucket % FIELDS)));
        let seen = state::add(&self.seen_counter(), 1);
        if seen == SEEN_MIN || seen % ESTIMATE_EVERY == 0 {
            self.learn(seen);
        }
    }

    fn learn(&self, seen: i64) {
        let words: Vec<i64> = (0..WORDS).map(|word| state::read(&self.word_counter(word))).collect();
        if let Some(micros) = quantile(&counts(&words), self.quantile) {
            let _ = state::update(&self.estimate_counter(), |_| Some(micros as i64));
        }
        // Only the instance that changes this counter halves the others.
        if seen >= WINDOW && state::compare_exchange(&self.seen_counter(), seen, seen / 2).is_ok() {
            for (place, word) in words.into_iter().enumerate() {
                state::add(&self.word_counter(place), halved(word) - word);
            }
        }
    }

    fn seen_counter(&self) -> String {
        format!("{}/seen", self.name)
    }

    fn estimate_counter(&self) -> String {
        format!("{}/estimate", self.name)
    }

    fn word_counter(&self, word: usize) -> String {
        format!("{}/{word}", self.name)
    }
}

fn bucket(latency: Duration) -> usize {
    let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1 << LOWEST);
    let power = micros.ilog2();
    let quarter = (micros >> (power - 2)) & 3;
    (((power - LOWEST) * 4) as usize + quarter as usize).min(BUCKETS - 1)
}

/// Returns the microseconds at which a bucket ends.
fn end(bucket: usize) -> u64 {
    let (power, quarter) = (LOWEST + bucket as u32 / 4, bucket as u64 % 4);
    (5 + quarter) << (power - 2)
}

fn counts(words: &[i64]) -> Vec<u16> {
    words.iter().flat_map(|&word| (0..FIELDS).map(move |field| (word >> (16 * field)) as u16)).collect()
}

/// Halves each count in a counter.
fn halved(word: i64) -> i64 {
    (word as u64 >> 1 & 0x7fff_7fff_7fff_7fff) as i64
}

/// Returns the end of the bucket that contains the quantile, in microseconds; too low rather than
/// too high.
fn quantile(counts: &[u16], quantile: f64) -> Option<u64> {
    let total = counts.iter().map(|&count| f64::from(count)).sum::<f64>();
    let error = (total * quantile * (1.0 - quantile)).sqrt();
    let rank = (total * quantile - 2.0 * error).max(1.0);
    let mut below = 0.0;
    let place = counts.iter().position(|&count| {
        below += f64::from(count);
        below >= rank
    });
    place.map(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_latency_lies_below_the_end_of_its_bucket_and_near_it() {
        for micros in (0..40).map(|step| (70.0 * 1.4_f64.powi(step)) as u64).filter(|&us| us < 67_000_000) {
            let end = end(bucket(Duration::from_micros(micros)));
            assert!(end > micros && end <= micros + micros / 4 + 1, "{micros} us in a bucket up to {end}");
        }
        assert_eq!(bucket(Duration::ZERO), 0);
        assert_eq!(bucket(Duration::from_secs(3_600)), BUCKETS - 1);
        assert!((1..BUCKETS).all(|bucket| end(bucket) > end(bucket - 1)));
    }

    fn counted(latencies: impl Iterator<Item = Duration>) -> Vec<u16> {
        let mut counts = vec![0; BUCKETS];
        latencies.for_each(|latency| counts[bucket(latency)] += 1);
        counts
    }

    #[test]
    fn one_slow_call_in_20_is_above_the_p95() {
        for calls in [20, 40, 100, 1_000, 2_000] {
            // One more than one in 20, as may happen by chance.
            let slow = calls / 20 + 1;
            let counts = counted((0..calls).map(|call| if call < slow { ms(200) } else { ms(5) }));
            assert_eq!(quantile(&counts, 0.95), Some(end(bucket(ms(5)))), "{calls} calls");
        }
        let counts = counted((0..2_000).map(|call| if call < 200 { ms(200) } else { ms(5) }));
        assert_eq!(quantile(&counts, 0.95), Some(end(bucket(ms(200)))), "one in ten");
    }

    #[test]
    fn four_counts_share_a_word_and_are_halved_apart() {
        let word = 3 | 2 << 16 | 1_001 << 32 | 2_000 << 48;
        assert_eq!(counts(&[word]), [3, 2, 1_001, 2_000]);
        assert_eq!(counts(&[halved(word)]), [1, 1, 500, 1_000]);
        assert_eq!(quantile(&counts(&[0; WORDS]), 0.95), None);
    }
}
