//! The keys under `[plugins.hedge.config]`, which `docs/reference/executors/hedge.md` describes.

use hostler_plugin::budget::Budget;
use hostler_plugin::{Error, config};
use std::sync::OnceLock;
use std::time::Duration;

pub struct Settings {
    pub delay: Delay,
    pub budget: Budget,
}

/// The time that the first call has before the second one starts.
pub enum Delay {
    Fixed(Duration),
    /// The p95 of the calls so far. There is no second call before it is known.
    Learned {
        at_least: Duration,
    },
}

/// One hour.
const LONGEST_US: u64 = 3_600_000_000;

impl Settings {
    /// Returns the settings, which are read once per instance.
    pub fn get() -> Result<&'static Settings, Error> {
        static SETTINGS: OnceLock<Result<Settings, Error>> = OnceLock::new();
        SETTINGS.get_or_init(Settings::read).as_ref().map_err(Error::clone)
    }

    fn read() -> Result<Settings, Error> {
        let percent = config::number("max_hedge_percent", 10.0, 0.0..=100.0)?;
        let reserve = config::number("hedge_reserve", 10, 0..=1_000_000)?;
        let at_least = config::number("min_delay_us", 1_000, 0..=LONGEST_US)?;
        let delay = match config::get("delay_us")? {
            None => Delay::Learned { at_least: Duration::from_micros(at_least) },
            Some(_) => Delay::Fixed(Duration::from_micros(config::number("delay_us", 0, 0..=LONGEST_US)?)),
        };
        Ok(Settings { delay, budget: Budget::new("owed", percent, reserve) })
    }
}
