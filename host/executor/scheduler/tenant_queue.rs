//! What one tenant has in the queue of a worker pool.

use super::guest_task::GuestTask;
use super::job::{Admission, Job};
use crate::executor::call::Precedence;
use crate::predict::Priority;
use crate::tenants::Lane;
use std::collections::VecDeque;
use std::time::Instant;

/// The admissions of a tenant: those with [`Precedence::Started`], the oldest request first, and
/// then the others by their rank.
#[derive(Default)]
pub(super) struct TenantQueue {
    admissions: VecDeque<Admission>,
    /// How many of them belong to started work; each of these is one job.
    started: usize,
    /// How many of these are pipeline requests that wait for their first poll.
    first_polls: usize,
}

impl Lane for TenantQueue {
    fn is_empty(&self) -> bool {
        self.admissions.is_empty()
    }
}

/// The next job of a tenant for a shared run.
pub(super) enum NextMember {
    Job(Job),
    /// It has too many rows.
    TooLarge,
    None,
}

/// How far a tenant's admissions were searched for members of a shared run.
#[derive(Clone, Copy, Default)]
pub(super) struct Cursor {
    index: usize,
    /// After one job of each admission, all that fit.
    is_second_pass: bool,
    pub is_at_end: bool,
}

impl TenantQueue {
    pub fn admissions(&self) -> impl Iterator<Item = &Admission> {
        self.admissions.iter()
    }

    /// Returns how many new admissions wait.
    pub fn len(&self) -> usize {
        self.admissions.len() - self.started
    }

    pub fn started_len(&self) -> usize {
        self.started
    }

    pub fn has_first_polls(&self) -> bool {
        self.first_polls > 0
    }

    /// Returns the first pipeline request that waits for its first poll.
    pub fn first_poll(&self) -> Option<&GuestTask> {
        if self.first_polls == 0 {
            return None;
        }
        self.admissions.iter().find_map(Admission::first_poll)
    }

    /// Returns when the first job was admitted.
    pub fn oldest(&self) -> Option<Instant> {
        Some(self.admissions.front()?.front()?.admitted)
    }

    pub fn push(&mut self, admission: Admission) {
        self.started += usize::from(admission.precedence() != Precedence::New);
        self.first_polls += usize::from(admission.first_poll().is_some());
        let Precedence::Started(since) = admission.precedence() else {
            // Nearly always the last place.
            let is_behind = |other: &&Admission| {
                !matches!(other.precedence(), Precedence::Started(_)) && other.rank > admission.rank
            };
            let behind = self.admissions.iter().rev().take_while(is_behind).count();
            return self.admissions.insert(self.admissions.len() - behind, admission);
        };
        let is_before =
            |other: &Admission| matches!(other.precedence(), Precedence::Started(other) if other <= since);
        let at = self.admissions.partition_point(is_before);
        self.admissions.insert(at, admission);
    }

    /// Takes the first job of an admission. The rest goes behind what waits now.
    pub fn take(&mut self, index: usize) -> Job {
        let mut admission = self.admissions.remove(index).expect("invariant: the index is of the queue");
        let job = admission.pop_front().expect("invariant: no admission is empty");
        self.started -= usize::from(job.precedence != Precedence::New);
        self.first_polls -= usize::from(job.is_first_poll());
        if !admission.is_empty() {
            admission.defer();
            self.push(admission);
        }
        job
    }

    /// Takes the pipeline requests that wait for their first poll and were queued at `then` or
    /// before.
    pub fn take_first_polls(&mut self, then: Instant, taken: &mut Vec<Job>) {
        let mut index = 0;
        while self.first_polls > 0 && index < self.admissions.len() {
            let admission = &mut self.admissions[index];
            if admission.first_poll().is_some() && admission.front().is_some_and(|job| job.admitted <= then) {
                taken.extend(admission.pop_front());
                self.admissions.remove(index);
                self.started -= 1;
                self.first_polls -= 1;
            } else {
                index += 1;
            }
        }
    }

    /// Removes the jobs of cancelled calls, which frees their slots.
    pub fn take_abandoned(&mut self, abandoned: &mut Vec<Job>) {
        let before = abandoned.len();
        for admission in &mut self.admissions {
            abandoned.extend(admission.take_if(|job| job.context().stopped().is_some()));
        }
        if abandoned.len() == before {
            return;
        }
        self.admissions.retain(|admission| !admission.is_empty());
        let taken = &abandoned[before..];
        self.started -= taken.iter().filter(|job| job.precedence != Precedence::New).count();
        self.first_polls -= taken.iter().filter(|job| job.is_first_poll()).count();
    }

    /// Returns the last new admission, and its priority. Work that continues a request which has
    /// begun does not count.
    pub fn last_new(&self) -> Option<(usize, Priority)> {
        let mut admissions = self.admissions.iter().enumerate().rev();
        let is_new = |admission: &Admission| {
            let is_begun = admission.front().is_some_and(|job| job.context().continues);
            admission.precedence() == Precedence::New && !is_begun
        };
        let (index, last) = admissions.find(|(_, admission)| is_new(admission))?;
        Some((index, last.priority()))
    }

    pub fn remove(&mut self, index: usize) -> Option<Admission> {
        self.admissions.remove(index)
    }

    /// Takes the next job that can share a run with `first` and has at most this many rows.
    pub fn next_member(&mut self, first: &Job, rows_max: usize, cursor: &mut Cursor) -> NextMember {
        loop {
            let Some(admission) = self.admissions.get_mut(cursor.index) else {
                if cursor.is_second_pass {
                    cursor.is_at_end = true;
                    return NextMember::None;
                }
                *cursor = Cursor { is_second_pass: true, ..Cursor::default() };
                continue;
            };
            let Some(job) = admission.front().filter(|job| first.goes_with(job)) else {
                cursor.index += 1;
                continue;
            };
            if job.rows > rows_max {
                return NextMember::TooLarge;
            }
            let Some(job) = admission.pop_front() else { unreachable!("no admission is empty") };
            self.started -= usize::from(job.precedence != Precedence::New);
            if admission.is_empty() {
                self.admissions.remove(cursor.index);
            } else if !cursor.is_second_pass {
                cursor.index += 1;
            }
            return NextMember::Job(job);
        }
    }
}
