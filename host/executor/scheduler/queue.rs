//! The queue of a worker pool: admissions, and the jobs in them, in the order in which workers take
//! them.

use super::batch::{expected_rows, goes_with};
use super::guest_task::GuestTask;
use crate::executor::batching::Batching;
use crate::executor::call::{Call, Priority};
use crate::predict::{CallContext, Sender};
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

/// What a worker takes at a time: a call, or a guest task to poll.
pub(super) struct Job {
    pub work: Work,
    pub admitted: Instant,
    /// The rows that it adds to a batch, as far as is known before preprocess.
    rows: usize,
    priority: Priority,
}

pub(super) enum Work {
    Call(Call, Sender),
    Guest(GuestTask),
}

impl Job {
    pub fn call(call: Call, sender: Sender, admitted: Instant) -> Self {
        let (rows, priority) = (expected_rows(&call), call.priority);
        Job { work: Work::Call(call, sender), admitted, rows, priority }
    }

    pub fn guest(task: GuestTask, admitted: Instant) -> Self {
        Job { work: Work::Guest(task), admitted, rows: 1, priority: Priority::New }
    }

    /// Returns true for a pipeline request that waits here for its first poll.
    fn is_first_poll(&self) -> bool {
        self.priority != Priority::New && self.as_guest().is_some_and(GuestTask::is_of_a_pipeline)
    }

    /// Returns the guest task, if it is one.
    fn as_guest(&self) -> Option<&GuestTask> {
        match &self.work {
            Work::Guest(task) => Some(task),
            Work::Call(..) => None,
        }
    }

    pub fn with_priority(self, priority: Priority) -> Self {
        Job { priority, ..self }
    }

    pub fn context(&self) -> &Arc<CallContext> {
        match &self.work {
            Work::Call(call, _) => &call.context,
            Work::Guest(task) => &task.context,
        }
    }

    /// Returns true if it continues a guest task that was parked.
    pub fn was_parked(&self) -> bool {
        self.as_guest().is_some_and(GuestTask::was_parked)
    }

    /// Returns true if its call was cancelled or is past its deadline, and the work has not
    /// started.
    pub fn is_abandoned(&self, now: Instant) -> bool {
        !self.was_parked() && self.context().check_at(now).is_err()
    }

    pub fn batching(&self) -> Option<Batching> {
        match &self.work {
            Work::Call(call, _) => call.batching,
            Work::Guest(_) => None,
        }
    }

    /// Returns until when it waits for others to share its run; `None` if it does not wait.
    pub fn ready_at(&self) -> Option<Instant> {
        let batching = self.batching().filter(|batching| !batching.max_delay.is_zero())?;
        Some(self.admitted + batching.max_delay)
    }

    fn goes_with(&self, other: &Job) -> bool {
        match (&self.work, &other.work) {
            (Work::Call(ours, _), Work::Call(theirs, _)) => goes_with(ours, theirs),
            _ => false,
        }
    }
}

#[derive(Default)]
pub(super) struct Queue {
    /// Those with [`Priority::Started`] come first, the oldest request first.
    admissions: VecDeque<Admission>,
    /// How many of them belong to started work; each of these is one job.
    started: usize,
    /// How many of these are pipeline requests that wait for their first poll.
    first_polls: usize,
    /// Guest tasks that were parked and can continue. They take no slot in the queue.
    requeued: VecDeque<Job>,
}

/// What takes one slot in the queue: a job, or the jobs of a batch. One job needs no allocation.
pub(super) struct Admission {
    first: Option<Job>,
    rest: VecDeque<Job>,
}

impl From<Job> for Admission {
    fn from(job: Job) -> Self {
        Admission { first: Some(job), rest: VecDeque::new() }
    }
}

impl From<VecDeque<Job>> for Admission {
    fn from(rest: VecDeque<Job>) -> Self {
        Admission { first: None, rest }
    }
}

impl Admission {
    pub fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn priority(&self) -> Priority {
        self.front().map_or(Priority::New, |job| job.priority)
    }

