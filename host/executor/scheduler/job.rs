//! Jobs of a worker pool, and admissions, which take one slot in the queue.

use super::batch::{expected_rows, goes_with};
use super::guest_task::GuestTask;
use crate::executor::batching::Batching;
use crate::executor::call::{Call, Precedence};
use crate::predict::{CallContext, Priority, Sender};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

/// What a worker takes at a time: a call, or a guest task to poll.
pub(super) struct Job {
    pub work: Work,
    pub admitted: Instant,
    /// The rows that it adds to a batch, as far as is known before preprocess.
    pub rows: usize,
    pub precedence: Precedence,
}

pub(super) enum Work {
    Call(Call, Sender),
    Guest(GuestTask),
}

impl Job {
    pub fn call(call: Call, sender: Sender, admitted: Instant) -> Self {
        let (rows, precedence) = (expected_rows(&call), call.precedence);
        Job { work: Work::Call(call, sender), admitted, rows, precedence }
    }

    pub fn guest(task: GuestTask, admitted: Instant) -> Self {
        Job { work: Work::Guest(task), admitted, rows: 1, precedence: Precedence::New }
    }

    /// Returns true for a pipeline request that waits here for its first poll.
    pub fn is_first_poll(&self) -> bool {
        self.precedence != Precedence::New && self.as_guest().is_some_and(GuestTask::is_of_a_pipeline)
    }

    /// Returns the guest task, if it is one.
    pub fn as_guest(&self) -> Option<&GuestTask> {
        match &self.work {
            Work::Guest(task) => Some(task),
            Work::Call(..) => None,
        }
    }

    pub fn with_precedence(self, precedence: Precedence) -> Self {
        Job { precedence, ..self }
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

    pub fn goes_with(&self, other: &Job) -> bool {
        match (&self.work, &other.work) {
            (Work::Call(ours, _), Work::Call(theirs, _)) => goes_with(ours, theirs),
            _ => false,
        }
    }
}

/// What takes one slot in the queue: a job, or the jobs of a batch. One job needs no allocation.
pub(super) struct Admission {
    first: Option<Job>,
    rest: VecDeque<Job>,
    /// The place among the new admissions of its tenant; earlier ones come first.
    pub rank: Instant,
}

impl From<Job> for Admission {
    fn from(job: Job) -> Self {
        let rank = job.context().priority.rank(job.admitted);
        Admission { first: Some(job), rest: VecDeque::new(), rank }
    }
}

impl From<VecDeque<Job>> for Admission {
    fn from(rest: VecDeque<Job>) -> Self {
        let rank = rest.front().map(|job| job.context().priority.rank(job.admitted));
        Admission { first: None, rest, rank: rank.unwrap_or_else(Instant::now) }
    }
}

impl Admission {
    pub fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn precedence(&self) -> Precedence {
        self.front().map_or(Precedence::New, |job| job.precedence)
    }

    pub fn priority(&self) -> Priority {
        self.front().map_or_else(Priority::default, |job| job.context().priority)
    }

    /// Returns the task of the one job, if it is a pipeline request that waits for its first poll.
    pub fn first_poll(&self) -> Option<&GuestTask> {
        self.first.as_ref().filter(|job| job.is_first_poll())?.as_guest()
    }

    pub fn front(&self) -> Option<&Job> {
        self.first.as_ref().or_else(|| self.rest.front())
    }

    pub fn pop_front(&mut self) -> Option<Job> {
        self.first.take().or_else(|| self.rest.pop_front())
    }

    pub fn iter(&self) -> impl Iterator<Item = &Job> {
        self.first.iter().chain(&self.rest)
    }

    pub fn into_jobs(self) -> impl Iterator<Item = Job> {
        self.first.into_iter().chain(self.rest)
    }

    /// Moves the rest of an admission behind what waits now.
    pub fn defer(&mut self) {
        if let Some(job) = self.front() {
            self.rank = job.context().priority.rank(Instant::now());
        }
    }

    pub fn take_if(&mut self, is_taken: impl Fn(&Job) -> bool) -> Vec<Job> {
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
