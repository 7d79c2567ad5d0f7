//! Random numbers for jitter and sampling, not for secrets.

use std::hash::{BuildHasher, RandomState};

/// Returns a number from 0 to below 1.
pub fn fraction() -> f64 {
    // The keys are random in each instance, and differ with each call.
    let random = RandomState::new().hash_one(0_u8);
    (random >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    #[test]
    fn fractions_are_spread() {
        let mut tenths = [0; 10];
        for _ in 0..10_000 {
            tenths[(super::fraction() * 10.0) as usize] += 1;
        }
        assert!(tenths.iter().all(|count| (800..1200).contains(count)), "{tenths:?}");
    }
}
