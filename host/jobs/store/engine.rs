//! The operations of a store on this machine, over whatever keeps its records.
//!
//! Each takes the index and the records together, under one lock or in one transaction. The rules
//! of [`JobStore`](super::interface::JobStore) are here, once; a store adds how records are kept.

use super::index::Index;
use super::interface::{
    Bounds, Change, Claim, Created, Cursor, Filter, IdempotencyKey, Lease, NewJob, Renewal, Submission,
    Update,
};
use super::select::select_ended;
use crate::error::{Error, Result};
use crate::jobs::job::{Job, State, Status};
use crate::jobs::store_time::StoreTime;
use crate::jobs::webhooks::{
    Delivery, DeliveryClaim, DeliveryOutcome, DeliveryState, DeliveryStatus, Settlement,
};
use crate::predict::StepKey;
use std::sync::Arc;
use std::time::Duration;

/// Keeps the records of jobs. An error means that the store cannot be read or written.
pub(in crate::jobs) trait Records {
    /// An input or a result as it is kept.
    type Payload;

    /// Whether the input of a job is kept that has ended without success, so that it can be
    /// submitted again.
    const KEEPS_INPUTS: bool;

    /// Returns the bytes that count for the limits of the store.
    fn bytes(payload: &Self::Payload) -> usize;

    /// Returns whether a job in this state has its input.
    fn keeps_input(state: State) -> bool {
        !state.is_final() || Self::KEEPS_INPUTS && state != State::Succeeded
    }

    fn number(&self, id: &str) -> Result<Option<u64>>;
    fn job(&self, number: u64) -> Result<Option<Job>>;
    /// Returns the input of a job if that takes no wait.
    fn input_at_hand(&self, number: u64) -> Result<Option<Self::Payload>>;
    fn insert(&mut self, job: &Job, input: &Self::Payload) -> Result<()>;
    /// Returns a job that is about to be claimed.
    fn job_to_claim(&mut self, number: u64) -> Result<Option<Job>> {
        self.job(number)
    }
    /// Records that a job was claimed.
    fn claim(&mut self, job: &Job) -> Result<()> {
        self.replace(job, None)
    }
    /// Replaces a record. Drops the input of a job that does not need it any more.
    fn replace(&mut self, job: &Job, result: Option<&Self::Payload>) -> Result<()>;
    fn remove(&mut self, job: &Job) -> Result<()>;
    /// Replaces what is kept under this key, and returns the bytes of that.
    fn insert_step(&mut self, number: u64, key: &StepKey, outputs: &Self::Payload) -> Result<Option<usize>>;
    fn remove_steps(&mut self, number: u64) -> Result<()>;
    fn key(&self, name: &str) -> Result<Option<StoredKey>>;
    fn insert_key(&mut self, name: &Arc<str>, key: StoredKey) -> Result<()>;
    fn remove_key(&mut self, name: &str) -> Result<()>;
    fn delivery(&self, number: u64) -> Result<Option<Delivery>>;
    /// Adds or replaces a delivery.
    fn put_delivery(&mut self, delivery: &Delivery) -> Result<()>;
    fn remove_delivery(&mut self, number: u64) -> Result<()>;
}

/// Bytes that a key takes besides its texts.
const KEY_OVERHEAD_BYTES: usize = 128;

/// Bytes that kept outputs of a step take besides their own.
const STEP_OVERHEAD_BYTES: usize = 128;

/// An idempotency key, and what it stands for.
#[derive(Clone, Debug)]
pub(in crate::jobs) struct StoredKey {
    pub request: [u8; 32],
    pub jobs: Vec<Arc<str>>,
    pub expires: StoreTime,
}

impl StoredKey {
    /// Returns what a submission with this key has created before; `None` if it has expired.
    pub fn answer(self, key: &IdempotencyKey, now: StoreTime) -> Option<Created> {
        if self.expires <= now {
            return None;
        }
        let is_same = self.request == key.request;
        Some(if is_same { Created::Existing(self.jobs) } else { Created::Conflict })
    }

    /// Returns the bytes that the key takes in a store.
    pub fn bytes(&self, name: &str) -> usize {
        KEY_OVERHEAD_BYTES + name.len() + self.jobs.iter().map(|id| id.len()).sum::<usize>()
    }
}

