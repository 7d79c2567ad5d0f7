//! The jobs that may run, in the order in which they are claimed: tenants take turns by their
//! weights, and within a tenant jobs go by priority and age.

use crate::jobs::job::Job;
use crate::predict::Priority;
use crate::tenants::{FairQueue, Lane, TenantTable};
use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroU32;
use std::sync::{Arc, Weak};

/// Waiting for this long outweighs one priority, in microseconds.
const AGING_US: u64 = 60_000_000;

#[derive(Default)]
pub(super) struct JobQueue {
    ready: FairQueue<Arc<str>, Ready>,
    /// The lanes of the tenants that have jobs, ended ones included, and how many.
    tenants: HashMap<Arc<str>, (u32, usize)>,
    /// Has the weights that the lanes have.
    table: Weak<TenantTable>,
}

/// Jobs by their rank and number.
#[derive(Default)]
struct Ready(BTreeSet<(u64, u64)>);

impl Lane for Ready {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The place of a job among those that may run.
#[derive(Clone, Copy)]
pub(super) struct JobPlace {
    lane: u32,
    priority: Priority,
}

impl JobPlace {
    /// Jobs of a lower rank come first. `created` is in microseconds.
    fn rank(self, created: u64) -> u64 {
        created.saturating_add(u64::from(self.priority.number()) * AGING_US)
    }
}

impl JobQueue {
    /// Returns the place of a job. It must be given back with `leave`.
    pub fn enter(&mut self, job: &Job) -> JobPlace {
        let (name, priority) = (&job.spec.tenant, job.spec.priority);
        if let Some((lane, jobs)) = self.tenants.get_mut(name) {
            *jobs += 1;
            return JobPlace { lane: *lane, priority };
        }
        let weight = self.table.upgrade().map_or(NonZeroU32::MIN, |table| table.weight_of(name));
        let lane = self.ready.insert(Arc::clone(name), weight);
        let lane = u32::try_from(lane).expect("invariant: fewer jobs than numbers");
        self.tenants.insert(Arc::clone(name), (lane, 1));
        JobPlace { lane, priority }
    }

    pub fn leave(&mut self, place: JobPlace) {
        let name = Arc::clone(self.ready.key(place.lane as usize));
        let Some((_, jobs)) = self.tenants.get_mut(&name) else { return };
        *jobs -= 1;
        if *jobs == 0 {
            self.tenants.remove(&name);
            self.ready.remove(place.lane as usize);
        }
    }

    pub fn insert(&mut self, place: JobPlace, created: u64, number: u64) {
        let lane = place.lane as usize;
        self.ready.rejoin(lane);
        self.ready.lane_mut(lane).0.insert((place.rank(created), number));
    }

    /// Returns false if the job was not there.
    pub fn remove(&mut self, place: JobPlace, created: u64, number: u64) -> bool {
        self.ready.lane_mut(place.lane as usize).0.remove(&(place.rank(created), number))
    }

    /// Counts a job that is claimed.
    pub fn charge(&mut self, place: JobPlace) {
        self.ready.charge(place.lane as usize, 1);
    }

    /// Gives tenants the weights of a policy.
    pub fn weigh(&mut self, table: &Arc<TenantTable>) {
        if std::ptr::eq(self.table.as_ptr(), Arc::as_ptr(table)) {
            return;
        }
        self.table = Arc::downgrade(table);
        for (name, (lane, _)) in &self.tenants {
            self.ready.set_weight(*lane as usize, table.weight_of(name));
        }
    }

    pub fn is_empty(&self) -> bool {
        self.ready.lanes().next().is_none()
    }

    /// Returns up to `limit` jobs in the order in which they are claimed.
    pub fn first(&self, limit: usize) -> Vec<u64> {
        let mut jobs: HashMap<usize, _> =
            self.ready.lanes().map(|(lane, ready)| (lane, ready.0.iter())).collect();
        let counts = |ready: &Ready| ready.0.len();
        let upcoming = self.ready.upcoming(counts).take(limit);
        upcoming.filter_map(|lane| jobs.get_mut(&lane)?.next()).map(|(_, number)| *number).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::examples::job;

    fn job_of(tenant: &str, number: u64) -> Job {
        let mut job = job(number);
        let spec = Arc::make_mut(&mut job.spec);
        spec.tenant = tenant.into();
        job
    }

    #[test]
    fn a_tenant_without_jobs_saves_up_no_turns() {
        let mut queue = JobQueue::default();
        let first = queue.enter(&job_of("a", 1));
        let places: Vec<JobPlace> = (0..100).map(|number| queue.enter(&job_of("b", number))).collect();
        queue.insert(first, 0, 1);
        queue.charge(first);
        assert!(queue.remove(first, 0, 1));
        for (number, place) in places.iter().enumerate() {
            queue.insert(*place, 0, 1000 + number as u64);
        }
        for (number, place) in places.iter().enumerate().take(50) {
            queue.charge(*place);
            assert!(queue.remove(*place, 0, 1000 + number as u64));
        }
        for number in 0..50 {
            let place = queue.enter(&job_of("a", number));
            queue.insert(place, 0, number);
        }
        let next = queue.first(20);
        let of_a = next.iter().filter(|number| **number < 1000).count();
        assert!((9..=11).contains(&of_a), "{next:?}");
        // A tenant whose jobs are gone is forgotten.
        queue.leave(first);
        places.iter().for_each(|place| queue.leave(*place));
        assert_eq!(queue.tenants.len(), 1);
    }
}
