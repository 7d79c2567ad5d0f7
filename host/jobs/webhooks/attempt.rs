//! One attempt of a delivery, and what follows from its answer.

use super::delivery::{Delivery, DeliveryOutcome, Settlement};
use super::message;
use super::receivers::InFlight;
use super::signature::sign;
use crate::error::{Error, Kind, Result};
use crate::jobs::registry::JobRegistry;
use crate::jobs::store::Change;
use crate::outbound::{HttpRequest, ReplyHead};
use crate::policy::Webhooks;
use hyper::header::RETRY_AFTER;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// The pause after the first failed attempt. It doubles up to the longest.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_LONGEST: Duration = Duration::from_secs(300);

/// The longest pause that a receiver may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// How old a delivery may be while the manifest has no `[jobs.webhooks]`.
const MAX_AGE: Duration = Duration::from_secs(86_400);

/// How long before its expiry the last attempt of a delivery is made.
const LAST_ATTEMPT_TIME: Duration = Duration::from_millis(500);

/// The pauses while the store is unavailable.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// Characters of an error that are kept.
const ERROR_CHARS_MAX: usize = 300;

/// The status with which a receiver wants no further attempt.
const GONE: u16 = 410;

/// What one attempt came to.
enum Outcome {
    Delivered,
    /// The receiver wants no more.
    Gone,
    /// `pause` is the one that the receiver asks for.
    Failed {
        error: Error,
        pause: Option<Duration>,
        has_answered: bool,
    },
}

/// Attempts a delivery that was claimed for `lease`, and records the outcome.
pub(super) async fn attempt(
    registry: Arc<JobRegistry>,
    delivery: Delivery,
    in_flight: InFlight,
    lease: Duration,
) {
    let until = Instant::now() + lease;
    let webhooks = registry.config.router.policy().content.webhooks.clone();
    let max_age = webhooks.as_ref().map_or(MAX_AGE, |webhooks| webhooks.plan.max_age);
    let expires = delivery.created.after(max_age);
    if registry.store().now() >= expires {
        let why = match &delivery.last_error {
            Some(error) => error.to_string(),
            None => "no attempt could be made: other deliveries to the receiver were not answered".into(),
        };
        let failed = given_up(max_age, &why);
        return settle(&registry, &delivery, delivery.attempts, failed, until).await;
    }
    let started = Instant::now();
    let outcome = send(webhooks.as_deref(), &delivery).await;
    let metrics = registry.metrics();
    metrics.webhook_seconds.observe(started.elapsed().as_secs_f64());
    let attempts = delivery.attempts.saturating_add(1);
    let (name, settled) = match outcome {
        Outcome::Delivered => {
            in_flight.answered(true);
            ("delivered", DeliveryOutcome::Delivered)
        }
        Outcome::Gone => {
            in_flight.answered(true);
            let error =
                format!("{}: answered {GONE}, and wants no further attempt", delivery.webhook.receiver);
            ("gone", DeliveryOutcome::Failed { error: error.into() })
        }
        Outcome::Failed { error, pause, has_answered } => {
            in_flight.answered(has_answered);
            let (job, receiver) = (&*delivery.job, &*delivery.webhook.receiver);
            tracing::debug!(job, receiver, attempts, "webhook attempt failed: {error}");
            let name = if has_answered { "refused" } else { error.kind().as_str() };
            let error: String = error.message().chars().take(ERROR_CHARS_MAX).collect();
            let now = registry.store().now();
            let pause = backoff(attempts).max(pause.unwrap_or_default());
            // The last attempt is made just before the delivery expires.
            let last = now.until(expires).saturating_sub(LAST_ATTEMPT_TIME);
            let settled = match last.is_zero() {
                false => DeliveryOutcome::Retry { error: error.into(), due: now.after(pause.min(last)) },
                true => given_up(max_age, &error),
            };
            (name, settled)
        }
    };
    metrics.webhook_attempts.with_label_values(&[name]).inc();
    settle(&registry, &delivery, attempts, settled, until).await;
}

fn given_up(max_age: Duration, why: &str) -> DeliveryOutcome {
    let error = format!("{why}; given up, because max_age_s is {}", max_age.as_secs());
    DeliveryOutcome::Failed { error: error.into() }
}

/// Returns the pause after this many attempts. Half of it is chance.
fn backoff(attempts: u32) -> Duration {
    let longest = (BACKOFF_FIRST * (1 << attempts.saturating_sub(1).min(16))).min(BACKOFF_LONGEST);
    longest.mul_f64(0.5 + fastrand::f64() / 2.0)
}

