//! What a histogram of latencies has counted, for operators who do not have Prometheus.

use super::register::LATENCY_BUCKETS;
use prometheus::Histogram;
use prometheus::core::Metric;

/// The counts of a histogram of latencies at one moment.
pub struct LatencyTotals {
    /// For each bound how many took no longer, and at the end how many there were.
    pub counts: Vec<u64>,
}

/// Reads a histogram of latencies.
pub fn latency_totals(histogram: &Histogram) -> LatencyTotals {
    let metric = histogram.metric();
    let histogram = metric.get_histogram();
    let mut counts: Vec<u64> =
        histogram.get_bucket().iter().map(prometheus::proto::Bucket::cumulative_count).collect();
    counts.push(histogram.get_sample_count());
    LatencyTotals { counts }
}

impl LatencyTotals {
    /// Returns the bounds of the buckets in milliseconds.
    pub fn bounds_ms() -> [f64; LATENCY_BUCKETS.len()] {
        // Rounded: 0.0025 s times 1000 is not 2.5.
        LATENCY_BUCKETS.map(|seconds| (seconds * 1e6).round() / 1e3)
    }

    /// Returns the time that a share of all did not exceed, interpolated within its bucket; the
    /// largest bound for those beyond it, and `None` without any.
    pub fn percentile_ms(&self, share: f64) -> Option<f64> {
        let total = *self.counts.last()?;
        if total == 0 {
            return None;
        }
        let (bounds, rank) = (Self::bounds_ms(), share * total as f64);
        let at = self.counts[..bounds.len()].iter().position(|count| *count as f64 >= rank);
        let Some(at) = at else { return bounds.last().copied() };
        let (below, from) =
            at.checked_sub(1).map_or((0, 0.0), |before| (self.counts[before], bounds[before]));
        let inside = (self.counts[at] - below) as f64;
        let part = if inside == 0.0 { 1.0 } else { (rank - below as f64) / inside };
        Some(((from + (bounds[at] - from) * part) * 1e3).round() / 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::HistogramOpts;

    #[test]
    fn percentiles_lie_in_their_bucket() {
        let options = HistogramOpts::new("t", "t").buckets(LATENCY_BUCKETS.to_vec());
        let histogram = Histogram::with_opts(options).unwrap();
        assert_eq!(latency_totals(&histogram).percentile_ms(0.5), None);
        (0..98).for_each(|_| histogram.observe(0.003));
        (0..2).for_each(|_| histogram.observe(20.0));
        let totals = latency_totals(&histogram);
        assert_eq!(totals.counts.len(), LATENCY_BUCKETS.len() + 1);
        assert_eq!(totals.counts.last(), Some(&100));
        let half = totals.percentile_ms(0.5).unwrap();
        assert!((2.5..5.0).contains(&half), "{half}");
        assert_eq!(totals.percentile_ms(0.99), Some(10_000.0));
        assert_eq!(LatencyTotals::bounds_ms()[5], 2.5);
    }
}
