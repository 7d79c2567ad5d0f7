//! The ratio of two costs, from pairs of measurements.

use std::fmt;

/// Smaller differences are not reported: the builds of a program differ by so much by chance.
const LEAST: f64 = 0.05;

/// The median of ratios with an interval that holds the true median in 95 of 100 cases.
pub(super) struct Comparison {
    median: f64,
    low: f64,
    high: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Slower,
    Faster,
    Same,
}

impl Comparison {
    /// `ratios` are those of the new cost to the old one, at least six.
    pub fn of(mut ratios: Vec<f64>) -> Self {
        ratios.sort_by(f64::total_cmp);
        let count = ratios.len();
        // The order statistics of the sign test, in its normal approximation.
        let rank = (count as f64 / 2.0 - 0.98 * (count as f64).sqrt()).floor().max(1.0) as usize;
        let median = f64::midpoint(ratios[(count - 1) / 2], ratios[count / 2]);
        Comparison { median, low: ratios[rank - 1], high: ratios[count - rank] }
    }

    pub fn verdict(&self) -> Verdict {
        if self.low > 1.0 && self.median >= 1.0 + LEAST {
            Verdict::Slower
        } else if self.high < 1.0 && self.median <= 1.0 - LEAST {
            Verdict::Faster
        } else {
            Verdict::Same
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Comparison { median, low, high } = self;
        write!(f, "{median:.2} times the time (95 %: {low:.2} to {high:.2})")
    }
}

impl Verdict {
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Slower => "slower",
            Verdict::Faster => "faster",
            Verdict::Same => "no difference that can be told from chance",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around(middle: f64) -> Comparison {
        Comparison::of(
            (0..30).map(|number| middle + 0.1 * ((f64::from(number) * 0.37).fract() - 0.5)).collect(),
        )
    }

    #[test]
    fn a_difference_is_told_from_chance() {
        assert_eq!(around(1.0).verdict(), Verdict::Same);
        assert_eq!(around(1.03).verdict(), Verdict::Same);
        assert_eq!(around(1.2).verdict(), Verdict::Slower);
        assert_eq!(around(0.8).verdict(), Verdict::Faster);
        let text = around(1.2).to_string();
        assert!(text.starts_with("1.2") && text.contains("95 %"), "{text}");
    }
}
