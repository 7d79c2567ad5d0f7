//! What happens to jobs by itself: leases are renewed, pending jobs whose time is over end, jobs
//! whose host is gone become pending again, and ended jobs expire.

use super::job::{End, Job};
use super::registry::{JobRegistry, LEASE};
use super::store::{Lease, Renewal};
use crate::error::{Error, Result};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

/// How often changed limits take effect, and the pause after a failure.
const SWEEP_EVERY: Duration = Duration::from_millis(250);

/// Jobs that are read at once.
const AT_ONCE: usize = 100;

/// A job that was running this many times when the host ended is not run again: it may be the
/// reason.
const INTERRUPTIONS_MAX: u32 = 3;

/// Runs until the registry is dropped.
pub(super) async fn sweep(jobs: Weak<JobRegistry>) {
    let mut renewed = Instant::now();
    loop {
        let Some(jobs) = jobs.upgrade() else { return };
        jobs.slots.resize(jobs.settings().concurrency);
        jobs.publish_usage();
        jobs.fail_abandoned().await;
        if renewed.elapsed() >= LEASE / 3 {
            renewed = Instant::now();
            renew(&jobs).await;
        }
        let pause = match settle_due(&jobs).await {
            Ok(false) => time_to_next(&jobs),
            Ok(true) => Duration::ZERO,
            Err(error) => {
                tracing::debug!("cannot look for jobs that are due: {error}");
                SWEEP_EVERY
            }
        };
        drop(jobs);
        tokio::time::sleep(pause).await;
    }
}

fn time_to_next(jobs: &JobRegistry) -> Duration {
    let store = jobs.store();
    let next = store.next_event().map_or(SWEEP_EVERY, |at| store.now().until(at));
    // The clock of the store counts milliseconds.
    next.clamp(Duration::from_millis(1), SWEEP_EVERY)
}

/// Returns whether there may be more to do at once.
async fn settle_due(jobs: &Arc<JobRegistry>) -> Result<bool> {
    let abandoned = jobs.store().abandoned(AT_ONCE).await?;
    let overdue = jobs.store().overdue(AT_ONCE).await?;
    let full = abandoned.len() == AT_ONCE || overdue.len() == AT_ONCE;
    for job in abandoned {
        interrupt(jobs, job).await?;
    }
    for job in overdue {
        end_overdue(jobs, job).await?;
    }
    Ok(jobs.expire().await? || full)
}

/// Makes a job pending whose host is gone, or ends it if that has happened too often.
async fn interrupt(jobs: &JobRegistry, job: Job) -> Result<()> {
    let mut status = job.status.clone();
    status.interruptions += 1;
    let (count, why) = (status.interruptions, Error::failed("the host ended during the attempt"));
    tracing::warn!(job = &*job.id, model = %job.spec.model, interruptions = count, "job interrupted");
    status.interrupt(&why, SystemTime::now(), jobs.store().now());
    if count >= INTERRUPTIONS_MAX {
        let error = Error::failed(format!(
            "the host ended {count} times while it ran this job, so it is not run again: the job may be the reason"
        ));
        let error = error.model(job.spec.model.to_string());
        status.end(&End::Failed(error), SystemTime::now(), jobs.expiry());
    }
    jobs.metrics().interruptions.inc();
    jobs.change(&job, status, None, false).await.map(drop)
}

/// Ends a pending job whose total runtime has passed.
async fn end_overdue(jobs: &JobRegistry, job: Job) -> Result<()> {
    let ms = job.spec.budgets.max_total_runtime.as_millis();
    let why = match &job.status.last_refusal {
        Some(refusal) => refusal.message().to_owned(),
        None => "all slots for jobs were taken (concurrency under [jobs])".into(),
    };
    let what = match job.status.attempts.len() {
        0 => "no attempt was ever admitted".to_owned(),
        made => format!("attempt {} was never admitted", made + 1),
    };
    let error = Error::deadline(format!("max_total_runtime_ms ({ms}) passed and {what}: {why}"));
    let error = error.model(job.spec.model.to_string());
    let mut status = job.status.clone();
    status.end(&End::Timeout(error), SystemTime::now(), jobs.expiry());
    jobs.change(&job, status, None, false).await.map(drop)
}

/// Extends the leases of the jobs that run here, and stops those that have ended or are not this
/// host's any more.
async fn renew(jobs: &JobRegistry) {
    let leases: Vec<Lease> = jobs.active().values().map(|active| active.lease.clone()).collect();
    if leases.is_empty() {
        return;
    }
    match jobs.store().renew(leases.clone(), LEASE).await {
        Ok(renewals) => {
            for (lease, renewal) in leases.iter().zip(renewals) {
                if renewal == Renewal::Lost {
                    tracing::warn!(job = &*lease.id, "job lost: its lease was not renewed in time");
                }
                if renewal != Renewal::Held
                    && let Some(active) =
                        jobs.active().get(&lease.id).filter(|active| active.lease.fence == lease.fence)
                {
                    active.end();
                }
            }
        }
        Err(error) => tracing::debug!("cannot renew leases of jobs: {error}"),
    }
}
