//! Times of the wall clock as text: RFC 3339, or seconds since 1970.

use std::time::{Duration, SystemTime};

const DAY_S: i64 = 24 * 60 * 60;

/// Parses a time such as `2026-11-30T16:25:42Z`, `2026-11-30 17:25:42.5+01:00`, `2026-11-30`, which
/// is midnight in UTC, or `1796055942.5`. Returns `None` for a time before 1970 or after 9999.
pub fn parse(text: &str) -> Option<SystemTime> {
    if !text.is_ascii() {
        return None;
    }
    let (seconds, nanos) = match text.as_bytes().get(4) {
        Some(b'-') => date_time(text)?,
        _ => {
            let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
            (number(whole, 1..=12)?, nanos(fraction)?)
        }
    };
    let seconds = u64::try_from(seconds).ok().filter(|seconds| *seconds < 253_402_300_800)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanos))
}

/// Returns seconds since 1970; 0 for a time before.
pub fn seconds(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Formats a time in UTC, to the second: `2026-11-30 16:25:42Z`.
pub fn format(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    let (year, month, day) = date(seconds / DAY_S);
    let second = seconds % DAY_S;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}Z")
}

fn date_time(text: &str) -> Option<(i64, u32)> {
    let date = text.get(..10)?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let is_day = (1..=12).contains(&month) && (1..=days_of(year, month)).contains(&day);
    let days = is_day.then(|| days(year, month, day))?;
    let Some(rest) = text.get(10..).filter(|rest| !rest.is_empty()) else { return Some((days * DAY_S, 0)) };
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let [hour, minute, second] = numbers(rest.get(..8)?, ':', [2, 2, 2])?;
    // A leap second counts as the first second of the next minute.
    let is_time = hour < 24 && minute < 60 && second <= 60;
    let (fraction, zone) = match rest[8..].strip_prefix('.') {
        Some(rest) => rest.split_at(rest.find(|one: char| !one.is_ascii_digit())?),
        None => ("0", &rest[8..]),
    };
    let offset = match zone {
        "Z" | "z" => 0,
        _ => {
            let sign = if zone.starts_with('-') { -1 } else { 1 };
            let [hours, minutes] = numbers(zone.strip_prefix(['+', '-'])?, ':', [2, 2])?;
            sign * (hours < 24 && minutes < 60).then_some(hours * 3600 + minutes * 60)?
        }
    };
    let seconds = days * DAY_S + hour * 3600 + minute * 60 + second - offset;
    is_time.then_some((seconds, nanos(fraction)?))
}

fn numbers<const N: usize>(text: &str, separator: char, lengths: [usize; N]) -> Option<[i64; N]> {
    let mut parts = text.split(separator);
    let mut found = [0; N];
    for (found, length) in found.iter_mut().zip(lengths) {
        *found = number(parts.next()?, length..=length)?;
    }
    parts.next().is_none().then_some(found)
}

fn number(text: &str, lengths: std::ops::RangeInclusive<usize>) -> Option<i64> {
    let is_number = lengths.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

/// Reads the digits after a decimal point. Those after the ninth are dropped.
fn nanos(digits: &str) -> Option<u32> {
    let is_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_digits.then(|| format!("{digits:0<9}")[..9].parse().ok()).flatten()
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Returns the days from 1970 to the first of January of a year.
fn days_before_year(year: i64) -> i64 {
    let leap_days = |year: i64| year / 4 - year / 100 + year / 400;
    (year - 1970) * 365 + leap_days(year - 1) - leap_days(1969)
}

fn days(year: i64, month: i64, day: i64) -> i64 {
    days_before_year(year) + (1..month).map(|month| days_of(year, month)).sum::<i64>() + day - 1
}

/// Returns year, month and day of a day since 1970.
fn date(day: i64) -> (i64, i64, i64) {
    let mut year = 1970 + day / 366;
    while days_before_year(year + 1) <= day {
        year += 1;
    }
    let (mut month, mut rest) = (1, day - days_before_year(year));
    while rest >= days_of(year, month) {
        rest -= days_of(year, month);
        month += 1;
    }
    (year, month, rest + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Option<SystemTime> {
        Some(SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds))
    }

    #[test]
    fn times_are_read_in_each_form() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0.0),
            ("2026-11-30T16:25:42Z", 1_796_055_942.0),
            ("2026-11-30 16:25:42.5z", 1_796_055_942.5),
            ("2026-11-30t17:25:42+01:00", 1_796_055_942.0),
            ("2026-11-30T10:55:42-05:30", 1_796_055_942.0),
            ("2026-11-30", 1_795_996_800.0),
            ("2024-02-29", 1_709_164_800.0),
            ("2000-02-29T23:59:60Z", 951_868_800.0),
            ("9999-12-31T23:59:59Z", 253_402_300_799.0),
            ("1796055942", 1_796_055_942.0),
            ("1796055942.25", 1_796_055_942.25),
            ("0", 0.0),
        ] {
            assert_eq!(parse(text), at(seconds), "{text}");
        }
        let nanos = parse("1.0000000019").map(|time| time.duration_since(SystemTime::UNIX_EPOCH).unwrap());
        assert_eq!(nanos, Some(Duration::new(1, 1)));
    }

    #[test]
    fn everything_else_is_refused() {
        for text in [
            "",
            "now",
            "-1",
            "+1",
            "1e9",
            ".5",
            "5.",
            "1.x",
            "1.123456789x",
            "1234567890123",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00+00:01",
            "2026-13-01",
            "2026-02-29",
            "2100-02-29",
            "2026-00-10",
            "2026-01-00",
            "2026-1-1",
            "2026-01-01T",
            "2026-01-01T00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:60:00Z",
            "2026-01-01T00:00:61Z",
            "2026-01-01T00:00:00",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00.5",
            "2026-01-01T00:00:00+1:00",
            "2026-01-01T00:00:00+24:00",
            "2026-01-01T00:00:00Zx",
            "2026-01-01\u{a0}00:00:00Z",
            "２０２６-01-01",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn every_day_is_written_as_it_is_read() {
        for day in 0..140_000 {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(day * 86_400 + 3_723);
            let text = format(time);
            assert_eq!(parse(&text), Some(time), "{text}");
            assert!(text.ends_with(" 01:02:03Z"), "{text}");
        }
        assert_eq!(format(SystemTime::UNIX_EPOCH), "1970-01-01 00:00:00Z");
    }
}
