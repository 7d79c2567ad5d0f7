//! The budget of buffered bytes, and the table of all transfers that use it.

use super::abort::Abort;
use super::pace::Pace;
use super::reason::{Direction, Reason};
use super::state::TransferState;
use crate::error::{Error, Result};
use crate::lock::LockUnpoisoned;
use crate::metrics::Metrics;
use crate::policy::settings::Limits;
use futures_util::task::AtomicWaker;
use hyper::header::HeaderValue;
use slab::Slab;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// A request up to this size may use the reserve, so that large transfers cannot shut out small
/// ones.
pub(super) const SMALL_BYTES: usize = 256 << 10;

/// The reserve is the budget divided by this.
const RESERVE_DIVISOR: usize = 4;

/// A transfer that is younger than this, or would end within `SOON` at its pace, is not aborted in
/// favor of another one. A transfer that has not moved for `IDLE` counts as stopped.
pub(super) const YOUNG: Duration = Duration::from_millis(250);
const SOON: Duration = Duration::from_secs(2);
pub(super) const IDLE: Duration = Duration::from_millis(250);

/// The least time between two searches for a slow transfer, after a search has found none.
const SEARCH_EVERY: Duration = Duration::from_millis(20);

/// While the host drains, an answer is aborted if the client reads nothing of it for this long.
const DRAIN_STALL: Duration = Duration::from_secs(5);

/// The least time between two sweeps, however many listeners call `sweep`.
const SWEEP_EVERY: Duration = Duration::from_millis(900);

/// The least time between two logged aborts.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// The budget, and all transfers that use it.
pub struct Transfers {
    pub(super) limits: Limits,
    started: Instant,
    pub(super) metrics: Arc<Metrics>,
    pub(super) used: AtomicUsize,
    is_draining: AtomicBool,
    /// When the next search for a slow transfer may begin, in ms since the host started.
    next_search: AtomicU64,
    table: Mutex<Table>,
}

#[derive(Default)]
pub(super) struct Table {
    pub entries: Slab<Entry>,
    pub swept: Option<Instant>,
    logged: Option<Instant>,
    unlogged: u64,
}

pub(super) struct Entry {
    state: Arc<TransferState>,
    pub pace: Pace,
}

