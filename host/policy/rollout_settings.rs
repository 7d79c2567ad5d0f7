//! The `[reload.guard]` and `[reload.canary]` tables, checked and with their defaults filled in.

use super::diagnostic::Diagnostic;
use super::manifest::{self, Spanned};
use super::milliseconds::{MS_MAX, milliseconds};
use super::sticky_by::StickyBy;
use std::ops::RangeInclusive;
use std::time::Duration;

/// The most steps of a canary.
const STEPS_MAX: usize = 100;

/// When a new policy is rolled back automatically.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GuardSettings {
    /// How long a policy is watched once it serves all requests.
    pub watch: Duration,
    /// A route with fewer requests is not judged.
    pub min_requests: u64,
    /// The share of requests that may fail in addition to the share of the old policy.
    pub max_fault_rate: f64,
    /// How many times slower the new policy may be, at the 95th percentile.
    pub max_latency_ratio: f64,
    /// A smaller difference than this is never too slow.
    pub latency_floor: Duration,
}

impl Default for GuardSettings {
    fn default() -> Self {
        GuardSettings {
            watch: Duration::from_secs(60),
            min_requests: 50,
            max_fault_rate: 0.05,
            max_latency_ratio: 2.0,
            latency_floor: Duration::from_millis(5),
        }
    }
}

/// How a new policy is introduced.
#[derive(Clone, Debug, PartialEq)]
pub struct CanarySettings {
    /// Growing percentages of the requests. After the last step, the policy serves all.
    pub steps: Vec<f64>,
    pub step: Duration,
    pub by: StickyBy,
    pub shadow: Option<ShadowSettings>,
}

/// The stage before the canary: the new policy answers copies of requests, and the answers are
/// dropped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ShadowSettings {
    pub period: Duration,
    /// Percent of the requests.
    pub share: f64,
    /// Numbers may differ by this much.
    pub tolerance: f64,
    pub max_difference_rate: Option<f64>,
}

impl GuardSettings {
    pub fn from_manifest(guard: &manifest::Guard) -> Result<Self, Diagnostic> {
        const TABLE: &str = "[reload.guard]";
        let default = GuardSettings::default();
        let min_requests =
            whole(TABLE, "min_requests", &guard.min_requests, default.min_requests, 1..=1_000_000_000)?;
        let watch_ms = default.watch.as_millis() as u64;
        let watch_ms = whole(TABLE, "watch_ms", &guard.watch_ms, watch_ms, 0..=MS_MAX)?;
        let floor_ms = default.latency_floor.as_secs_f64() * 1e3;
        let floor_ms =
            within(TABLE, "latency_floor_ms", &guard.latency_floor_ms, floor_ms, 0.0, 3_600_000.0)?;
        Ok(GuardSettings {
            watch: milliseconds(watch_ms),
            min_requests,
            max_fault_rate: rate(TABLE, "max_fault_rate", &guard.max_fault_rate, default.max_fault_rate)?,
            max_latency_ratio: within(
                TABLE,
                "max_latency_ratio",
                &guard.max_latency_ratio,
                default.max_latency_ratio,
                1.0,
                1e6,
            )?,
            latency_floor: Duration::from_secs_f64(floor_ms / 1e3),
        })
    }
}

impl CanarySettings {
    pub fn from_manifest(canary: &manifest::Canary) -> Result<Self, Diagnostic> {
        const TABLE: &str = "[reload.canary]";
        let by = canary.by.as_ref().map_or(Some(StickyBy::RequestId), |by| StickyBy::parse(by.get_ref()));
        let by = by.ok_or_else(|| {
            fault(TABLE, "by", &canary.by, "is not known").hint("write \"request-id\" or \"header:<name>\"")
        })?;
        let period = milliseconds(whole(TABLE, "shadow_ms", &canary.shadow_ms, 0, 0..=MS_MAX)?);
        let shadow = ShadowSettings {
            period,
            share: within(TABLE, "shadow_share", &canary.shadow_share, 10.0, 0.0, 100.0)?,
            tolerance: within(TABLE, "shadow_tolerance", &canary.shadow_tolerance, 0.0, 0.0, f64::MAX)?,
            max_difference_rate: match &canary.max_difference_rate {
                None => None,
                set => Some(rate(TABLE, "max_difference_rate", set, 1.0)?),
            },
        };
        Ok(CanarySettings {
            steps: steps(canary.steps.as_ref())?,
            step: milliseconds(whole(TABLE, "step_ms", &canary.step_ms, 30_000, 0..=MS_MAX)?),
            by,
            shadow: (!period.is_zero()).then_some(shadow),
        })
    }
}

/// Reads the steps. A last step of 100 is dropped, since the steps end there anyway.
fn steps(written: Option<&Spanned<Vec<f64>>>) -> Result<Vec<f64>, Diagnostic> {
    let Some(written) = written else { return Ok(vec![1.0, 10.0, 50.0]) };
    let mut steps = written.get_ref().clone();
    let bounded = steps.iter().all(|step| *step > 0.0 && *step <= 100.0);
    let growing = steps.windows(2).all(|pair| pair[0] < pair[1]);
    if steps.is_empty() || steps.len() > STEPS_MAX || !bounded || !growing {
        let message = format!(
            "[reload.canary] steps must be 1 to {STEPS_MAX} increasing percentages, each over 0 and at most 100"
        );
        return Err(Diagnostic::new(message).at(written.span()).hint("write [1, 10, 50]"));
    }
    steps.retain(|step| *step < 100.0);
    Ok(steps)
}

/// Reads a whole number, and checks its bounds.
pub(super) fn whole(
    table: &str,
    key: &str,
    written: &Option<Spanned<u64>>,
    default: u64,
    bounds: RangeInclusive<u64>,
) -> Result<u64, Diagnostic> {
    let number = written.as_ref().map_or(default, |value| *value.get_ref());
    match number {
        low if low < *bounds.start() => {
            Err(fault(table, key, written, &format!("must be at least {}", bounds.start())))
        }
        high if high > *bounds.end() => {
            Err(fault(table, key, written, &format!("must be at most {}", bounds.end())))
        }
        number => Ok(number),
    }
}

fn rate(table: &str, key: &str, written: &Option<Spanned<f64>>, default: f64) -> Result<f64, Diagnostic> {
    within(table, key, written, default, 0.0, 1.0)
        .map_err(|fault| fault.hint("it is a share: 0.05 is one request in twenty"))
}

fn within(
    table: &str,
    key: &str,
    written: &Option<Spanned<f64>>,
    default: f64,
    least: f64,
    most: f64,
) -> Result<f64, Diagnostic> {
    let value = written.as_ref().map_or(default, |value| *value.get_ref());
    if value >= least && value <= most {
        return Ok(value);
    }
    let bounds = if most < f64::MAX {
        format!("must be from {least} to {most}")
    } else {
        format!("must be {least} or more")
    };
    Err(fault(table, key, written, &bounds))
}

fn fault<T>(table: &str, key: &str, written: &Option<Spanned<T>>, what: &str) -> Diagnostic {
    let fault = Diagnostic::new(format!("{table} {key} {what}"));
    match written {
        Some(written) => fault.at(written.span()),
        None => fault,
    }
}
