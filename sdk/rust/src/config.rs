//! The strings that the manifest sets for this plugin under `[plugins.<name>.config]`.

use crate::bindings::store;
use crate::{Error, faults};
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::panic::Location;
use std::str::FromStr;

/// Returns the value of `key`, or `None` if the manifest does not set it.
pub fn get(key: &str) -> Result<Option<String>, Error> {
    store::get(key).map_err(|error| {
        let (store::Error::Upstream(reason) | store::Error::Io(reason)) = error;
        Error::failed(format!("config \"{key}\": {reason}"))
    })
}

/// Returns the number that `key` holds, or `default` if the manifest does not set it. A value
/// outside `allowed` is the operator's fault, so the error is `failed`.
#[track_caller]
pub fn number<T>(key: &str, default: T, allowed: RangeInclusive<T>) -> Result<T, Error>
where
    T: FromStr + PartialOrd + Display,
{
    let place = Location::caller();
    let Some(text) = get(key)? else { return Ok(default) };
    parse(key, &text, &allowed).map_err(|error| faults::at(place, error))
}

fn parse<T>(key: &str, text: &str, allowed: &RangeInclusive<T>) -> Result<T, Error>
where
    T: FromStr + PartialOrd + Display,
{
    match text.trim().parse() {
        Ok(number) if allowed.contains(&number) => Ok(number),
        _ => Err(bad(key, text, &format!("a number from {} to {}", allowed.start(), allowed.end()))),
    }
}

/// Returns the error for a value that is not what the plugin expects under `key`.
pub fn bad(key: &str, text: &str, expected: &str) -> Error {
    Error::failed(format!("config \"{key}\": expected {expected}, got \"{text}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_in_its_range_or_an_error_that_says_so() {
        assert_eq!(parse("attempts", " 3 ", &(1..=10)).unwrap(), 3);
        assert_eq!(parse("budget_percent", "0.5", &(0.0..=100.0)).unwrap(), 0.5);
        for text in ["", "three", "0", "11", "-1", "1.5"] {
            let error = parse("attempts", text, &(1..=10_u32)).unwrap_err();
            let expected = format!("config \"attempts\": expected a number from 1 to 10, got \"{text}\"");
            assert_eq!(error.message, expected);
        }
        assert!(parse("tolerance", "NaN", &(0.0..=1.0)).is_err());
    }
}
