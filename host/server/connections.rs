//! The open connections of a listener: how many there may be, and which one is closed for a new
//! one.
//!
//! If all are in use, a new connection replaces the one that has waited for a request longest, if
//! it has waited for a while. Otherwise the new connection becomes one of a few that serve health
//! checks and metrics only, so that many clients cannot make the host look dead.

use super::connection::{Closing, Connection};
use super::transfers::Transfers;
use crate::lock::LockUnpoisoned;
use crate::metrics::Metrics;
use slab::Slab;
use std::cmp::Reverse;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

/// How often the table inspects its connections.
pub(super) const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// A connection that has waited for a request this long may be closed for a new one. This is long
/// enough that a client that sends requests regularly keeps its connection.
const IDLE_MIN: Duration = Duration::from_secs(5);

/// The error text for a connection or request beyond the limit of connections.
pub(super) fn in_use(connections_max: usize) -> String {
    format!("all {connections_max} connections of this host are in use")
}

/// A number of connections that several listeners share.
pub struct Pool {
    limit: usize,
    open: AtomicUsize,
    tables: Mutex<Vec<Weak<Connections>>>,
}

impl Pool {
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Pool { limit, open: AtomicUsize::new(0), tables: Mutex::default() })
    }

    fn take(&self) -> bool {
        let more = |open| (open < self.limit).then_some(open + 1);
        self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn give_back(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// Closes an idle connection of any listener.
    fn close_idle(&self, idle_min: Duration) -> bool {
        let tables = self.tables.lock_unpoisoned();
        tables.iter().filter_map(Weak::upgrade).any(|table| table.close_idle(Use::Everything, idle_min))
    }
}

/// How many connections a listener may have.
#[derive(Clone)]
pub struct Capacity {
    /// The most connections of this listener.
    pub connections: usize,
    /// The connections of all listeners that share it.
    pub pool: Arc<Pool>,
    /// Further connections, for health checks and metrics.
    pub probes: usize,
    /// For the admin listener: an idle connection is closed for a new one however short it has been
    /// idle, and a connection on the spare descriptor serves everything.
    pub for_operators: bool,
}

/// What a connection may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    Everything,
    Probes,
}

struct Entry {
    connection: Arc<Connection>,
    opened: u64,
    used_for: Use,
    /// It counts until it is told to close. Its task may end a moment later.
    counts: bool,
    requests_seen: u32,
    /// When a sweep first saw it wait for a request.
    waits_since: Option<Instant>,
    /// When a sweep first saw that its socket takes no bytes, and the number of `write_blocked`
    /// then.
    blocked: Option<(u32, Instant)>,
}

impl Entry {
    /// Returns how long it has waited for a request, as seen by sweeps.
    fn waited(&self, now: Instant) -> Duration {
        match self.waits_since {
            Some(since) if self.connection.requests() == self.requests_seen => now - since,
            _ => Duration::ZERO,
        }
    }
}

#[derive(Default)]
struct Entries {
    all: Slab<Entry>,
    opened: u64,
    full: usize,
    probes: usize,
}

impl Entries {
    fn count(&mut self, used_for: Use) -> &mut usize {
        match used_for {
            Use::Everything => &mut self.full,
            Use::Probes => &mut self.probes,
        }
    }
}

pub(super) struct Connections {
    capacity: Capacity,
    transfers: Option<Arc<Transfers>>,
    metrics: Arc<Metrics>,
    entries: Mutex<Entries>,
}

/// A connection's entry in the table, which is removed when this is dropped.
pub(super) struct ConnectionSlot {
    table: Arc<Connections>,
    key: usize,
    pub connection: Arc<Connection>,
    pub used_for: Use,
}

impl Connections {
    pub fn new(capacity: Capacity, transfers: Option<Arc<Transfers>>, metrics: &Arc<Metrics>) -> Arc<Self> {
        let (metrics, entries) = (Arc::clone(metrics), Mutex::default());
        let table = Arc::new(Connections { capacity, transfers, metrics, entries });
        let mut tables = table.capacity.pool.tables.lock_unpoisoned();
        tables.push(Arc::downgrade(&table));
        drop(tables);
        table
    }

    /// Returns the most connections that may be open here.
    pub fn limit(&self) -> usize {
        self.capacity.connections.min(self.capacity.pool.limit)
    }

