//! Jobs that will soon change, decoded, with the payloads of their rows: those that run, and those
//! that run next.
//!
//! It belongs to the thread that writes, and has what the current transaction has written. After a
//! transaction that has failed it is thrown away with the database.

use super::row::RowPayload;
use crate::jobs::job::{Job, State};
use crate::jobs::store_time::StoreTime;
use std::collections::HashMap;

/// Pending jobs in the cache. Those that were submitted first run first, so later ones are not
/// added when it is full.
const PENDING_MAX: usize = 8192;

/// Jobs with more bytes than this besides their input, result and kept steps are not cached.
const JOB_BYTES_MAX: usize = 8 << 10;

#[derive(Default)]
pub(super) struct JobCache {
    jobs: HashMap<u64, (Job, Option<RowPayload>)>,
    pending: usize,
}

impl JobCache {
    pub fn get(&self, number: u64) -> Option<&Job> {
        self.jobs.get(&number).map(|(job, _)| job)
    }

    /// Returns the payload of a job's row; `None` if the job is not in the cache.
    pub fn payload(&self, number: u64) -> Option<Option<RowPayload>> {
        self.jobs.get(&number).map(|(_, payload)| payload.clone())
    }

    /// Adds a job that was written, or replaces it.
    pub fn put(&mut self, job: &Job, payload: Option<RowPayload>, now: StoreTime) {
        self.remove(job.number);
        let own = job.bytes() - job.input_bytes - job.result_bytes - job.kept_bytes;
        let is_wanted = match job.status.state {
            State::Pending => job.status.run_at <= now && self.pending < PENDING_MAX,
            State::Running => true,
            _ => false,
        };
        if !is_wanted || own > JOB_BYTES_MAX {
            return;
        }
        self.pending += usize::from(job.status.state == State::Pending);
        self.jobs.insert(job.number, (job.clone(), payload));
    }

    /// Adds a pending job that was read and will be claimed now, even if the cache is full.
    pub fn put_next(&mut self, job: Job, payload: Option<RowPayload>) {
        if job.status.state == State::Pending {
            self.remove(job.number);
            self.pending += 1;
            self.jobs.insert(job.number, (job, payload));
        }
    }

    pub fn remove(&mut self, number: u64) {
        if let Some((job, _)) = self.jobs.remove(&number) {
            self.pending -= usize::from(job.status.state == State::Pending);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::examples;
    use crate::jobs::job::Status;

    fn job(number: u64, state: State, run_at: u64) -> Job {
        let mut status = Status::new(StoreTime(run_at), StoreTime(u64::MAX));
        status.state = state;
        Job { status, ..examples::job(number) }
    }

    #[test]
    fn it_has_the_jobs_that_change_next_and_is_bounded() {
        let (mut cache, now) = (JobCache::default(), StoreTime(5));
        for number in 0..=PENDING_MAX as u64 {
            cache.put(&job(number, State::Pending, 0), None, now);
        }
        assert!(cache.get(0).is_some());
        assert!(cache.get(PENDING_MAX as u64).is_none(), "the first ones run first");
        cache.put(&job(0, State::Running, 0), None, now);
        assert_eq!(cache.get(0).unwrap().status.state, State::Running);
        cache.put(&job(1 << 40, State::Pending, 0), None, now);
        assert!(cache.get(1 << 40).is_some(), "a job that runs makes room");
        cache.put(&job(0, State::Succeeded, 0), None, now);
        assert!(cache.get(0).is_none());
        cache.put(&job(1, State::Pending, 6), None, now);
        assert!(cache.get(1).is_none(), "it runs later");
    }
}
