//! The queue of a worker pool: what each tenant has in it, and the order in which workers take it.
//!
//! Tenants take turns by what they are served, in rows over their weights. Within a tenant, started
//! work comes first. Where callers are not told apart, there is one tenant.

use super::guest_task::GuestTask;
use super::job::{Admission, Job};
use super::tenant_queue::{Cursor, NextMember, TenantQueue};
use crate::executor::batching::Batching;
use crate::predict::CallContext;
use crate::tenants::FairQueue;
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

#[derive(Default)]
pub(super) struct Queue {
    tenants: FairQueue<Option<Arc<str>>, TenantQueue>,
    /// Guest tasks that were parked and can continue. They take no slot in the queue.
    requeued: VecDeque<Job>,
}

/// What a full queue does with a new admission.
pub(super) enum Eviction {
    /// It is refused: its tenant has at least its share of the queue.
    Refused(Admission),
    /// It is admitted in the place of this one.
    Of(Admission),
}

impl Queue {
    /// Returns how many new admissions wait. Admissions of started work are not limited, so they do
    /// not count.
    pub fn len(&self) -> usize {
        self.tenants.lanes().map(|(_, tenant)| tenant.len()).sum()
    }

    pub fn jobs(&self) -> usize {
        self.admissions().map(Admission::len).sum()
    }

    fn admissions(&self) -> impl Iterator<Item = &Admission> {
        self.tenants.lanes().flat_map(|(_, tenant)| tenant.admissions())
    }

    /// Returns how many jobs belong to started work.
    pub fn started_len(&self) -> usize {
        let started: usize = self.tenants.lanes().map(|(_, tenant)| tenant.started_len()).sum();
        self.requeued.len() + started
    }

    /// Returns when the first job was admitted.
    pub fn oldest(&self) -> Option<Instant> {
        let firsts = self.tenants.lanes().filter_map(|(_, tenant)| tenant.oldest());
        firsts.chain(self.requeued.front().map(|job| job.admitted)).min()
    }

    /// Returns true if started work is queued that can continue without a worker.
    pub fn can_detach(&self) -> bool {
        !self.requeued.is_empty() || self.tenants.lanes().any(|(_, tenant)| tenant.has_first_polls())
    }

    /// Returns the runtime on which the first such work can continue.
    pub fn detach_runtime(&self) -> Option<tokio::runtime::Handle> {
        match self.requeued.front() {
            Some(job) => job.as_guest().map(GuestTask::park_runtime),
            None => {
                self.tenants.lanes().find_map(|(_, tenant)| tenant.first_poll()).map(GuestTask::park_runtime)
            }
        }
    }

    /// Takes all such work that was queued at `then` or before.
    pub fn take_detachable(&mut self, then: Instant) -> Vec<Job> {
        let count = self.requeued.iter().take_while(|job| job.admitted <= then).count();
        let mut late: Vec<Job> = self.requeued.drain(..count).collect();
        self.tenants.lanes_mut().for_each(|tenant| tenant.take_first_polls(then, &mut late));
        late
    }

    /// Adds a guest task that was woken. It is taken before all admissions.
    pub fn push_requeued(&mut self, job: Job) {
        self.requeued.push_back(job);
    }

    pub fn push(&mut self, admission: Admission) {
        if let Some(index) = self.enter(&admission) {
            self.tenants.lane_mut(index).push(admission);
        }
    }

    /// Returns the tenant of an admission; `None` for an empty one.
    fn enter(&mut self, admission: &Admission) -> Option<usize> {
        admission.front().map(|job| enter(&mut self.tenants, job.context()))
    }

    /// Makes room in a full queue for a new admission: the tenant that has most for its weight
    /// loses what it would be served last, if that is not the admission itself.
    pub fn evict_for(&mut self, admission: Admission) -> Eviction {
        let Some(own) = self.enter(&admission) else { return Eviction::Refused(admission) };
        let last = |tenant: &TenantQueue| tenant.last_new().map(|(_, priority)| priority);
        let most = self.tenants.giving_way(own, admission.priority(), TenantQueue::len, last);
        let evicted = most.and_then(|most| {
            let tenant = self.tenants.lane_mut(most);
            tenant.remove(tenant.last_new()?.0)
        });
        match evicted {
            None => Eviction::Refused(admission),
            Some(evicted) => {
                self.tenants.lane_mut(own).push(admission);
                Eviction::Of(evicted)
            }
        }
    }