impl Transfers {
    pub fn new(limits: Limits, metrics: Arc<Metrics>) -> Arc<Self> {
        let (used, is_draining, next_search, table) = Default::default();
        Arc::new(Transfers {
            limits,
            started: Instant::now(),
            metrics,
            used,
            is_draining,
            next_search,
            table,
        })
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whether more than half of the budget is used. Work that can wait then should.
    pub(in crate::server) fn is_tight(&self) -> bool {
        self.used.load(Relaxed) > self.limits.max_buffered_bytes / 2
    }

    /// From now on, answers that their clients do not read are aborted soon.
    pub(in crate::server) fn drain(&self) {
        self.is_draining.store(true, Relaxed);
    }

    /// Returns how long a client may read nothing of its answer.
    pub(in crate::server) fn stall_max(&self) -> Duration {
        let limit = self.limits.write_timeout;
        if self.is_draining.load(Relaxed) { limit.min(DRAIN_STALL) } else { limit }
    }

    /// Adds a transfer to the table, and returns its key and its state.
    pub(super) fn insert(
        &self,
        direction: Direction,
        on_abort: Option<Arc<dyn Abort>>,
        request_id: Option<HeaderValue>,
    ) -> (usize, Arc<TransferState>) {
        let began = Instant::now();
        let state = Arc::new(TransferState {
            direction,
            began,
            holds_since: AtomicU64::new(self.ms(began)),
            held: AtomicUsize::new(0),
            total: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            moved_at: AtomicU64::new(self.ms(began)),
            is_whole: AtomicBool::new(false),
            aborted: AtomicU8::new(0),
            reader: AtomicWaker::new(),
            on_abort,
            request_id,
        });
        let entry = Entry { state: Arc::clone(&state), pace: Pace::new(began) };
        (self.table().entries.insert(entry), state)
    }

    pub(super) fn remove(&self, key: usize) {
        self.table().entries.remove(key);
    }

    /// Returns the milliseconds from the start of the host to `moment`.
    pub(super) fn ms(&self, moment: Instant) -> u64 {
        moment.saturating_duration_since(self.started).as_millis() as u64
    }

    /// Reserves bytes of the budget. Aborts slow transfers if too few are free.
    ///
    /// # Errors
    /// `overloaded` if no transfer is slow enough to be aborted.
    pub(super) fn reserve(&self, bytes: usize, is_small: bool) -> Result<()> {
        let budget = self.limits.max_buffered_bytes;
        let max = budget.saturating_add(if is_small { budget / RESERVE_DIVISOR } else { 0 });
        let more = |used: usize| used.checked_add(bytes).filter(|used| *used <= max);
        while self.used.fetch_update(Relaxed, Relaxed, more).is_err() {
            if !self.abort_slowest() {
                return Err(self.full());
            }
        }
        self.metrics.transfers.buffered_bytes.add(bytes as i64);
        Ok(())
    }

    /// Returns bytes to the budget.
    pub(super) fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Relaxed);
        self.metrics.transfers.buffered_bytes.sub(bytes as i64);
    }

    fn full(&self) -> Error {
        let mb = self.limits.max_buffered_bytes >> 20;
        Error::overloaded(format!(
            "the host holds {mb} MB of requests and answers for its clients, which is the limit; try again, or raise \
             max_buffered_mb"
        ))
    }

    /// Aborts slow transfers as long as the budget is exceeded.
    pub(super) fn abort_excess(&self) {
        while self.used.load(Relaxed) > self.limits.max_buffered_bytes && self.abort_slowest() {}
    }

    /// Aborts the transfer that would take longest to end. Returns false if none is slow.
    fn abort_slowest(&self) -> bool {
        let now = Instant::now();
        let now_ms = self.ms(now);
        if now_ms < self.next_search.load(Relaxed) {
            return false;
        }
        let since = |moment: &AtomicU64| Duration::from_millis(now_ms.saturating_sub(moment.load(Relaxed)));
        let mut table = self.table();
        let candidates = table.entries.iter().filter_map(|(key, Entry { state, pace })| {
            if !state.can_be_aborted() || since(&state.holds_since) < YOUNG {
                return None;
            }
            let (moved, idle) = (state.moved.load(Relaxed), since(&state.moved_at));
            let remaining = match idle >= IDLE {
                true => Duration::MAX,
                false => pace.time_for(state.total.load(Relaxed).saturating_sub(moved), moved, now),
            };
            (remaining >= SOON).then_some((key, (remaining, idle, state.held.load(Relaxed))))
        });
        let slowest = candidates.max_by_key(|(_, slowness)| *slowness);
        let is_aborted = slowest.is_some_and(|(key, _)| self.abort(&mut table, key, Reason::Limit, now));
        if !is_aborted {
            self.next_search.store(now_ms + SEARCH_EVERY.as_millis() as u64, Relaxed);
        }
        is_aborted
    }

    /// Measures the pace of all transfers, and aborts those that are too slow. Must be called once
    /// a second.
    pub(in crate::server) fn sweep(&self) {
        let now = Instant::now();
        let (min_bytes_per_s, stall_max) = (self.limits.min_bytes_per_s, self.stall_max());
        let mut table = self.table();
        if table.swept.is_some_and(|swept| now.saturating_duration_since(swept) < SWEEP_EVERY) {
            return;
        }
        table.swept = Some(now);
        let mut late = Vec::new();
        for (key, Entry { state, pace }) in &mut table.entries {
            pace.sweep(state.moved.load(Relaxed), state.held.load(Relaxed) > 0, now);
            if !state.can_be_aborted() {
                continue;
            }
            match state.direction {
                Direction::Request if pace.is_below(min_bytes_per_s) => late.push((key, Reason::Slow)),
                Direction::Answer if pace.stalled_for(now) >= stall_max => late.push((key, Reason::Stalled)),
                _ => {}
            }
        }
        for (key, reason) in late {
            self.abort(&mut table, key, reason, now);
        }
        drop(table);
        self.abort_excess();
    }

    /// Tells a transfer to end. The bytes that it holds count as free from now on, because its task
    /// drops them at once.
    fn abort(&self, table: &mut Table, key: usize, reason: Reason, now: Instant) -> bool {
        let state = Arc::clone(&table.entries[key].state);
        if state.aborted.compare_exchange(0, reason as u8 + 1, Relaxed, Relaxed).is_err() {
            return false;
        }
        let held_bytes = state.held.swap(0, Relaxed);
        self.release(held_bytes);
        let (direction, reason) = (state.direction.as_str(), reason.as_str());
        self.metrics.transfers.aborted.with_label_values(&[direction, reason]).inc();
        if table.logged.is_some_and(|logged| now.saturating_duration_since(logged) < LOG_EVERY) {
            table.unlogged += 1;
        } else {
            table.logged = Some(now);
            let unlogged = std::mem::take(&mut table.unlogged);
            let request_id = state.request_id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or_default();
            let (moved_bytes, ms) =
                (state.moved.load(Relaxed), now.duration_since(state.began).as_millis() as u64);
            tracing::warn!(
                direction,
                reason,
                request_id,
                held_bytes,
                moved_bytes,
                ms,
                unlogged,
                "transfer aborted: its client is slow"
            );
        }
        state.reader.wake();
        if let Some(on_abort) = &state.on_abort {
            on_abort.abort();
        }
        true
    }

    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        // Every change of the table is complete before anything can panic.
        self.table.lock_unpoisoned()
    }

    /// Returns the error of a request that was aborted.
    pub(super) fn error_for(&self, reason: Reason) -> Error {
        match reason {
            Reason::Slow | Reason::Stalled => {
                let min = self.limits.min_bytes_per_s;
                Error::deadline(format!(
                    "the request arrived at less than {min} bytes/s for 5 s; see min_bytes_per_s"
                ))
                .field("body")
            }
            Reason::Limit => {
                let mb = self.limits.max_buffered_bytes >> 20;
                Error::overloaded(format!(
                    "the host holds {mb} MB of requests and answers for its clients, which is the limit, and this \
                     request was the slowest to arrive; try again, or raise max_buffered_mb"
                ))
            }
        }
    }
}
