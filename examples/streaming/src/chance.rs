//! A random number generator that is reproducible for a seed: splitmix64. `make.py` uses the same
//! one.

pub struct Chance(u64);

/// Returns a different seed each time, for requests without one.
pub fn seed() -> u64 {
    (hostler_plugin::random::fraction() * 2f64.powi(53)) as u64
}

impl Chance {
    pub fn new(seed: u64) -> Self {
        Chance(seed)
    }

    /// Returns a number from 0 to below 1.
    pub fn fraction(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / 2f64.powi(53)
    }
}
