//! What the workers of a pool share, under its lock: what waits, what runs, who is idle. Decides which of them wakes,
//! and when.

use super::idle::Idle;
use super::queue::{Job, Queue};
use super::worker_run::WorkerRun;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// While every core has a busy worker, others sleep on for this long: the busy ones come soon, if they do not wait for
/// something, and so few share the caches.
pub(super) const WAKE_DELAY: Duration = Duration::from_millis(5);

pub(super) struct State {
    pub queue: Queue,
    /// By worker.
    pub running: Vec<WorkerRun>,
    pub idle: Idle,
    /// Until when the idle worker sleeps that watches the time of what waits.
    pub watched: Option<Instant>,
    pub closed: bool,
    cores: usize,
    /// Somebody sees to it that work which has begun does not wait long.
    sends_home: bool,
}

impl State {
    pub fn new(workers: usize, cores: usize) -> Self {
        State {
            queue: Queue::default(),
            running: (0..workers).map(|_| WorkerRun::default()).collect(),
            idle: Idle::new(cores),
            watched: None,
            closed: false,
            cores,
            sends_home: false,
        }
    }

    pub fn busy(&self) -> usize {
        self.running.iter().filter(|running| running.is_busy()).count()
    }

    /// Until when what waits is for workers that are busy already, if so many are or `coming` that all cores are.
    pub fn delayed_until(&self, coming: usize) -> Option<Instant> {
        if self.closed || self.busy() + coming < self.cores {
            return None;
        }
        self.queue.oldest().map(|admitted| admitted + WAKE_DELAY)
    }

    /// Which worker to wake for what is in the queue.
    pub fn next_to_wake(&mut self) -> Option<usize> {
        let held_back = self.delayed_until(self.idle.coming());
        let until = match self.queue.when(self.closed) {
            Ok(()) => held_back,
            Err(company) => Some(held_back.into_iter().chain(Some(company?)).max()?),
        };
        // Somebody watches the time of what waits for one.
        let needed = until.is_none_or(|until| self.watched.is_none_or(|watched| watched > until));
        if needed { self.idle.next() } else { None }
    }

    /// Idle workers that could begin at once, each on a core of its own.
    pub fn helpers(&self) -> usize {
        self.idle.len().min(self.cores.saturating_sub(self.busy() + 1))
    }

    /// Where somebody is to see to it, from now on, that work which has begun does not wait long for a worker: when no
    /// worker is idle. What holds them may well be what that work would stop.
    pub fn start_rescue(&mut self) -> Option<Handle> {
        if self.idle.len() > 0 || self.sends_home {
            return None;
        }
        let threads = self.queue.detach_runtime()?;
        self.sends_home = true;
        Some(threads)
    }

    /// Work that has begun and no worker has come for, and whether no more is there.
    pub fn take_late(&mut self) -> (Vec<Job>, bool) {
        let late = self.queue.take_detachable(Instant::now() - WAKE_DELAY);
        self.sends_home = self.queue.can_detach();
        (late, !self.sends_home)
    }
}