async fn send(webhooks: Option<&Webhooks>, delivery: &Delivery) -> Outcome {
    match exchange(webhooks, delivery).await {
        Ok(ReplyHead { status: 200..=299, .. }) => Outcome::Delivered,
        Ok(ReplyHead { status: GONE, .. }) => Outcome::Gone,
        Ok(ReplyHead { status, headers }) => {
            let what = match status {
                300..=399 => ", a redirect, which is not followed",
                _ => "",
            };
            let receiver = &delivery.webhook.receiver;
            let error = Error::unavailable(format!("{receiver}: answered {status}{what}"));
            let pause = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
            let pause = pause.and_then(|value| retry_after(value, SystemTime::now()));
            Outcome::Failed { error, pause, has_answered: true }
        }
        Err(error) => Outcome::Failed { error, pause: None, has_answered: false },
    }
}

async fn exchange(webhooks: Option<&Webhooks>, delivery: &Delivery) -> Result<ReplyHead> {
    let webhooks = webhooks.ok_or_else(|| {
        Error::unavailable("the manifest has no [jobs.webhooks] any more, so nothing can be delivered")
    })?;
    // The manifest may have changed since the job was submitted.
    webhooks.receiver(&delivery.webhook.url)?;
    let (id, body) = (message::id(delivery), message::body(delivery));
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let signature = sign(&webhooks.plan.secrets, &id, seconds, &body);
    let headers = [
        ("content-type", "application/json".to_owned()),
        ("webhook-id", id),
        ("webhook-timestamp", seconds.to_string()),
        ("webhook-signature", signature),
    ];
    let request = HttpRequest {
        method: "POST".into(),
        url: delivery.webhook.url.to_string(),
        headers: headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        body,
        timeout: None,
    };
    let checked = request.check(&webhooks.plan.limits)?;
    let sent = webhooks.client.fetch_head(checked).await;
    sent.map_err(|error| error.context(&delivery.webhook.receiver))
}

/// Parses `Retry-After`: seconds, or a date.
fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let pause = match value.trim().parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(value.trim()).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(pause.min(RETRY_AFTER_MAX))
}

/// Records an outcome. While the store is unavailable, this waits for it until the claim lapses;
/// then the delivery is made again.
async fn settle(
    registry: &JobRegistry,
    delivery: &Delivery,
    attempts: u32,
    outcome: DeliveryOutcome,
    until: Instant,
) {
    let (number, fence) = (delivery.number, delivery.fence);
    let settlement = Settlement { number, fence, attempts, outcome: outcome.clone() };
    let settled = loop {
        match registry.store().settle_delivery(settlement.clone()).await {
            Err(error) if error.kind() == Kind::Unavailable || error.kind() == Kind::Overloaded => {
                if Instant::now() + STORE_PAUSE >= until {
                    break Err(error);
                }
                tokio::time::sleep(STORE_PAUSE).await;
            }
            settled => break settled,
        }
    };
    registry.publish_usage();
    let (job, receiver) = (&*delivery.job, &*delivery.webhook.receiver);
    match (settled, outcome) {
        (Ok(Change::Done), DeliveryOutcome::Delivered) => {
            registry.metrics().webhook_deliveries.with_label_values(&["delivered"]).inc();
            tracing::debug!(job, receiver, attempts, "webhook delivered");
        }
        (Ok(Change::Done), DeliveryOutcome::Failed { error }) => {
            registry.metrics().webhook_deliveries.with_label_values(&["failed"]).inc();
            tracing::warn!(job, receiver, attempts, "webhook not delivered: {error}");
        }
        (Ok(_), _) => {}
        (Err(error), _) => {
            tracing::warn!(
                job,
                receiver,
                "cannot record the outcome of a webhook, which is repeated: {error}"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_are_partly_random() {
        for (attempts, most) in [(1, 1.0), (2, 2.0), (5, 16.0), (9, 256.0), (10, 300.0), (u32::MAX, 300.0)] {
            let pause = backoff(attempts).as_secs_f64();
            assert!((most / 2.0..=most).contains(&pause), "{attempts}: {pause}");
        }
    }

    #[test]
    fn a_receiver_may_ask_for_a_pause_within_bounds() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (value, expected) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("99999999999", Some(3600)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:49:36 GMT", Some(0)),
            ("Sat, 06 Nov 2094 08:49:37 GMT", Some(3600)),
            ("-1", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(retry_after(value, now), expected.map(Duration::from_secs), "{value:?}");
        }
    }
}
