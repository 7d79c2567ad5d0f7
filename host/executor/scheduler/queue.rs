//! What waits for the workers of a pool, in order: admissions, and the jobs in them.

use super::batch::{expected_rows, goes_with};
use super::guest_task::GuestTask;
use crate::executor::batching::Batching;
use crate::executor::call::{Call, Priority};
use crate::predict::{CallContext, Sender};
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

/// What a worker does in one turn.
pub(super) struct Job {
    pub work: Work,
    pub admitted: Instant,
    /// Rows that it adds to a batch, as far as is known before preprocess.
    rows: usize,
    priority: Priority,
}

pub(super) enum Work {
    Call(Call, Sender),
    Guest(GuestTask),
}

impl Job {
    pub fn call(call: Call, sender: Sender, admitted: Instant) -> Self {
        let (rows, order) = (expected_rows(&call), call.priority);
        Job { work: Work::Call(call, sender), admitted, rows, priority: order }
    }

    pub fn guest(task: GuestTask, admitted: Instant) -> Self {
        Job { work: Work::Guest(task), admitted, rows: 1, priority: Priority::New }
    }

    /// Whether it is a request of a pipeline that is to begin here.
    fn is_first_poll(&self) -> bool {
        self.priority != Priority::New && self.as_guest().is_some_and(GuestTask::is_of_a_pipeline)
    }

    /// The work, if it is lent.
    fn as_guest(&self) -> Option<&GuestTask> {
        match &self.work {
            Work::Guest(task) => Some(task),
            Work::Call(..) => None,
        }
    }

    pub fn with_priority(self, order: Priority) -> Self {
        Job { priority: order, ..self }
    }

    pub fn context(&self) -> &Arc<CallContext> {
        match &self.work {
            Work::Call(call, _) => &call.context,
            Work::Guest(task) => &task.context,
        }
    }

    /// Whether it goes on with what has begun.
    pub fn was_parked(&self) -> bool {
        self.as_guest().is_some_and(GuestTask::was_parked)
    }

    /// Whether nobody waits for it any more, and it has not begun.
    pub fn is_abandoned(&self, now: Instant) -> bool {
        !self.was_parked() && self.context().check_at(now).is_err()
    }

    pub fn batching(&self) -> Option<Batching> {
        match &self.work {
            Work::Call(call, _) => call.batching,
            Work::Guest(_) => None,
        }
    }

    /// Until when it waits for others to share its run, if it does.
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
    /// Those of work that has begun come first, the oldest before.
    admissions: VecDeque<Admission>,
    /// Those among them of work that has begun; each is one job.
    started: usize,
    /// Those among these that are requests of pipelines and wait for the worker to begin on.
    first_polls: usize,
    /// What has waited and is to go on. It holds no place here.
    requeued: VecDeque<Job>,
}

/// What takes one place in the queue: a job, or the jobs of a batch. One allocates nothing.
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

    /// The one job, if it is a request of a pipeline that is to begin here.
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
        // Most admissions are as they are to stay.
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
    /// New admissions that wait: those of work that has begun have no bound.
    pub fn len(&self) -> usize {
        self.admissions.len() - self.started
    }

    pub fn jobs(&self) -> usize {
        self.admissions.iter().map(Admission::len).sum()
    }

    /// All jobs of work that has begun.
    pub fn started_len(&self) -> usize {
        self.requeued.len() + self.started
    }

    /// When the first of all came.
    pub fn oldest(&self) -> Option<Instant> {
        let first = self.admissions.front().and_then(Admission::front);
        first.into_iter().chain(self.requeued.front()).map(|job| job.admitted).min()
    }

    /// Whether there is work that has begun and can go on without a worker.
    pub fn can_detach(&self) -> bool {
        !self.requeued.is_empty() || self.first_polls > 0
    }

    /// Where the first of that work can go on without a worker.
    pub fn detach_runtime(&self) -> Option<tokio::runtime::Handle> {
        match self.requeued.front() {
            Some(job) => job.as_guest().map(GuestTask::park_runtime),
            None if self.first_polls == 0 => None,
            None => self.admissions.iter().find_map(Admission::first_poll).map(GuestTask::park_runtime),
        }
    }

    /// Takes all of that work that came before then.
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

    /// It is taken before what has not begun.
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

    /// Work that nobody waits for any more gives its place free. Returns it: what it holds may look at this queue as it is
    /// dropped, so that must be done without the lock.
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

    /// Takes the first job whose time has come. If there is none, says when there will be, if anything waits.
    /// What is left of its admission goes to the end of the queue.
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

    /// Whether a job is ready, and if not, when one will be, if anything waits.
    pub fn when(&self, hurry: bool) -> Result<(), Option<Instant>> {
        if self.requeued.is_empty() { self.first_ready(hurry).map(drop) } else { Ok(()) }
    }

    /// A job is ready at once, but with a delay when it is that old or enough wait to fill its batch.
    fn first_ready(&self, hurry: bool) -> Result<usize, Option<Instant>> {
        let mut soonest: Option<Instant> = None;
        let mut looked_at: SmallVec<[&Job; 4]> = SmallVec::new();
        for (index, admission) in self.admissions.iter().enumerate() {
            let Some(first) = admission.front() else { continue };
            let Some(ready_at) = first.ready_at().filter(|_| !hurry) else { return Ok(index) };
            if ready_at <= Instant::now() {
                return Ok(index);
            }
            // Once for each model.
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

    /// Whether those who wait for the job's model would fill a batch.
    fn fills(&self, job: &Job) -> bool {
        job.batching().is_none_or(|batching| self.rows_with(job) >= batching.max_size)
    }

    /// Rows that wait and could share a run with this job.
    fn rows_with(&self, job: &Job) -> usize {
        let fits = |other: &&Job| job.goes_with(other);
        let jobs = self.admissions.iter().filter(|admission| admission.front().as_ref().is_some_and(fits));
        jobs.flat_map(Admission::iter).map(|job| job.rows).sum()
    }

    /// Adds to the one job in `jobs` those that can share its run, in their order: first one of each
    /// admission, so that a large one leaves room for others, then what has room. `helpers` are other workers
    /// that could take their share at once.
    pub fn join(&mut self, jobs: &mut Vec<Job>, batching: Batching, helpers: usize) {
        let mut rows = jobs[0].rows;
        let mut rows_max = batching.max_size;
        if helpers > 0 && batching.max_delay.is_zero() {
            let all = rows + self.rows_with(&jobs[0]);
            rows_max = rows_max.min(all.div_ceil(helpers + 1));
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
