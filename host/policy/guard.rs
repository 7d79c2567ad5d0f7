//! Decides whether a new version is worse than the old one: from counts to a reason, or nothing.

use super::guard_counters::Counts;
use super::rollout_settings::GuardSettings;
use std::time::Duration;

/// The quantile of latency that is compared. It is steadier than the 99th percentile of few calls.
pub(super) const QUANTILE: f64 = 0.95;

/// Returns why `new` should be rolled back. `new` is not judged before it has had `min_requests`,
/// and is compared with `old` only if that has had as many.
pub(super) fn judge(settings: &GuardSettings, route: &str, new: &Counts, old: &Counts) -> Option<String> {
    if new.judged() < settings.min_requests {
        return None;
    }
    let known = old.judged() >= settings.min_requests;
    let before = if known { old.fault_rate() } else { 0.0 };
    if new.fault_rate() > before + settings.max_fault_rate {
        let (faults, requests) = (new.faults(), new.judged());
        let (rate, allowed) = (percent(new.fault_rate()), percent(settings.max_fault_rate));
        let worse =
            if before > 0.0 { format!(" more than the {} before", percent(before)) } else { String::new() };
        return Some(format!(
            "{route} failed {faults} of {requests} requests ({rate}), allowed {allowed}{worse}"
        ));
    }
    if new.ok() < settings.min_requests || old.ok() < settings.min_requests {
        return None;
    }
    let (slow, was) = (new.quantile(QUANTILE), old.quantile(QUANTILE));
    let allowed = was.mul_f64(settings.max_latency_ratio).max(was + settings.latency_floor);
    (slow > allowed).then(|| {
        let (slow, was, allowed) = (ms(slow), ms(was), ms(allowed));
        let requests = new.ok();
        format!("{route} took {slow} ms (95th percentile of {requests} requests) instead of {was} ms, allowed {allowed} ms")
    })
}

/// Returns the reason if too many answers of a shadow differ.
pub(super) fn judge_differences(
    settings: &GuardSettings,
    allowed: Option<f64>,
    compared: u64,
    differences: u64,
) -> Option<String> {
    let rate = differences as f64 / compared.max(1) as f64;
    let allowed = allowed.filter(|allowed| compared >= settings.min_requests && rate > *allowed)?;
    let (rate, allowed) = (percent(rate), percent(allowed));
    Some(format!("{differences} of {compared} shadow answers differ ({rate}), allowed {allowed}"))
}

/// Formats a share, such as `20.9 %` or `5 %`.
fn percent(rate: f64) -> String {
    format!("{} %", (rate * 1e3).round() / 10.0)
}

/// Returns milliseconds, rounded to the hundredth.
pub(super) fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e5).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Duration = Duration::from_millis(4);

    fn verdict(new: (&[(u64, Duration)], u64), old: (&[(u64, Duration)], u64)) -> Option<String> {
        let counts = |(ok, faults)| Counts::made_up(ok, faults);
        judge(&GuardSettings::default(), "a:1", &counts(new), &counts(old))
    }

    #[test]
    fn faults_over_the_threshold_are_named_with_their_numbers() {
        let reason = verdict((&[(87, FAST)], 23), (&[(100, FAST)], 0)).unwrap();
        assert_eq!(reason, "a:1 failed 23 of 110 requests (20.9 %), allowed 5 %");
        assert_eq!(verdict((&[(95, FAST)], 5), (&[(100, FAST)], 0)), None, "at the threshold is not over it");
    }

    #[test]
    fn too_few_requests_say_nothing() {
        assert_eq!(verdict((&[(29, FAST)], 20), (&[(100, FAST)], 0)), None);
        assert_eq!(verdict((&[(0, FAST)], 49), (&[], 0)), None);
        assert!(
            verdict((&[(0, FAST)], 50), (&[], 0)).is_some(),
            "a new route has nothing to be compared with"
        );
    }

    #[test]
    fn a_version_is_not_blamed_for_what_failed_before_it() {
        let broken: (&[(u64, Duration)], u64) = (&[(70, FAST)], 30);
        assert_eq!(verdict((&[(67, FAST)], 33), broken), None);
        let reason = verdict((&[(60, FAST)], 40), broken).unwrap();
        assert_eq!(reason, "a:1 failed 40 of 100 requests (40 %), allowed 5 % more than the 30 % before");
        // Too few requests before excuse nothing.
        assert!(verdict((&[(80, FAST)], 20), (&[(1, FAST)], 1)).is_some());
    }

    #[test]
    fn slower_counts_only_over_the_ratio_and_the_floor() {
        let at = |ms: u64| [(100, Duration::from_millis(ms))];
        let slower = |new: u64, old: u64| verdict((&at(new), 0), (&at(old), 0));
        assert!(slower(50, 10).unwrap().starts_with("a:1 took "), "{:?}", slower(50, 10));
        assert_eq!(slower(17, 10), None, "under twice as slow");
        assert_eq!(slower(5, 1), None, "under the floor");
        assert_eq!(slower(10, 50), None);
        // One slow call in fifty is allowed.
        let tail = [(98, FAST), (2, Duration::from_secs(1))];
        assert_eq!(verdict((&tail, 0), (&at(4), 0)), None);
    }

    #[test]
    fn differences_are_judged_where_a_limit_is_set() {
        let settings = GuardSettings::default();
        assert_eq!(judge_differences(&settings, None, 100, 100), None);
        assert_eq!(judge_differences(&settings, Some(0.1), 49, 49), None);
        assert_eq!(judge_differences(&settings, Some(0.1), 100, 10), None);
        let reason = judge_differences(&settings, Some(0.1), 100, 30).unwrap();
        assert_eq!(reason, "30 of 100 shadow answers differ (30 %), allowed 10 %");
    }
}
