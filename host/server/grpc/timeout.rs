//! The header `grpc-timeout`, and the deadline that it sets.

use crate::error::{Error, Result};
use hyper::HeaderMap;
use std::time::Duration;

/// Parses `grpc-timeout`: up to eight digits and a unit. A malformed timeout is refused, because
/// the call could otherwise take longer than its client allows.
pub(super) fn timeout(headers: &HeaderMap) -> Result<Option<Duration>> {
    let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
    let timeout = value.to_str().ok().and_then(parse);
    timeout.map(Some).ok_or_else(|| {
        let shown: String = String::from_utf8_lossy(value.as_bytes()).chars().take(40).collect();
        Error::invalid(format!(
            "grpc-timeout is \"{shown}\"; it is up to eight digits and a unit, one of H, M, S, m, u, n"
        ))
        .field("grpc-timeout")
    })
}

/// Returns the error for the deadline of a call, in the words that the work of a call has for it.
pub(super) fn deadline_passed() -> Error {
    Error::deadline("the deadline of the request has passed")
}

fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let is_number = (1..=8).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit());
    let number: u64 = digits.parse().ok().filter(|_| is_number)?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}
