//! What the workers of a pool share, under its lock: what waits, what runs, who is idle. Decides which of them wakes,
//! and when.

use super::metrics::OVERDUE_AFTER;
use super::queue::{Job, Queue};
use crate::predict::CallContext;
use std::sync::Arc;
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
    has_rescue: bool,
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
            has_rescue: false,
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
        if self.idle.len() > 0 || self.has_rescue {
            return None;
        }
        let threads = self.queue.detach_runtime()?;
        self.has_rescue = true;
        Some(threads)
    }

    /// Work that has begun and no worker has come for, and whether no more is there.
    pub fn take_late(&mut self) -> (Vec<Job>, bool) {
        let late = self.queue.take_detachable(Instant::now() - WAKE_DELAY);
        self.has_rescue = self.queue.can_detach();
        (late, !self.has_rescue)
    }
}

/// What a worker is doing: the calls that have no answer yet, each at its place.
#[derive(Default)]
pub(super) struct WorkerRun {
    pub calls: Vec<Option<Arc<CallContext>>>,
    pub left: usize,
    /// Until when none of them can be late.
    in_time: Option<Instant>,
}

impl WorkerRun {
    pub fn begin(&mut self, jobs: &[Job]) {
        self.calls.clear();
        self.calls.extend(jobs.iter().map(|job| Some(Arc::clone(job.context()))));
        self.left = jobs.len();
        let first = jobs.iter().filter_map(|job| job.context().deadline).min();
        self.in_time = first.map(|deadline| deadline + OVERDUE_AFTER);
    }

    /// Says how many of them had not ended before.
    pub fn end(&mut self, places: &[usize]) -> usize {
        let ended = places.iter().filter(|&&place| self.calls[place].take().is_some()).count();
        self.left -= ended;
        ended
    }

    pub fn is_busy(&self) -> bool {
        self.left > 0
    }

    /// Calls that share a run are late when the last of them is.
    pub fn is_overdue(&self) -> bool {
        let now = Instant::now();
        if self.in_time.is_none_or(|in_time| now <= in_time) {
            return false;
        }
        let latest = self.calls.iter().flatten().map(|context| context.deadline);
        let latest = latest.reduce(|a, b| Some(a?.max(b?))).flatten();
        latest.is_some_and(|deadline| now > deadline + OVERDUE_AFTER)
    }
}

/// The workers of a pool that sleep, and which of them is woken.
///
/// The worker that became idle last is woken first: its memory is warm, and the others sleep on. While enough are on
/// their way, no other is woken: each looks at the queue when it comes, and wakes the next if it leaves work there. On busy
/// cores, where coming takes a while, this spares most of the wake-ups of a burst, and with them most of the cost.
pub(super) struct Idle {
    /// Workers that sleep, in the order in which they became idle.
    asleep: Vec<usize>,
    /// Workers that were woken and have not looked at the queue yet.
    coming: usize,
    coming_max: usize,
}

impl Idle {
    pub fn new(cores: usize) -> Self {
        // On many cores, a burst is not to wait for one after the other.
        Idle { asleep: Vec::new(), coming: 0, coming_max: (cores / 2).max(1) }
    }

    /// Workers that could take work.
    pub fn len(&self) -> usize {
        self.asleep.len() + self.coming
    }

    /// Of these, those that were woken.
    pub fn coming(&self) -> usize {
        self.coming
    }

    /// Which worker to wake for work that waits.
    pub fn next(&mut self) -> Option<usize> {
        if self.coming >= self.coming_max {
            return None;
        }
        let worker = self.asleep.pop()?;
        self.coming += 1;
        Some(worker)
    }

    pub fn sleeps(&mut self, worker: usize) {
        self.asleep.push(worker);
    }

    /// It looks at the queue, woken or by itself.
    pub fn came(&mut self, worker: usize) {
        match self.asleep.iter().position(|asleep| *asleep == worker) {
            Some(place) => drop(self.asleep.remove(place)),
            None => self.coming -= 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_to_sleep_is_woken_first_and_few_at_once() {
        let mut idle = Idle::new(2);
        assert_eq!(idle.next(), None);
        (0..3).for_each(|worker| idle.sleeps(worker));
        assert_eq!((idle.next(), idle.next()), (Some(2), None), "one is on its way");
        assert_eq!(idle.len(), 3);
        idle.came(2);
        assert_eq!((idle.next(), idle.len()), (Some(1), 2));
        idle.came(0);
        assert_eq!(idle.len(), 1, "0 came by itself, 1 is still on its way");
        idle.came(1);
        assert_eq!((idle.next(), idle.len()), (None, 0));
        let mut idle = Idle::new(16);
        (0..16).for_each(|worker| idle.sleeps(worker));
        assert_eq!((0..16).filter(|_| idle.next().is_some()).count(), 8);
    }
}
