//! The jobs that may run, in the order in which they are claimed: tenants take turns by their
//! weights, and within a tenant jobs go by priority and age.

use crate::jobs::job::Job;
use crate::predict::Priority;
use crate::tenants::{FairQueue, Lane};
use slab::Slab;
use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroU32;
use std::sync::Arc;

/// Waiting for this long outweighs one priority, in microseconds.
const AGING_US: u64 = 60_000_000;

#[derive(Default)]
pub(super) struct JobQueue {
    ready: FairQueue<u32, Ready>,
    tenants: Slab<Tenant>,
    numbers: HashMap<Arc<str>, u32>,
}

/// A tenant that has jobs, and how many.
struct Tenant {
    name: Arc<str>,
    jobs: usize,
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
    tenant: u32,
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
        let name = &job.spec.tenant;
        let tenant = match self.numbers.get(name) {
            Some(number) => *number,
            None => {
                let key = self.tenants.insert(Tenant { name: Arc::clone(name), jobs: 0 });
                let number = u32::try_from(key).expect("invariant: fewer jobs than numbers");
                self.numbers.insert(Arc::clone(name), number);
                number
            }
        };
        self.tenants[tenant as usize].jobs += 1;
        JobPlace { tenant, priority: job.spec.priority }
    }

    pub fn leave(&mut self, place: JobPlace) {
        let tenant = &mut self.tenants[place.tenant as usize];
        tenant.jobs -= 1;
        if tenant.jobs == 0 {
            let tenant = self.tenants.remove(place.tenant as usize);
            self.numbers.remove(&tenant.name);
        }
    }

    pub fn insert(&mut self, place: JobPlace, created: u64, number: u64) {
        let lane = self.lane(place);
        self.ready.lane_mut(lane).0.insert((place.rank(created), number));
    }

    /// Returns false if the job was not there.
    pub fn remove(&mut self, place: JobPlace, created: u64, number: u64) -> bool {
        let lane = self.lane(place);
        self.ready.lane_mut(lane).0.remove(&(place.rank(created), number))
    }

    /// Counts a job that is claimed.
    pub fn charge(&mut self, place: JobPlace) {
        let lane = self.lane(place);
        self.ready.charge(lane, 1);
    }

    fn lane(&mut self, place: JobPlace) -> usize {
        let known = self.ready.find(&place.tenant);
        known.unwrap_or_else(|| self.ready.enter(&place.tenant, NonZeroU32::MIN))
    }

    /// Sets the weights of the tenants whose jobs may run.
    pub fn weigh(&mut self, weight: impl Fn(&str) -> NonZeroU32) {
        let waiting: Vec<u32> = self.ready.lanes().map(|(lane, _)| *self.ready.key(lane)).collect();
        for tenant in waiting {
            let weight = weight(&self.tenants[tenant as usize].name);
            self.ready.enter(&tenant, weight);
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