    /// Removes the jobs of cancelled calls, which frees their slots. Returns these jobs: dropping
    /// them may access this queue, so they must be dropped without the lock.
    pub fn forget_abandoned(&mut self) -> Vec<Job> {
        let mut abandoned = Vec::new();
        self.tenants.lanes_mut().for_each(|tenant| tenant.take_abandoned(&mut abandoned));
        abandoned
    }

    /// Takes the first job that is ready. If there is none, returns when one will be; `None` if the
    /// queue is empty. The rest of its admission goes to the end of its tenant's queue. With
    /// `hurry`, no job waits to fill a batch.
    pub fn next(&mut self, hurry: bool) -> Result<Job, Option<Instant>> {
        if let Some(job) = self.requeued.pop_front() {
            let tenant = enter(&mut self.tenants, job.context());
            self.tenants.owe(tenant, 1);
            return Ok(job);
        }
        let (tenant, index) = self.first_ready(hurry)?;
        let job = self.tenants.lane_mut(tenant).take(index);
        self.tenants.charge(tenant, job.rows);
        Ok(job)
    }

    /// Accounts for rows that a call has run beside those that it was taken for.
    pub fn charge(&mut self, context: &CallContext, rows: usize) {
        let tenant = enter(&mut self.tenants, context);
        self.tenants.owe(tenant, rows);
    }

    /// Forgets which tenant is ahead: nothing is queued or running.
    pub fn reset(&mut self) {
        self.tenants.reset();
    }

    /// Returns whether a job is ready; if not, when one will be; `None` if the queue is empty.
    pub fn when(&self, hurry: bool) -> Result<(), Option<Instant>> {
        if self.requeued.is_empty() { self.first_ready(hurry).map(drop) } else { Ok(()) }
    }

    /// Returns the first ready admission, by its tenant and its index there. A job is ready
    /// immediately unless it has a batching delay: then it is ready once that has passed, or once
    /// enough jobs wait to fill its batch.
    fn first_ready(&self, hurry: bool) -> Result<(usize, usize), Option<Instant>> {
        let mut soonest: Option<Instant> = None;
        let mut looked_at: SmallVec<[&Job; 4]> = SmallVec::new();
        for tenant in self.tenants.order() {
            for (index, admission) in self.tenants.lane(tenant).admissions().enumerate() {
                let Some(first) = admission.front() else { continue };
                let Some(ready_at) = first.ready_at().filter(|_| !hurry) else { return Ok((tenant, index)) };
                if ready_at <= Instant::now() {
                    return Ok((tenant, index));
                }
                // One check for each model.
                if !looked_at.iter().any(|job| job.goes_with(first)) {
                    if self.fills(first) {
                        return Ok((tenant, index));
                    }
                    looked_at.push(first);
                }
                soonest = Some(soonest.map_or(ready_at, |soonest| soonest.min(ready_at)));
            }
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
        let admissions = self.admissions().filter(|admission| admission.front().as_ref().is_some_and(fits));
        admissions.flat_map(Admission::iter).map(|job| job.rows).sum()
    }

    /// Adds to the one job in `jobs` those that can share its run. Tenants take turns by what they
    /// are served. Of each, first one job of each admission is added, so that a large one leaves
    /// rows for others, then as many as fit. `idle_workers` other workers could take their share
    /// immediately.
    pub fn join(&mut self, jobs: &mut Vec<Job>, batching: Batching, idle_workers: usize) {
        let mut rows = jobs[0].rows;
        let mut rows_max = batching.max_size;
        if idle_workers > 0 && batching.max_delay.is_zero() {
            let all = rows + self.rows_with(&jobs[0]);
            rows_max = rows_max.min(all.div_ceil(idle_workers + 1));
        }
        let mut searched: SmallVec<[(usize, Cursor); 8]> =
            self.tenants.lanes().map(|(tenant, _)| (tenant, Cursor::default())).collect();
        while rows < rows_max {
            let open = searched.iter().filter(|(_, cursor)| !cursor.is_at_end);
            let Some(tenant) = self.tenants.first_of(open.map(|(tenant, _)| *tenant)) else { return };
            let Some((_, cursor)) = searched.iter_mut().find(|(searched, _)| *searched == tenant) else {
                return;
            };
            match self.tenants.lane_mut(tenant).next_member(&jobs[0], rows_max - rows, cursor) {
                NextMember::Job(job) => {
                    rows += job.rows;
                    self.tenants.charge(tenant, job.rows);
                    jobs.push(job);
                }
                NextMember::TooLarge => return,
                NextMember::None => {}
            }
        }
    }
}

fn enter(tenants: &mut FairQueue<Option<Arc<str>>, TenantQueue>, context: &CallContext) -> usize {
    tenants.enter(&context.tenant.key(), context.tenant.weight)
}