/// The parts of a store that an operation works on.
pub(in crate::jobs) struct Engine<'a, R> {
    pub index: &'a mut Index,
    pub records: &'a mut R,
    pub now: StoreTime,
}

/// Jobs that were claimed, with their inputs as far as those are at hand.
pub(in crate::jobs) type ClaimedJobs<P> = Vec<(Job, Option<P>)>;

impl<R: Records> Engine<'_, R> {
    /// `inputs` are those of the submission's jobs, as they are kept.
    pub fn create(
        &mut self,
        submission: &Submission,
        inputs: &[R::Payload],
        bounds: Bounds,
    ) -> Result<Created> {
        if let Some(key) = &submission.key
            && let Some(known) = self.records.key(&key.name)?
            && let Some(answer) = known.answer(key, self.now)
        {
            return Ok(answer);
        }
        let ids = || submission.jobs.iter().map(|job| Arc::clone(&job.id)).collect::<Vec<_>>();
        if let Some(first) = submission.jobs.first()
            && self.records.number(&first.id)?.is_some()
        {
            return Ok(Created::Existing(ids()));
        }
        let numbered = submission.jobs.iter().zip(inputs).zip(self.index.next_number()..);
        let jobs: Vec<Job> =
            numbered.map(|((new, input), number)| self.job(new, R::bytes(input), number)).collect();
        self.check_room(&jobs, bounds)?;
        for (job, input) in jobs.iter().zip(inputs) {
            self.records.insert(job, input)?;
            self.index.put(job);
        }
        if let Some(IdempotencyKey { name, request, time }) = &submission.key {
            let key = StoredKey { request: *request, jobs: ids(), expires: self.now.after(*time) };
            self.index.put_key(name, key.expires, key.bytes(name));
            self.records.insert_key(name, key)?;
        }
        Ok(Created::New(jobs))
    }

    fn job(&self, new: &NewJob, input_bytes: usize, number: u64) -> Job {
        let run_at = self.now.after(new.delay);
        let deadline = self.now.after(new.spec.budgets.max_total_runtime);
        Job {
            id: Arc::clone(&new.id),
            number,
            revision: 1,
            fence: 0,
            spec: Arc::clone(&new.spec),
            status: Status::new(run_at, deadline),
            delivery: None,
            input_bytes,
            result_bytes: 0,
            kept_bytes: 0,
        }
    }

    fn check_room(&self, jobs: &[Job], bounds: Bounds) -> Result<()> {
        let bytes: usize = jobs.iter().map(Job::bytes).sum();
        let mb = bounds.bytes >> 20;
        if jobs.len() > bounds.jobs {
            let message = format!("{} jobs at once; the store holds at most {}", jobs.len(), bounds.jobs);
            return Err(Error::too_large(message));
        }
        if bytes > bounds.bytes {
            return Err(Error::too_large(format!("{bytes} bytes of jobs; the store holds at most {mb} MB")));
        }
        let (count, used) = (self.index.count(), self.index.bytes());
        let full = if count + jobs.len() > bounds.jobs {
            format!("{count} of {} jobs", bounds.jobs)
        } else if used + bytes > bounds.bytes {
            format!("{} of {mb} MB", used >> 20)
        } else {
            return Ok(());
        };
        let waiting = match self.index.outbox().count() {
            0 => String::new(),
            count => format!(", {count} webhooks wait for their receivers"),
        };
        Err(Error::overloaded(format!(
            "the job store is full: {full}, {} jobs have ended{waiting}; delete those whose results were fetched, wait \
             until they expire, or raise capacity or store_mb under [jobs]",
            self.index.ended()
        )))
    }

    /// Returns the claimed jobs with their inputs, as far as those are at hand.
    pub fn claim(&mut self, claim: &Claim) -> Result<ClaimedJobs<R::Payload>> {
        self.index.promote(self.now);
        if let Some(tenants) = &claim.tenants {
            self.index.weigh(tenants);
        }
        let candidates: Vec<u64> = match &claim.models {
            None => self.index.ready(claim.limit),
            Some(_) => self.index.ready(usize::MAX),
        };
        let mut claimed = Vec::new();
        for number in candidates {
            if claimed.len() == claim.limit {
                break;
            }
            let job = match &claim.models {
                None => self.records.job_to_claim(number)?,
                Some(_) => self.records.job(number)?,
            };
            let Some(mut job) = job else {
                self.index.remove(number);
                continue;
            };
            if claim.models.as_ref().is_some_and(|serves| !serves(&job.spec.model)) {
                continue;
            }
            job.revision += 1;
            job.fence += 1;
            job.status.begin(&claim.start);
            self.records.claim(&job)?;
            self.index.charge(number);
            self.index.put_claimed(&job, self.now.after(claim.lease));
            claimed.push((job, self.records.input_at_hand(number)?));
        }
        Ok(claimed)
    }

    /// `result` is that of the update, as it is kept.
    pub fn update(
        &mut self,
        update: &Update,
        result: Option<&R::Payload>,
        bounds: Bounds,
    ) -> Result<Option<Job>> {
        let job = self.records.job(update.number)?;
        let is_current = |job: &Job| job.id == update.id && job.revision == update.revision;
        let Some(mut job) = job.filter(is_current) else { return Ok(None) };
        let before = self.index.bytes_of(job.number);
        let was_open = !job.status.state.is_final();
        job.revision += 1;
        job.status = update.status.clone();
        if !R::keeps_input(job.status.state) {
            job.input_bytes = 0;
        }
        let has_steps = job.status.state.is_final() && job.kept_bytes > 0;
        if has_steps {
            job.kept_bytes = 0;
        }
        if let Some(result) = result {
            job.result_bytes = R::bytes(result);
            let used = self.index.bytes();
            if used - before + job.bytes() > bounds.bytes {
                return Err(Error::too_large(format!(
                    "the result of {} bytes does not fit into the job store, where {} of {} MB are in use; delete \
                     ended jobs, or raise store_mb under [jobs]",
                    job.result_bytes,
                    used >> 20,
                    bounds.bytes >> 20
                )));
            }
        }
        if has_steps {
            self.records.remove_steps(job.number)?;
        }
        self.records.replace(&job, result)?;
        self.index.put(&job);
        if was_open
            && job.status.state.is_final()
            && let Some(delivery) = Delivery::of(&job, self.now)
        {
            self.put_delivery(&delivery)?;
        }
        Ok(Some(job))
    }

    /// Makes an update and, if it is done, the claim. Returns the updated job and those that were
    /// claimed.
    pub fn update_and_claim(
        &mut self,
        update: &Update,
        claim: Option<&Claim>,
        result: Option<&R::Payload>,
        bounds: Bounds,
    ) -> Result<Option<(Job, ClaimedJobs<R::Payload>)>> {
        let Some(job) = self.update(update, result, bounds)? else { return Ok(None) };
        let claimed = claim.map(|claim| self.claim(claim)).transpose()?;
        Ok(Some((job, claimed.unwrap_or_default())))
    }

    /// `outputs` are those of the step, as they are kept.
    pub fn keep_step(
        &mut self,
        lease: &Lease,
        key: &StepKey,
        outputs: &R::Payload,
        bounds: Bounds,
    ) -> Result<Change> {
        let job = self.records.job(lease.number)?;
        let is_held =
            |job: &Job| job.id == lease.id && job.fence == lease.fence && job.status.state == State::Running;
        let Some(mut job) = job.filter(is_held) else { return Ok(Change::Stale) };
        let bytes = R::bytes(outputs) + STEP_OVERHEAD_BYTES;
        // The rest is for inputs and results, which matter more.
        if self.index.bytes() + bytes > bounds.bytes / 4 * 3 {
            let (used, mb) = (self.index.bytes() >> 20, bounds.bytes >> 20);
            return Err(Error::too_large(format!(
                "{bytes} bytes do not fit into the three quarters of the job store that steps may fill, where {used} of \
                 {mb} MB are in use; raise store_mb under [jobs]"
            )));
        }
        let before = self.records.insert_step(job.number, key, outputs)?;
        let before = before.map_or(0, |bytes| bytes + STEP_OVERHEAD_BYTES);
        job.kept_bytes = (job.kept_bytes + bytes).saturating_sub(before);
        self.records.replace(&job, None)?;
        self.index.put(&job);
        Ok(Change::Done)
    }

    fn put_delivery(&mut self, delivery: &Delivery) -> Result<()> {
        self.records.put_delivery(delivery)?;
        self.index.put_delivery(delivery);
        Ok(())
    }

    pub fn claim_deliveries(&mut self, claim: &DeliveryClaim) -> Result<Vec<Delivery>> {
        let mut claimed = Vec::new();
        for (number, fence) in self.index.outbox_mut().claim(claim, self.now) {
            match self.records.delivery(number)? {
                Some(delivery) => claimed.push(Delivery { fence, ..delivery }),
                None => self.index.outbox_mut().remove(number),
            }
        }
        Ok(claimed)
    }

    /// Returns false if the claim has lapsed, and another one was made or the delivery is settled.
    pub fn settle_delivery(&mut self, settlement: &Settlement) -> Result<bool> {
        let Settlement { number, fence, attempts, outcome } = settlement;
        if !self.index.outbox().is_claimed(*number, *fence) {
            return Ok(false);
        }
        let Some(mut delivery) = self.records.delivery(*number)? else {
            self.index.outbox_mut().remove(*number);
            return Ok(false);
        };
        let (state, error) = match outcome {
            DeliveryOutcome::Delivered => (DeliveryState::Delivered, None),
            DeliveryOutcome::Retry { error, .. } => (DeliveryState::Pending, Some(error)),
            DeliveryOutcome::Failed { error } => (DeliveryState::Failed, Some(error)),
        };
        let last_error = error.or(delivery.last_error.as_ref()).cloned();
        // The job may have expired, or was deleted.
        if let Some(mut job) = self.records.job(*number)?.filter(|job| job.id == delivery.job) {
            job.revision += 1;
            let status = DeliveryStatus { state, attempts: *attempts, last_error: last_error.clone() };
            job.delivery = Some(Box::new(status));
            self.records.replace(&job, None)?;
            self.index.put(&job);
        }
        if let DeliveryOutcome::Retry { due, .. } = outcome {
            delivery.due = *due;
            delivery.attempts = *attempts;
            delivery.last_error = last_error;
            self.put_delivery(&delivery)?;
        } else {
            self.records.remove_delivery(*number)?;
            self.index.outbox_mut().remove(*number);
        }
        Ok(true)
    }

    pub fn delete(&mut self, id: &str, revision: u64) -> Result<Change> {
        let Some(job) = self.current(id, revision)? else { return Ok(Change::Stale) };
        self.records.remove(&job)?;
        self.index.remove(job.number);
        Ok(Change::Done)
    }

    /// Removes a page of jobs that have ended. Returns their ids, and where the next page begins.
    pub fn purge(&mut self, filter: &Filter) -> Result<(Vec<Arc<str>>, Option<Cursor>)> {
        let selection = select_ended(self.index, filter)?;
        let mut removed = Vec::with_capacity(selection.numbers.len());
        for number in selection.numbers {
            if let Some(job) = self.records.job(number)? {
                self.records.remove(&job)?;
                removed.push(job.id);
            }
            self.index.remove(number);
        }
        Ok((removed, selection.next))
    }

    fn current(&self, id: &str, revision: u64) -> Result<Option<Job>> {
        let Some(number) = self.records.number(id)? else { return Ok(None) };
        Ok(self.records.job(number)?.filter(|job| job.revision == revision))
    }

    /// Returns the ids of the jobs that were removed.
    pub fn expire(&mut self, limit: usize) -> Result<Vec<Arc<str>>> {
        let numbers: Vec<u64> = self.index.expired(self.now).take(limit).collect();
        let mut removed = Vec::new();
        for number in numbers {
            if let Some(job) = self.records.job(number)? {
                self.records.remove(&job)?;
                removed.push(job.id);
            }
            self.index.remove(number);
        }
        for _ in 0..limit {
            let Some(name) = self.index.pop_expired_key(self.now) else { break };
            // The name may have been given to another submission since.
            if self.records.key(&name)?.is_some_and(|key| key.expires <= self.now) {
                self.records.remove_key(&name)?;
            }
        }
        Ok(removed)
    }
}

/// Extends the leases that are still held.
pub(in crate::jobs) fn renew(
    index: &mut Index,
    leases: &[Lease],
    now: StoreTime,
    time: Duration,
) -> Vec<Renewal> {
    let renewed = leases.iter().map(|lease| {
        if index.is_leased(lease.number, lease.fence) {
            index.lease(lease.number, lease.fence, now.after(time));
            return Renewal::Held;
        }
        if index.is_open(lease.number) { Renewal::Lost } else { Renewal::Ended }
    });
    renewed.collect()
}