    /// Returns the task of the one job, if it is a pipeline request that waits for its first poll.
    fn first_poll(&self) -> Option<&GuestTask> {
        self.first.as_ref().filter(|job| job.is_first_poll())?.as_guest()
    }

    pub fn front(&self) -> Option<&Job> {
        self.first.as_ref().or_else(|| self.rest.front())
    }

    pub fn pop_front(&mut self) -> Option<Job> {
        self.first.take().or_else(|| self.rest.pop_front())
    }

    fn iter(&self) -> impl Iterator<Item = &Job> {
        self.first.iter().chain(&self.rest)
    }

    fn take_if(&mut self, is_taken: impl Fn(&Job) -> bool) -> Vec<Job> {
        // Most admissions do not change.
        if !self.iter().any(&is_taken) {
            return Vec::new();
        }
        let jobs = self.first.take().into_iter().chain(std::mem::take(&mut self.rest));
        let (taken, kept): (Vec<Job>, Vec<Job>) = jobs.partition(is_taken);
        self.rest = kept.into();
        taken
    }
}

impl Queue {
    /// Returns how many new admissions wait. Admissions of started work are not limited, so they do
    /// not count.
    pub fn len(&self) -> usize {
        self.admissions.len() - self.started
    }

    pub fn jobs(&self) -> usize {
        self.admissions.iter().map(Admission::len).sum()
    }

    /// Returns how many jobs belong to started work.
    pub fn started_len(&self) -> usize {
        self.requeued.len() + self.started
    }

    /// Returns when the first job was admitted.
    pub fn oldest(&self) -> Option<Instant> {
        let first = self.admissions.front().and_then(Admission::front);
        first.into_iter().chain(self.requeued.front()).map(|job| job.admitted).min()
    }

    /// Returns true if started work is queued that can continue without a worker.
    pub fn can_detach(&self) -> bool {
        !self.requeued.is_empty() || self.first_polls > 0
    }

    /// Returns the runtime on which the first such work can continue.
    pub fn detach_runtime(&self) -> Option<tokio::runtime::Handle> {
        match self.requeued.front() {
            Some(job) => job.as_guest().map(GuestTask::park_runtime),
            None if self.first_polls == 0 => None,
            None => self.admissions.iter().find_map(Admission::first_poll).map(GuestTask::park_runtime),
        }
    }

    /// Takes all such work that was queued at `then` or before.
    pub fn take_detachable(&mut self, then: Instant) -> Vec<Job> {
        let count = self.requeued.iter().take_while(|job| job.admitted <= then).count();
        let mut late: Vec<Job> = self.requeued.drain(..count).collect();
        let mut index = 0;
        while self.first_polls > 0 && index < self.started {
            let admission = &mut self.admissions[index];
            if admission.first_poll().is_some() && admission.front().is_some_and(|job| job.admitted <= then) {
                late.extend(admission.pop_front());
                self.admissions.remove(index);
                self.started -= 1;
                self.first_polls -= 1;
            } else {
                index += 1;
            }
        }
        late
    }

    /// Adds a guest task that was woken. It is taken before all admissions.
    pub fn push_requeued(&mut self, job: Job) {
        self.requeued.push_back(job);
    }

    pub fn push(&mut self, admission: Admission) {
        if admission.is_empty() {
            return;
        }
        self.started += usize::from(admission.priority() != Priority::New);
        self.first_polls += usize::from(admission.first_poll().is_some());
        let Priority::Started(since) = admission.priority() else {
            return self.admissions.push_back(admission);
        };
        let is_before =
            |other: &Admission| matches!(other.priority(), Priority::Started(other) if other <= since);
        let at = self.admissions.partition_point(is_before);
        self.admissions.insert(at, admission);
    }

    /// Removes the jobs of cancelled calls, which frees their slots. Returns these jobs: dropping
    /// them may access this queue, so they must be dropped without the lock.
    pub fn forget_abandoned(&mut self) -> Vec<Job> {
        let mut abandoned = Vec::new();
        for admission in &mut self.admissions {
            abandoned.extend(admission.take_if(|job| job.context().stopped().is_some()));
        }
        self.admissions.retain(|admission| !admission.is_empty());
        self.started -= abandoned.iter().filter(|job| job.priority != Priority::New).count();
        self.first_polls -= abandoned.iter().filter(|job| job.is_first_poll()).count();
        abandoned
    }

