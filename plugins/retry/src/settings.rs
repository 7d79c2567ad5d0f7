//! The keys under `[plugins.retry.config]`, which `docs/reference/executors/retry.md` describes.

use hostler_plugin::budget::Budget;
use hostler_plugin::{Error, ErrorKind, InstanceCell, config};
use std::time::Duration;

pub struct Settings {
    /// Maximum calls of one request, including the first.
    pub attempts: u32,
    /// The errors after which another call may succeed.
    pub kinds: Vec<ErrorKind>,
    pub budget: Budget,
    backoff: Duration,
    backoff_max: Duration,
}

/// The kinds of errors with their names in the contract.
const KINDS: [(&str, ErrorKind); 9] = [
    ("invalid-input", ErrorKind::InvalidInput),
    ("not-found", ErrorKind::NotFound),
    ("unsupported", ErrorKind::Unsupported),
    ("too-large", ErrorKind::TooLarge),
    ("overloaded", ErrorKind::Overloaded),
    ("unavailable", ErrorKind::Unavailable),
    ("deadline", ErrorKind::Deadline),
    ("cancelled", ErrorKind::Cancelled),
    ("failed", ErrorKind::Failed),
];

impl Settings {
    /// Returns the settings, which are read once per instance.
    pub fn get() -> Result<&'static Settings, Error> {
        static SETTINGS: InstanceCell<Settings> = InstanceCell::new();
        SETTINGS.get_or_try_init(Settings::read)
    }

    fn read() -> Result<Settings, Error> {
        let percent = config::number("budget_percent", 10.0, 0.0..=100.0)?;
        let reserve = config::number("budget_reserve", 10, 0..=1_000_000)?;
        let kinds = config::get("retry_on")?;
        Ok(Settings {
            attempts: config::number("attempts", 3, 1..=100)?,
            kinds: parse_kinds(kinds.as_deref().unwrap_or("unavailable, overloaded, failed"))?,
            budget: Budget::new("owed", percent, reserve),
            backoff: Duration::from_millis(config::number("backoff_ms", 20, 0..=60_000)?),
            backoff_max: Duration::from_millis(config::number("backoff_max_ms", 1_000, 0..=600_000)?),
        })
    }

    /// Returns the pause after this many attempts. It doubles each time. `chance`, from 0 to 1,
    /// scales its second half, so that requests that failed together do not retry together.
    pub fn pause(&self, attempts: u32, chance: f64) -> Duration {
        let doubled = self.backoff.saturating_mul(2_u32.saturating_pow(attempts - 1));
        doubled.min(self.backoff_max).mul_f64(0.5 + chance / 2.0)
    }
}

fn parse_kinds(text: &str) -> Result<Vec<ErrorKind>, Error> {
    let kind = |word: &str| {
        let known = KINDS.iter().find(|(name, _)| *name == word).map(|(_, kind)| *kind);
        let names = KINDS.map(|(name, _)| name).join(", ");
        known.ok_or_else(|| config::bad("retry_on", text, &format!("some of {names}")))
    };
    text.split(',').map(|word| kind(word.trim())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hostler_plugin::testing::Host;

    #[test]
    fn pauses_double_up_to_their_bound_and_half_of_each_is_chance() {
        let _host = Host::new();
        let pause = |attempts, chance| Settings::get().unwrap().pause(attempts, chance).as_millis();
        assert_eq!([pause(1, 1.0), pause(2, 1.0), pause(3, 1.0)], [20, 40, 80]);
        assert_eq!([pause(1, 0.0), pause(2, 0.0)], [10, 20]);
        assert_eq!([pause(7, 1.0), pause(90, 1.0), pause(90, 0.0)], [1_000, 1_000, 500]);
    }

    #[test]
    fn kinds_are_named_as_in_the_contract() {
        assert_eq!(parse_kinds("failed").unwrap(), [ErrorKind::Failed]);
        assert_eq!(
            parse_kinds("unavailable,overloaded").unwrap(),
            [ErrorKind::Unavailable, ErrorKind::Overloaded]
        );
        let error = parse_kinds("failed, timeout").unwrap_err();
        assert!(error.message.starts_with("config \"retry_on\": expected some of invalid-input, not-found"));
        assert!(error.message.ends_with("got \"failed, timeout\""));
        assert!(parse_kinds("").is_err());
    }
}
