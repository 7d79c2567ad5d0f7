//! A tenant: what it uses now, and what it may still use.

use super::limits::TenantLimits;
use super::metrics::{Refused, TenantMetrics};
use super::rate::{Bucket, Rate};
use crate::error::{Error, Quota, Result};
use crate::lock::LockUnpoisoned;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

/// When a request that holds no more than its share ends is not known.
const SOON: Duration = Duration::from_secs(1);

/// A tenant. There is one for each name, across policies.
pub struct Tenant {
    name: Arc<str>,
    state: Mutex<State>,
    in_flight: AtomicUsize,
    bytes: AtomicUsize,
}

struct State {
    requests: Bucket,
    rows: Bucket,
    /// The series are those of the policies that know the tenant, and go with these.
    metrics: Weak<TenantMetrics>,
}

impl Tenant {
    pub(super) fn new(name: Arc<str>, metrics: &Arc<TenantMetrics>) -> Self {
        let full = Bucket::full(Instant::now());
        let state = Mutex::new(State { requests: full, rows: full, metrics: Arc::downgrade(metrics) });
        Tenant { name, state, in_flight: AtomicUsize::new(0), bytes: AtomicUsize::new(0) }
    }

    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock_unpoisoned()
    }

    /// Counts from now on into these series.
    pub(super) fn count_into(&self, metrics: &Arc<TenantMetrics>) {
        let mut state = self.state();
        if !std::ptr::eq(state.metrics.as_ptr(), Arc::as_ptr(metrics)) {
            state.metrics = Arc::downgrade(metrics);
        }
    }

    /// Whether forgetting the tenant would change nothing for it.
    pub(super) fn is_unused(&self, limits: &TenantLimits) -> bool {
        let now = Instant::now();
        let mut state = self.state();
        let State { requests, rows, .. } = &mut *state;
        self.in_flight.load(Relaxed) == 0
            && self.bytes.load(Relaxed) == 0
            && limits.requests.is_none_or(|rate| requests.is_full(rate, now))
            && limits.rows.is_none_or(|rate| rows.is_full(rate, now))
    }

    /// Admits a request.
    ///
    /// # Errors
    /// `overloaded` if the tenant has as many in flight as it may, or sends more often than it may.
    pub(super) fn admit(self: &Arc<Self>, limits: &Arc<TenantLimits>, now: Instant) -> Result<TenantGuard> {
        if let Some(max) = limits.max_in_flight
            && self.in_flight.fetch_update(Relaxed, Relaxed, |held| (held < max).then_some(held + 1)).is_err()
        {
            let what = format!("{max} requests in flight, the most that it may have (max_in_flight)");
            return Err(self.refused(Refused::InFlight, &what).retry_after(SOON));
        }
        if limits.max_in_flight.is_none() {
            self.in_flight.fetch_add(1, Relaxed);
        }
        let mut state = self.state();
        let taken = limits.requests.map(|rate| (rate, state.requests.take(1.0, rate, now)));
        let metrics = state.metrics.upgrade();
        drop(state);
        let guard = TenantGuard::new(Arc::clone(self), Arc::clone(limits), metrics);
        if let Some((rate, Err(wait))) = taken {
            let what = format!("more than {} requests/s (requests_per_s)", rate.per_s);
            return Err(self.over(Refused::Requests, &what, rate, wait));
        }
        guard.count_request();
        Ok(guard)
    }

    /// Admits the rows of a request.
    ///
    /// # Errors
    /// `overloaded` if the tenant sends more rows than it may.
    pub fn admit_rows(&self, limits: &TenantLimits, rows: usize) -> Result<()> {
        let mut state = self.state();
        if let Some(rate) = limits.rows
            && let Err(wait) = state.rows.take(rows as f64, rate, Instant::now())
        {
            // The request itself has used up one of its kind.
            let next = limits.requests.map(|rate| state.requests.next_unit(rate, Instant::now()));
            let wait = wait.max(next.unwrap_or_default());
            drop(state);
            let what = format!("more than {} rows/s (rows_per_s)", rate.per_s);
            return Err(self.over(Refused::Rows, &what, rate, wait));
        }
        if let Some(metrics) = state.metrics.upgrade() {
            metrics.rows.inc_by(rows as u64);
        }
        Ok(())
    }

    /// Counts bytes of a request that has `total` so far.
    ///
    /// # Errors
    /// `overloaded` if the tenant has too many in flight, and `too_large` if that is this request
    /// alone.
    pub(super) fn reserve(&self, limits: &TenantLimits, bytes: usize, total: usize) -> Result<()> {
        let max = limits.max_in_flight_bytes.unwrap_or(usize::MAX);
        let more = |held: usize| held.checked_add(bytes).filter(|held| *held <= max);
        if total > max {
            self.count(Refused::Bytes);
            return Err(Error::too_large(format!(
                "the request has at least {total} bytes, and tenant \"{}\" may have {} MB in flight (max_in_flight_mb)",
                self.name,
                max >> 20
            )));
        }
        if self.bytes.fetch_update(Relaxed, Relaxed, more).is_err() {
            let what = format!(
                "{} MB of requests in flight, the most that it may have (max_in_flight_mb)",
                max >> 20
            );
            return Err(self.refused(Refused::Bytes, &what).retry_after(SOON));
        }
        Ok(())
    }

    /// Gives back a request and its bytes.
    pub(super) fn release(&self, bytes: usize) {
        self.in_flight.fetch_sub(1, Relaxed);
        self.bytes.fetch_sub(bytes, Relaxed);
    }

    /// Counts a refusal for this reason.
    pub fn count(&self, why: Refused) {
        if let Some(metrics) = self.state().metrics.upgrade() {
            metrics.refused(why);
        }
    }

    fn refused(&self, why: Refused, what: &str) -> Error {
        self.count(why);
        Error::overloaded(format!("tenant \"{}\" has {what}", self.name))
    }

    fn over(&self, why: Refused, what: &str, rate: Rate, wait: Duration) -> Error {
        self.count(why);
        let ms = wait.as_millis() + 1;
        let error = Error::overloaded(format!(
            "tenant \"{}\" sends {what}; try again in {ms} ms, or ask the operator for a higher rate",
            self.name
        ));
        error.retry_after(wait).quota(Quota {
            name: why.as_str(),
            limit: rate.burst,
            per: Duration::try_from_secs_f64(rate.burst / rate.per_s).unwrap_or(Duration::MAX),
        })
    }
}

