//! Bytes that the host holds for its clients: requests that are arriving, requests at work, answers that are leaving.
//!
//! All of them share one budget. A slow client holds its bytes for longer than others, so where the budget is used up
//! the transfer that would take longest to end is aborted to make room for a new one; refusing the new one would let
//! slow clients shut out the rest. A transfer that falls below the minimum pace is aborted at any time.
//!
//! Over HTTP, requests that arrive in one piece and answers up to 64 KiB are not counted: the limit of connections
//! bounds them. Over gRPC, where a connection has many calls, that holds for messages and answers up to 4 KiB.

mod pace;
mod receive;
mod send;

use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::policy::settings::Limits;
use futures_util::task::AtomicWaker;
use hyper::header::HeaderValue;
use pace::Pace;
pub use receive::Receiving;
pub(super) use send::{Outgoing, PIECE_BYTES};
use slab::Slab;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A request up to this size may use the reserve, so that large transfers cannot shut out small ones.
const SMALL_BYTES: usize = 256 << 10;

/// The reserve, as a part of the budget.
const RESERVE_DIVISOR: usize = 4;

/// A transfer that is younger than this, or would end within `SOON` at its pace, is not aborted for another one. A
/// transfer that has not moved for `IDLE` counts as stopped.
const YOUNG: Duration = Duration::from_millis(250);
const SOON: Duration = Duration::from_secs(2);
const IDLE: Duration = Duration::from_millis(250);

/// Where no transfer was slow enough to be aborted, none is looked for again until this has passed.
const SEARCH_EVERY: Duration = Duration::from_millis(20);

/// While the host drains, an answer of which the client takes nothing is waited for this long at most.
const DRAIN_STALL: Duration = Duration::from_secs(5);

/// Sweeps are at least this far apart, however many listeners ask for them.
const SWEEP_EVERY: Duration = Duration::from_millis(900);

/// Aborted transfers are logged this often at most.
const LOG_EVERY: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Request,
    Answer,
}

impl Direction {
    /// The label of metrics.
    fn as_str(self) -> &'static str {
        match self {
            Direction::Request => "request",
            Direction::Answer => "answer",
        }
    }
}

/// Why the host gives up a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// A request arrives more slowly than `min_bytes_per_s`.
    Slow,
    /// The client has taken nothing of an answer for `write_timeout_ms`.
    Stalled,
    /// The budget is used up, and this transfer would take longest to end.
    Limit,
}

impl Reason {
    const ALL: [Reason; 3] = [Reason::Slow, Reason::Stalled, Reason::Limit];

    /// The label of metrics.
    fn as_str(self) -> &'static str {
        match self {
            Reason::Slow => "slow",
            Reason::Stalled => "stalled",
            Reason::Limit => "limit",
        }
    }
}

/// What ends an answer that is given up.
pub(super) trait Abort: Send + Sync {
    fn abort(&self);
}

/// The budget, and all transfers that use it.
pub struct Transfers {
    limits: Limits,
    started: Instant,
    metrics: Arc<Metrics>,
    used: AtomicUsize,
    is_draining: AtomicBool,
    /// In ms since the start.
    next_search: AtomicU64,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    entries: Slab<Entry>,
    swept: Option<Instant>,
    logged: Option<Instant>,
    unlogged: u64,
}

struct Entry {
    state: Arc<State>,
    pace: Pace,
}

/// What the table and a transfer's own task share.
struct State {
    direction: Direction,
    began: Instant,
    /// Since when it holds anything, in ms since the start.
    holds_since: AtomicU64,
    /// Bytes that count against the budget.
    held: AtomicUsize,
    /// Bytes that will have moved in the end, as far as that is known.
    total: AtomicU64,
    /// Bytes that have come or gone.
    moved: AtomicU64,
    /// When they last did, in ms since the start.
    moved_at: AtomicU64,
    /// A request that has arrived whole: its bytes stay until it is answered, which is not up to its client.
    is_whole: AtomicBool,
    /// One more than the index of the `Reason`, or 0.
    aborted: AtomicU8,
    reader: AtomicWaker,
    /// None for a request: its reader looks for itself.
    on_abort: Option<Arc<dyn Abort>>,
    request_id: Option<HeaderValue>,
}

impl State {
    fn aborted(&self) -> Option<Reason> {
        let index = self.aborted.load(Relaxed).checked_sub(1)?;
        Reason::ALL.get(usize::from(index)).copied()
    }

    fn can_be_aborted(&self) -> bool {
        !self.is_whole.load(Relaxed) && self.held.load(Relaxed) > 0 && self.aborted.load(Relaxed) == 0
    }
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

    /// More than half of the budget is used: what can wait should.
    pub(super) fn is_tight(&self) -> bool {
        self.used.load(Relaxed) > self.limits.max_buffered_bytes / 2
    }

    /// From now on, answers that their clients do not take are waited for only briefly.
    pub(super) fn drain(&self) {
        self.is_draining.store(true, Relaxed);
    }

    /// How long a client may take nothing of its answer.
    pub(super) fn stall_max(&self) -> Duration {
        let limit = self.limits.write_timeout;
        if self.is_draining.load(Relaxed) { limit.min(DRAIN_STALL) } else { limit }
    }