    /// Takes the first job that is ready. If there is none, returns when one will be; `None` if the
    /// queue is empty. The rest of its admission goes to the end of the queue. With `hurry`, no job
    /// waits to fill a batch.
    pub fn next(&mut self, hurry: bool) -> Result<Job, Option<Instant>> {
        if let Some(job) = self.requeued.pop_front() {
            return Ok(job);
        }
        let index = self.first_ready(hurry)?;
        let mut admission = self.admissions.remove(index).expect("invariant: the index is of the queue");
        let job = admission.pop_front().expect("invariant: no admission is empty");
        self.started -= usize::from(job.priority != Priority::New);
        self.first_polls -= usize::from(job.is_first_poll());
        if !admission.is_empty() {
            self.admissions.push_back(admission);
        }
        Ok(job)
    }

    /// Returns whether a job is ready; if not, when one will be; `None` if the queue is empty.
    pub fn when(&self, hurry: bool) -> Result<(), Option<Instant>> {
        if self.requeued.is_empty() { self.first_ready(hurry).map(drop) } else { Ok(()) }
    }

    /// Returns the index of the first ready admission. A job is ready immediately unless it has a
    /// batching delay: then it is ready once that has passed, or once enough jobs wait to fill its
    /// batch.
    fn first_ready(&self, hurry: bool) -> Result<usize, Option<Instant>> {
        let mut soonest: Option<Instant> = None;
        let mut looked_at: SmallVec<[&Job; 4]> = SmallVec::new();
        for (index, admission) in self.admissions.iter().enumerate() {
            let Some(first) = admission.front() else { continue };
            let Some(ready_at) = first.ready_at().filter(|_| !hurry) else { return Ok(index) };
            if ready_at <= Instant::now() {
                return Ok(index);
            }
            // One check for each model.
            if !looked_at.iter().any(|job| job.goes_with(first)) {
                if self.fills(first) {
                    return Ok(index);
                }
                looked_at.push(first);
            }
            soonest = Some(soonest.map_or(ready_at, |soonest| soonest.min(ready_at)));
        }
        Err(soonest)
    }

    /// Returns true if the queued jobs for this job's model would fill a batch.
    fn fills(&self, job: &Job) -> bool {
        job.batching().is_none_or(|batching| self.rows_with(job) >= batching.max_size)
    }

    /// Returns how many queued rows could share a run with this job.
    fn rows_with(&self, job: &Job) -> usize {
        let fits = |other: &&Job| job.goes_with(other);
        let jobs = self.admissions.iter().filter(|admission| admission.front().as_ref().is_some_and(fits));
        jobs.flat_map(Admission::iter).map(|job| job.rows).sum()
    }

    /// Adds to the one job in `jobs` those that can share its run, in their order: first one of
    /// each admission, so that a large one leaves rows for others, then as many as fit.
    /// `idle_workers` other workers could take their share immediately.
    pub fn join(&mut self, jobs: &mut Vec<Job>, batching: Batching, idle_workers: usize) {
        let mut rows = jobs[0].rows;
        let mut rows_max = batching.max_size;
        if idle_workers > 0 && batching.max_delay.is_zero() {
            let all = rows + self.rows_with(&jobs[0]);
            rows_max = rows_max.min(all.div_ceil(idle_workers + 1));
        }
        for one_each in [true, false] {
            let mut index = 0;
            while rows < rows_max && index < self.admissions.len() {
                let admission = &mut self.admissions[index];
                while let Some(job) = admission.front()
                    && jobs[0].goes_with(job)
                {
                    if rows + job.rows > rows_max {
                        return;
                    }
                    rows += job.rows;
                    self.started -= usize::from(job.priority != Priority::New);
                    jobs.extend(admission.pop_front());
                    if one_each || rows == rows_max {
                        break;
                    }
                }
                if admission.is_empty() {
                    self.admissions.remove(index);
                } else {
                    index += 1;
                }
            }
        }
    }
}