/// A request that counts as in flight until this is dropped, with the bytes that the host holds for
/// it.
pub struct TenantGuard {
    tenant: Arc<Tenant>,
    limits: Arc<TenantLimits>,
    metrics: Option<Arc<TenantMetrics>>,
    bytes: AtomicUsize,
}

impl TenantGuard {
    pub(super) fn new(
        tenant: Arc<Tenant>,
        limits: Arc<TenantLimits>,
        metrics: Option<Arc<TenantMetrics>>,
    ) -> Self {
        metrics.iter().for_each(|metrics| metrics.in_flight.inc());
        TenantGuard { tenant, limits, metrics, bytes: AtomicUsize::new(0) }
    }

    pub(super) fn count_request(&self) {
        self.metrics.iter().for_each(|metrics| metrics.requests.inc());
    }

    /// Counts the bytes of the request so far, in total.
    ///
    /// # Errors
    /// `overloaded` if its tenant has too many in flight, and `too_large` if that is this request
    /// alone.
    pub fn count_bytes(&self, total: usize) -> Result<()> {
        let more = total.saturating_sub(self.bytes.load(Relaxed));
        if more > 0 {
            self.tenant.reserve(&self.limits, more, total)?;
            self.bytes.fetch_add(more, Relaxed);
            self.metrics.iter().for_each(|metrics| metrics.bytes.add(more as i64));
        }
        Ok(())
    }
}

impl Drop for TenantGuard {
    fn drop(&mut self) {
        let bytes = *self.bytes.get_mut();
        self.tenant.release(bytes);
        if let Some(metrics) = &self.metrics {
            metrics.in_flight.dec();
            metrics.bytes.sub(bytes as i64);
        }
    }
}
