//! What the writer and the readers of a store share.

use super::fault::{Attempted, Fault};
use super::reader::Reader;
use crate::jobs::job::State as JobState;
use crate::jobs::store::{Index, Usage, Watchers};
use crate::jobs::store_time::{StoreClock, StoreTime};
use crate::lock::LockUnpoisoned;
use redb::{Database, ReadableDatabase};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// How long claims last that were held when the store became unavailable, once it is back. Its
/// absence is no reason to think that their hosts are gone.
const LEASE_AFTER_ABSENCE: Duration = Duration::from_secs(30);

/// The writer holds `state` while it changes the store, so what every job asks for several times
/// has locks of its own.
pub(super) struct Shared {
    pub state: Mutex<State>,
    clock: Mutex<StoreClock>,
    /// What the store held after the latest transaction.
    usage: Mutex<Usage>,
    /// When the first job or key expires; `u64::MAX` if none does.
    next_expiry: AtomicU64,
    pub ready: watch::Sender<u64>,
    pub watchers: Watchers,
    /// Set once the first attempt to open the store has ended.
    pub is_tried: watch::Sender<bool>,
}

pub(super) struct State {
    pub index: Index,
    database: Result<Arc<Database>, Fault>,
    /// Records that could not be read.
    damaged: usize,
}

impl Shared {
    pub fn new() -> Self {
        let state = State {
            index: Index::default(),
            database: Err(Fault::unavailable("it is being opened")),
            damaged: 0,
        };
        Shared {
            state: Mutex::new(state),
            clock: Mutex::new(StoreClock::from(StoreTime::default())),
            usage: Mutex::default(),
            next_expiry: AtomicU64::new(u64::MAX),
            ready: watch::Sender::new(0),
            watchers: Watchers::default(),
            is_tried: watch::Sender::new(false),
        }
    }

    pub fn now(&self) -> StoreTime {
        self.clock.lock_unpoisoned().now()
    }

    pub fn set_open(&self, database: &Arc<Database>, mut index: Index, start: StoreTime, damaged: usize) {
        {
            let mut state = self.state.lock_unpoisoned();
            let now = {
                let mut clock = self.clock.lock_unpoisoned();
                // The clock of this process may be ahead of what the store has recorded.
                *clock = StoreClock::from(start.max(clock.now()));
                clock.now()
            };
            let until = now.after(LEASE_AFTER_ABSENCE);
            index.keep_leases(&state.index, until);
            state.index = index;
            state.database = Ok(Arc::clone(database));
            state.damaged += damaged;
        }
        self.update_usage();
        let usage = self.usage();
        let (jobs, webhooks) = (usage.jobs, usage.deliveries);
        let count = |state: JobState| jobs[state as usize];
        let (pending, interrupted) = (count(JobState::Pending), count(JobState::Running));
        let ended = jobs.iter().sum::<usize>() - pending - interrupted;
        tracing::info!(pending, interrupted, ended, webhooks, "job store opened");
        if damaged > 0 {
            tracing::error!(damaged, "records of jobs were damaged: they are set aside in the database");
        }
        self.is_tried.send_replace(true);
        self.watchers.notify_all();
        self.ready.send_modify(|count| *count += 1);
    }

    pub fn set_fault(&self, fault: Fault) {
        {
            let mut state = self.state.lock_unpoisoned();
            if state.database.as_ref().err() != Some(&fault) {
                tracing::error!("job store closed: {}", fault.why());
            }
            state.database = Err(fault);
        }
        self.update_usage();
        self.is_tried.send_replace(true);
    }

    /// The host stops: what follows is refused.
    pub fn close(&self) {
        self.state.lock_unpoisoned().database = Err(Fault::unavailable("the host is stopping"));
        self.update_usage();
        tracing::info!("job store closed");
    }

    pub fn fault(&self) -> Option<Fault> {
        self.state.lock_unpoisoned().database.as_ref().err().cloned()
    }

    pub fn usage(&self) -> Usage {
        self.usage.lock_unpoisoned().clone()
    }

    /// Returns whether a job or a key has expired.
    pub fn has_expired(&self) -> bool {
        self.next_expiry.load(Ordering::Relaxed) <= self.now().0
    }

    /// Notes what the store holds now. Called before a change is acknowledged, so that its caller
    /// finds it counted.
    pub fn update_usage(&self) {
        let usage = {
            let state = self.state.lock_unpoisoned();
            let next_expiry = state.index.next_expiry().map_or(u64::MAX, |at| at.0);
            self.next_expiry.store(next_expiry, Ordering::Relaxed);
            Usage {
                jobs: state.index.counts(),
                bytes: state.index.bytes(),
                deliveries: state.index.outbox().count(),
                is_open: state.database.is_ok(),
                damaged: state.damaged,
            }
        };
        *self.usage.lock_unpoisoned() = usage;
    }

    /// Begins to read what is committed.
    pub fn read(&self) -> Result<Reader, Fault> {
        let database = self.state.lock_unpoisoned().database.clone()?;
        Ok(Reader(database.begin_read().attempted("cannot read")?))
    }

    /// Wakes those who wait for a change of these jobs, or for a job to run.
    pub fn announce(&self, changed: &[Arc<str>]) {
        changed.iter().for_each(|id| self.watchers.notify(id));
        self.ready.send_modify(|count| *count += 1);
    }
}
