//! The state that the workers of a pool share, under its lock: the queue, the running calls and the
//! idle workers. Decides which worker is woken, and when.

use super::job::Job;
use super::metrics::OVERDUE_AFTER;
use super::queue::Queue;
use crate::predict::CallContext;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// While every core has a busy worker, the others stay asleep for this long. The busy ones take
/// queued work soon, unless they wait for something, and so few threads share the caches.
pub(super) const WAKE_DELAY: Duration = Duration::from_millis(5);

pub(super) struct State {
    pub queue: Queue,
    /// Indexed by worker.
    pub running: Vec<WorkerRun>,
    pub idle: Idle,
    /// When the idle worker that watches the queue wakes up; `None` if none watches it.
    pub watched: Option<Instant>,
    pub closed: bool,
    cores: usize,
    /// Whether a rescue task runs, which detaches started work that waits too long for a worker.
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

    /// Returns the deadline until which queued work is left to busy workers. `None` unless the busy
    /// workers, and `waking` others, occupy all cores.
    pub fn delayed_until(&self, waking: usize) -> Option<Instant> {
        if self.closed || self.busy() + waking < self.cores {
            return None;
        }
        self.queue.oldest().map(|admitted| admitted + WAKE_DELAY)
    }

    /// Returns the worker to wake for what is in the queue, if one is needed.
    pub fn next_to_wake(&mut self) -> Option<usize> {
        let delayed = self.delayed_until(self.idle.waking());
        let until = match self.queue.when(self.closed) {
            Ok(()) => delayed,
            Err(ready_at) => Some(delayed.into_iter().chain(Some(ready_at?)).max()?),
        };
        // A worker that watches until then makes another one unnecessary.
        let needed = until.is_none_or(|until| self.watched.is_none_or(|watched| watched > until));
        if needed { self.idle.next() } else { None }
    }

    /// Returns how many idle workers could start immediately, each on its own core.
    pub fn idle_workers(&self) -> usize {
        self.idle.len().min(self.cores.saturating_sub(self.busy() + 1))
    }

    /// Marks that a rescue task runs, and returns the runtime on which the caller must spawn it.
    /// `None` if a worker is idle, if the task runs already, or if no work can be detached. The
    /// task is needed because the calls that hold the workers may be those that the waiting work
    /// would stop.
    pub fn start_rescue(&mut self) -> Option<Handle> {
        if self.idle.len() > 0 || self.has_rescue {
            return None;
        }
        let runtime = self.queue.detach_runtime()?;
        self.has_rescue = true;
        Some(runtime)
    }

    /// Takes the started work that waited for `WAKE_DELAY` without a worker. The flag is true if no
    /// more such work is queued, which ends the rescue task.
    pub fn take_late(&mut self) -> (Vec<Job>, bool) {
        let late = Instant::now().checked_sub(WAKE_DELAY);
        let late = late.map(|late| self.queue.take_detachable(late)).unwrap_or_default();
        self.has_rescue = self.queue.can_detach();
        (late, !self.has_rescue)
    }
}

/// What a worker runs: the calls that have no answer yet, each at its index in the batch.
#[derive(Default)]
pub(super) struct WorkerRun {
    pub calls: Vec<Option<Arc<CallContext>>>,
    pub remaining: usize,
    /// Until then no call is overdue; `None` if no call has a deadline.
    in_time_until: Option<Instant>,
}

impl WorkerRun {
    pub fn begin(&mut self, jobs: &[Job]) {
        self.calls.clear();
        self.calls.extend(jobs.iter().map(|job| Some(Arc::clone(job.context()))));
        self.remaining = jobs.len();
        let first = jobs.iter().filter_map(|job| job.context().deadline).min();
        self.in_time_until = first.map(|deadline| deadline + OVERDUE_AFTER);
    }

    /// Ends these calls, and returns how many of them had not ended before.
    pub fn end(&mut self, members: &[usize]) -> usize {
        let ended = members.iter().filter(|&&member| self.calls[member].take().is_some()).count();
        self.remaining -= ended;
        ended
    }

    pub fn is_busy(&self) -> bool {
        self.remaining > 0
    }

    /// Returns true if the worker is overdue. Calls that share a run are overdue when the last of
    /// them is.
    pub fn is_overdue(&self) -> bool {
        let now = Instant::now();
        if self.in_time_until.is_none_or(|in_time_until| now <= in_time_until) {
            return false;
        }
        let latest = self.calls.iter().flatten().map(|context| context.deadline);
        let latest = latest.reduce(|a, b| Some(a?.max(b?))).flatten();
        latest.is_some_and(|deadline| now > deadline + OVERDUE_AFTER)
    }
}

/// The idle workers of a pool. Decides which of them is woken.
///
/// The worker that became idle last is woken first: its memory is warm, and the others stay asleep.
/// While enough workers are waking, no other is woken: each looks at the queue when it runs, and
/// wakes the next if it leaves work there. On busy cores, where waking takes a while, this avoids
/// most of the wake-ups of a burst, and most of their cost.
pub(super) struct Idle {
    /// Sleeping workers, in the order in which they became idle.
    asleep: Vec<usize>,
    /// Workers that were woken and have not looked at the queue yet.
    waking: usize,
    waking_max: usize,
}

impl Idle {
    pub fn new(cores: usize) -> Self {
        // On many cores, a burst must not wait for workers that wake one after another.
        Idle { asleep: Vec::new(), waking: 0, waking_max: (cores / 2).max(1) }
    }

    /// Returns how many workers could take work.
    pub fn len(&self) -> usize {
        self.asleep.len() + self.waking
    }

    /// Returns how many of these were woken.
    pub fn waking(&self) -> usize {
        self.waking
    }

    /// Returns the worker to wake for queued work.
    pub fn next(&mut self) -> Option<usize> {
        if self.waking >= self.waking_max {
            return None;
        }
        let worker = self.asleep.pop()?;
        self.waking += 1;
        Some(worker)
    }

    pub fn sleeps(&mut self, worker: usize) {
        self.asleep.push(worker);
    }

    /// The worker looks at the queue: it was woken, or its wait timed out.
    pub fn woke(&mut self, worker: usize) {
        match self.asleep.iter().position(|asleep| *asleep == worker) {
            Some(index) => drop(self.asleep.remove(index)),
            None => self.waking -= 1,
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
        idle.woke(2);
        assert_eq!((idle.next(), idle.len()), (Some(1), 2));
        idle.woke(0);
        assert_eq!(idle.len(), 1, "0 came by itself, 1 is still on its way");
        idle.woke(1);
        assert_eq!((idle.next(), idle.len()), (None, 0));
        let mut idle = Idle::new(16);
        (0..16).for_each(|worker| idle.sleeps(worker));
        assert_eq!((0..16).filter(|_| idle.next().is_some()).count(), 8);
    }
}
