//! Statistics of paired measurements: the median of ratios with a confidence interval that assumes
//! nothing about their distribution, and the verdict. Only pure functions; this module measures
//! nothing.

/// The maximum probability that the true median lies outside an interval.
const OUTSIDE: f64 = 0.05;

/// The ratio up to which a change is not a regression; smaller differences cannot be distinguished
/// from noise.
pub const TOLERANCE: f64 = 1.03;

/// A median, and the bounds that contain the true median with a probability of at least 95 %.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

/// Returns the median of `values` and its interval by order statistics: the number of values above
/// the true median is binomial with p = 1/2, whatever the distribution of the values. `None` for
/// fewer than 6 values, for which there is no 95 % interval.
pub fn interval(values: &[f64]) -> Option<Interval> {
    let rank = rank(values.len())?;
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    Some(Interval { median: middle(&sorted), low: sorted[rank], high: sorted[sorted.len() - 1 - rank] })
}

pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    middle(&sorted)
}

fn middle(sorted: &[f64]) -> f64 {
    match sorted.len() {
        0 => f64::NAN,
        count => f64::midpoint(sorted[(count - 1) / 2], sorted[count / 2]),
    }
}

/// Returns how many of `count` values may be left out at each end of the interval.
fn rank(count: usize) -> Option<usize> {
    // The logarithm of P(X = i) for a binomial X, because 2^-count underflows.
    let mut log = -(count as f64) * std::f64::consts::LN_2;
    let (mut outside, mut rank) = (0.0, None);
    for i in 0..count / 2 {
        outside += 2.0 * log.exp();
        if outside > OUTSIDE {
            break;
        }
        rank = Some(i);
        log += ((count - i) as f64 / (i + 1) as f64).ln();
    }
    rank
}

/// Returns whether a cost has not grown: the upper end of its ratio's interval is at most
/// [`TOLERANCE`], or at most the upper end of `same`, the interval of the same build against
/// itself.
pub fn within(ratio: Interval, same: Interval) -> bool {
    ratio.high <= f64::max(TOLERANCE, same.high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_those_of_the_binomial_table() {
        // The largest k with 2 P(X < k) <= 0.05, as in sign test tables; here counted from 0.
        let table = [
            (5, None),
            (6, Some(0)),
            (8, Some(0)),
            (9, Some(1)),
            (20, Some(5)),
            (30, Some(9)),
            (100, Some(39)),
        ];
        for (count, expected) in table {
            assert_eq!(rank(count), expected, "{count} values");
        }
        let many = rank(10_000).expect("no underflow");
        assert!((4_890..4_910).contains(&many), "{many}: 5,000 less 1.96 standard deviations of 50");
    }

    #[test]
    fn the_interval_ignores_order_and_a_few_outliers() {
        let mut values: Vec<f64> = (1..=20).rev().map(f64::from).collect();
        let expected = Interval { median: 10.5, low: 6.0, high: 15.0 };
        assert_eq!(interval(&values), Some(expected));
        values[0] = 1e9;
        assert_eq!(interval(&values), Some(expected), "one outlier does not change the interval");
        assert_eq!(interval(&values[..5]), None);
        assert_eq!(median(&[3.0, 1.0]), 2.0);
    }

    #[test]
    fn the_interval_holds_the_true_median_as_often_as_it_says() {
        // Skewed, as times are: the square of a uniform number (xorshift with a fixed seed), whose
        // median is 1/4.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut uniform = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        let rounds = 2_000;
        let held = (0..rounds).filter(|_| {
            let values: Vec<f64> = (0..20).map(|_| uniform().powi(2)).collect();
            let interval = interval(&values).expect("20 values");
            (interval.low..=interval.high).contains(&0.25)
        });
        let share = held.count() as f64 / f64::from(rounds);
        // 0.9586 in theory, with a standard deviation of 0.0045.
        assert!((0.94..0.975).contains(&share), "{share}");
    }

    #[test]
    fn a_noisy_machine_widens_the_tolerance_and_a_quiet_one_does_not_narrow_it() {
        let until = |high| Interval { median: 1.0, low: 0.99, high };
        let cases = [
            (1.03, 1.0, true),
            (1.031, 1.0, false),
            (1.05, 1.06, true),
            (1.07, 1.06, false),
            (0.9, 0.8, true),
        ];
        for (high, same, expected) in cases {
            assert_eq!(within(until(high), until(same)), expected, "{high} against {same}");
        }
    }
}
