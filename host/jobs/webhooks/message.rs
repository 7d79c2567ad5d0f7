//! What is sent to a receiver: which job has ended, and how. Not its input or result, which a
//! receiver fetches if it may see them.

use super::delivery::Delivery;
use serde_json::json;
use std::time::SystemTime;

/// Returns the body. It is the same for every attempt.
pub(super) fn body(delivery: &Delivery) -> Vec<u8> {
    let state = delivery.state.as_str();
    let message = json!({
        "type": format!("job.{state}"),
        "timestamp": rfc_3339(delivery.ended_at),
        "data": {
            "job_id": &*delivery.job,
            "state": state,
            "model": &*delivery.model.name,
            "version": &*delivery.model.version,
            "url": format!("/jobs/{}", delivery.job),
        },
    });
    serde_json::to_vec(&message).expect("invariant: messages have string keys")
}

/// Returns the id of the message, which is the same for every attempt.
pub(super) fn id(delivery: &Delivery) -> String {
    format!("msg_{}", delivery.job)
}

/// Returns a time in UTC, to the microsecond.
fn rfc_3339(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let micros = since.subsec_micros();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

/// Returns year, month and day, of days since 1970. Counts in years that begin in March, so that
/// the leap day is the last one.
fn date(days: u64) -> (u64, u64, u64) {
    const DAYS_OF_400_YEARS: u64 = 146_097;
    // From 0000-03-01 to 1970-01-01.
    let days = days + 719_468;
    let (era, day_of_era) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = 400 * era + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_are_dates_of_the_calendar() {
        for (seconds, micros, shown) in [
            (0, 0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399, 999_999, "2000-02-28T23:59:59.999999Z"),
            (951_782_400, 0, "2000-02-29T00:00:00.000000Z"),
            (951_868_800, 1, "2000-03-01T00:00:00.000001Z"),
            (1_735_689_599, 0, "2024-12-31T23:59:59.000000Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00.000000Z"),
        ] {
            let time = SystemTime::UNIX_EPOCH + Duration::new(seconds, micros * 1000);
            assert_eq!(rfc_3339(time), shown);
        }
    }
}
