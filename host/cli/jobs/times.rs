//! Times and durations as people write and read them.

use crate::timestamp;
use std::time::{Duration, SystemTime};

const UNITS: [(&str, u64); 5] = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400), ("w", 604_800)];

/// Parses a whole number with a unit, such as `7d`.
pub fn parse(text: &str) -> Result<Duration, String> {
    let parsed = || {
        let (number, unit) = text.split_at(text.find(|one: char| !one.is_ascii_digit())?);
        let (_, seconds) = UNITS.into_iter().find(|(known, _)| *known == unit)?;
        Some(Duration::from_secs(number.parse::<u64>().ok()?.checked_mul(seconds)?))
    };
    parsed().ok_or_else(|| "write a whole number and a unit, such as 90s, 30m, 12h, 7d or 2w".to_owned())
}

/// Formats seconds with two units at most, such as `0.25s`, `42s`, `3m05s` or `2d04h`.
pub fn short(seconds: f64) -> String {
    // A clock that is behind the host's makes a time negative.
    let seconds = seconds.max(0.0);
    if seconds < 10.0 {
        return format!("{seconds:.2}s");
    }
    let whole = seconds as u64;
    match whole {
        ..60 => format!("{whole}s"),
        60..3600 => format!("{}m{:02}s", whole / 60, whole % 60),
        3600..86_400 => format!("{}h{:02}m", whole / 3600, whole / 60 % 60),
        _ => format!("{}d{:02}h", whole / 86_400, whole / 3600 % 24),
    }
}

/// Returns now, in seconds since 1970.
pub fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Formats seconds since 1970.
pub fn moment(seconds: f64) -> String {
    let since = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    SystemTime::UNIX_EPOCH.checked_add(since).map_or_else(|| "?".to_owned(), timestamp::format)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        for (text, seconds) in
            [("90s", 90), ("30m", 1800), ("12h", 43_200), ("7d", 604_800), ("2w", 1_209_600)]
        {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in
            ["", "7", "d", "7 d", "-7d", "1.5h", "7days", "99999999999999999999d", "18446744073709551615w"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn seconds_are_shown_with_two_units_at_most() {
        for (seconds, shown) in [
            (-5.0, "0.00s"),
            (0.25, "0.25s"),
            (42.9, "42s"),
            (185.0, "3m05s"),
            (7_260.0, "2h01m"),
            (187_300.0, "2d04h"),
            (f64::INFINITY, "213503982334601d07h"),
        ] {
            assert_eq!(short(seconds), shown);
        }
    }
}