    fn begin(
        self: &Arc<Self>,
        direction: Direction,
        on_abort: Option<Arc<dyn Abort>>,
        request_id: Option<HeaderValue>,
    ) -> Arc<Transfer> {
        let began = Instant::now();
        let state = Arc::new(State {
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
        let key = self.table().entries.insert(entry);
        Arc::new(Transfer { transfers: Arc::clone(self), key, state })
    }

    fn ms(&self, moment: Instant) -> u64 {
        moment.saturating_duration_since(self.started).as_millis() as u64
    }

    /// Uses a part of the budget, for which slower transfers are aborted if need be.
    fn reserve(&self, bytes: usize, is_small: bool) -> Result<()> {
        let budget = self.limits.max_buffered_bytes;
        let max = budget.saturating_add(if is_small { budget / RESERVE_DIVISOR } else { 0 });
        let more = |used: usize| used.checked_add(bytes).filter(|used| *used <= max);
        while self.used.fetch_update(Relaxed, Relaxed, more).is_err() {
            if !self.abort_slowest() {
                return Err(self.full());
            }
        }
        self.metrics.buffered_bytes.add(bytes as i64);
        Ok(())
    }

    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Relaxed);
        self.metrics.buffered_bytes.sub(bytes as i64);
    }

    fn full(&self) -> Error {
        let mb = self.limits.max_buffered_bytes >> 20;
        Error::overloaded(format!(
            "the host holds {mb} MB of requests and answers for its clients, which is the limit; try again, or raise \
             max_buffered_mb"
        ))
    }

    fn abort_excess(&self) {
        while self.used.load(Relaxed) > self.limits.max_buffered_bytes && self.abort_slowest() {}
    }

    /// Aborts the transfer that would take longest to end. False if there is none that is slow.
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
            let left = match idle >= IDLE {
                true => Duration::MAX,
                false => pace.time_for(state.total.load(Relaxed).saturating_sub(moved), moved, now),
            };
            (left >= SOON).then_some((key, (left, idle, state.held.load(Relaxed))))
        });
        let slowest = candidates.max_by_key(|(_, slowness)| *slowness);
        let is_aborted = slowest.is_some_and(|(key, _)| self.abort(&mut table, key, Reason::Limit, now));
        if !is_aborted {
            self.next_search.store(now_ms + SEARCH_EVERY.as_millis() as u64, Relaxed);
        }
        is_aborted
    }

    /// Looks at the pace of all transfers. To be called once a second.
    pub(super) fn sweep(&self) {
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

    /// Tells a transfer to end; what it holds is free from now on, as its task drops it at once.
    fn abort(&self, table: &mut Table, key: usize, reason: Reason, now: Instant) -> bool {
        let state = Arc::clone(&table.entries[key].state);
        if state.aborted.compare_exchange(0, reason as u8 + 1, Relaxed, Relaxed).is_err() {
            return false;
        }
        let held_bytes = state.held.swap(0, Relaxed);
        self.give_back(held_bytes);
        let (direction, reason) = (state.direction.as_str(), reason.as_str());
        self.metrics.transfers_aborted.with_label_values(&[direction, reason]).inc();
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

    fn table(&self) -> MutexGuard<'_, Table> {
        // Every change of the table is whole before anything in it can panic.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request or answer on its way, in the table until it is dropped.
pub(super) struct Transfer {
    transfers: Arc<Transfers>,
    key: usize,
    state: Arc<State>,
}

impl Transfer {
    /// An answer, or several on one call. `on_abort` ends whatever sends it.
    pub fn answer(
        transfers: &Arc<Transfers>,
        on_abort: Arc<dyn Abort>,
        request_id: Option<HeaderValue>,
    ) -> Arc<Self> {
        transfers.begin(Direction::Answer, Some(on_abort), request_id)
    }

    /// Counts bytes of an answer. They are in memory already, so they count whether they fit or not.
    pub fn hold(self: &Arc<Self>, bytes: usize) -> Hold {
        let Transfer { transfers, state, .. } = &**self;
        transfers.used.fetch_add(bytes, Relaxed);
        transfers.metrics.buffered_bytes.add(bytes as i64);
        state.total.fetch_add(bytes as u64, Relaxed);
        if state.held.fetch_add(bytes, Relaxed) == 0 {
            // What came before on the same call says nothing about this answer.
            let now_ms = transfers.ms(Instant::now());
            state.holds_since.store(now_ms, Relaxed);
            state.moved_at.store(now_ms, Relaxed);
        }
        transfers.abort_excess();
        Hold { transfer: Arc::clone(self), bytes }
    }

    /// The client has sent or taken bytes.
    pub fn moved(&self, bytes: usize) {
        self.state.moved.fetch_add(bytes as u64, Relaxed);
        self.state.moved_at.store(self.transfers.ms(Instant::now()), Relaxed);
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.transfers.table().entries.remove(self.key);
    }
}

/// Bytes that count against the budget until this is dropped.
pub(super) struct Hold {
    transfer: Arc<Transfer>,
    bytes: usize,
}

impl Hold {
    /// The client has taken all of them.
    pub fn moved(&self) {
        self.transfer.moved(self.bytes);
    }

    /// Counts more bytes of a request, if there is room for them or can be made.
    fn grow(&mut self, bytes: usize, is_small: bool) -> Result<()> {
        let Transfer { transfers, state, .. } = &*self.transfer;
        transfers.reserve(bytes, is_small)?;
        if let Some(reason) = state.aborted() {
            transfers.give_back(bytes);
            return Err(transfers.error_for(reason));
        }
        state.held.fetch_add(bytes, Relaxed);
        self.transfer.moved(bytes);
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let Transfer { transfers, state, .. } = &*self.transfer;
        // An aborted transfer has given back what it held.
        let less = |held: usize| Some(held.saturating_sub(self.bytes));
        let held = state.held.fetch_update(Relaxed, Relaxed, less).unwrap_or_default();
        transfers.give_back(held.min(self.bytes));
    }
}

#[cfg(test)]
mod tests;