    /// Admits a new connection; `None` if it must be refused. `is_last` says that it uses the spare
    /// descriptor.
    pub fn admit(self: &Arc<Self>, is_last: bool) -> Option<ConnectionSlot> {
        let is_full_use = (!is_last || self.capacity.for_operators) && self.take();
        let used_for = match is_full_use {
            true => Use::Everything,
            false => Use::Probes,
        };
        let probes = || self.entries().probes;
        if !is_full_use && probes() >= self.capacity.probes && !self.close_idle(Use::Probes, Duration::ZERO) {
            return None;
        }
        let mut entries = self.entries();
        *entries.count(used_for) += 1;
        entries.opened += 1;
        let (connection, opened) = (Arc::new(Connection::new(self.transfers.clone())), entries.opened);
        let key = entries.all.insert(Entry {
            connection: Arc::clone(&connection),
            opened,
            used_for,
            counts: true,
            requests_seen: 0,
            waits_since: None,
            blocked: None,
        });
        drop(entries);
        self.metrics.connections.open.inc();
        Some(ConnectionSlot { table: Arc::clone(self), key, connection, used_for })
    }

    /// Takes one connection of the pool, to be used for everything. Closes an idle one if none is
    /// free.
    fn take(&self) -> bool {
        let pool = &self.capacity.pool;
        let idle_min = if self.capacity.for_operators { Duration::ZERO } else { IDLE_MIN };
        let is_full = self.entries().full >= self.capacity.connections;
        let may_displace = self.capacity.for_operators;
        if is_full && !self.close_idle(Use::Everything, idle_min) && !(may_displace && self.displace()) {
            return false;
        }
        pool.take() || (pool.close_idle(idle_min) && pool.take())
    }

    /// Closes some idle connections, to free their descriptors.
    pub fn close_some_idle(&self) {
        const AT_ONCE: usize = 16;
        let _ = (0..AT_ONCE).all(|_| self.capacity.pool.close_idle(IDLE_MIN));
    }

    /// Closes the connection that has waited for a request longest, if it has waited for
    /// `idle_min`.
    fn close_idle(&self, used_for: Use, idle_min: Duration) -> bool {
        let (now, mut entries) = (Instant::now(), self.entries());
        let candidates = entries.all.iter().filter(|(_, entry)| {
            entry.counts
                && entry.used_for == used_for
                && entry.connection.waits_for_request()
                && entry.waited(now) >= idle_min
        });
        // Connections that no sweep has seen yet are ordered by their age.
        let longest = candidates.min_by_key(|(_, entry)| (Reverse(entry.waited(now)), entry.opened));
        let Some(key) = longest.map(|(key, _)| key) else { return false };
        entries.all[key].connection.close(Closing::Idle);
        self.uncount(&mut entries, key);
        drop(entries);
        self.metrics.connections.closed.with_label_values(&[Closing::Idle.as_str()]).inc();
        true
    }

    /// Closes the oldest connection on which no operator is being answered: a client that is slow,
    /// or means to be, must not keep operators out.
    fn displace(&self) -> bool {
        let mut entries = self.entries();
        let candidates = entries.all.iter().filter(|(_, entry)| {
            entry.counts && entry.used_for == Use::Everything && !entry.connection.serves_operator()
        });
        let oldest = candidates.min_by_key(|(_, entry)| entry.opened).map(|(key, _)| key);
        let Some(key) = oldest else { return false };
        self.close_unread(&entries.all[key].connection);
        self.uncount(&mut entries, key);
        true
    }

    fn uncount(&self, entries: &mut Entries, key: usize) {
        let entry = &mut entries.all[key];
        if !std::mem::take(&mut entry.counts) {
            return;
        }
        let used_for = entry.used_for;
        *entries.count(used_for) -= 1;
        if used_for == Use::Everything {
            self.capacity.pool.give_back();
        }
    }

    /// Notes which connections have had no request since the last sweep, and closes those whose
    /// sockets have taken no bytes for `stall_max`.
    pub fn sweep(&self, stall_max: Duration) {
        let now = Instant::now();
        for (_, entry) in &mut self.entries().all {
            let blocked = entry.connection.write_blocked();
            entry.blocked = blocked.map(|number| match entry.blocked {
                Some((seen, since)) if seen == number => (number, since),
                _ => (number, now),
            });
            if entry.blocked.is_some_and(|(_, since)| now.duration_since(since) >= stall_max) {
                self.close_unread(&entry.connection);
            }
            let requests = entry.connection.requests();
            let waits = entry.connection.waits_for_request() && requests == entry.requests_seen;
            entry.requests_seen = requests;
            entry.waits_since = if waits { entry.waits_since.or(Some(now)) } else { None };
        }
    }

    fn close_unread(&self, connection: &Connection) {
        if connection.close(Closing::Unread) {
            self.metrics.connections.closed.with_label_values(&[Closing::Unread.as_str()]).inc();
        }
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock_unpoisoned()
    }
}

impl ConnectionSlot {
    /// Returns the most connections that may be open at the same time as this one.
    pub fn limit(&self) -> usize {
        self.table.limit()
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut entries = self.table.entries();
        self.table.uncount(&mut entries, self.key);
        entries.all.remove(self.key);
        drop(entries);
        self.table.metrics.connections.open.dec();
    }
}
