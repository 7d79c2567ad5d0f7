//! What a store must find quickly: the next job to run, jobs by state and model, and whatever is
//! due at a time. Kept in memory by every store on this machine; derived from the records of jobs.

use super::job_queue::{JobPlace, JobQueue};
use super::outbox::Outbox;
use crate::jobs::job::{Job, State, Status};
use crate::jobs::store_time::StoreTime;
use crate::jobs::webhooks::Delivery;
use crate::policy::plan::ModelName;
use crate::tenants::TenantTable;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, btree_set};
use std::sync::Arc;
use std::time::SystemTime;

#[derive(Default)]
pub(in crate::jobs) struct Index {
    entries: BTreeMap<u64, Entry>,
    by_model: BTreeMap<(u32, State), BTreeSet<u64>>,
    /// Jobs in the order of `State::ALL`.
    counts: [usize; State::ALL.len()],
    models: Models,
    /// Pending jobs that may run.
    ready: JobQueue,
    /// Pending jobs that may run later.
    waiting: BTreeSet<(StoreTime, u64)>,
    /// The deadlines of pending jobs. Those of running jobs are kept by their tasks.
    deadlines: BTreeSet<(StoreTime, u64)>,
    leases: HashMap<u64, HeldLease>,
    lapses: BTreeSet<(StoreTime, u64)>,
    expiry: BTreeSet<(StoreTime, u64)>,
    /// Idempotency keys by their expiry, with the bytes that they take.
    keys: BTreeMap<(StoreTime, Arc<str>), usize>,
    outbox: Outbox,
    bytes: usize,
    last: u64,
}

/// A job, as far as the index needs it to find its other entries again. There may be a million of
/// them, so two fields have a meaning for each state.
struct Entry {
    state: State,
    model: u32,
    place: JobPlace,
    bytes: usize,
    /// When the job was created, by the wall clock.
    created: u64,
    /// When a pending job may run, or when a job that has ended expires.
    due: StoreTime,
    /// The deadline of a pending job in milliseconds of the store, or when a job has ended in
    /// microseconds of the wall clock.
    end: u64,
}

impl Entry {
    fn new(job: &Job, model: u32, place: JobPlace) -> Self {
        let Status { state, ended_at, run_at, deadline, expires, .. } = &job.status;
        let (due, end) = match state {
            State::Pending => (*run_at, deadline.0),
            State::Running => (StoreTime::default(), 0),
            _ => (expires.unwrap_or_default(), ended_at.map_or(u64::MAX, micros)),
        };
        let created = micros(job.spec.created_at);
        Entry { state: *state, model, place, bytes: job.bytes(), created, due, end }
    }

    fn times(&self) -> JobTimes {
        let ended = if self.state.is_final() { self.end } else { u64::MAX };
        JobTimes { created: self.created, ended }
    }
}

/// Times of a job by the wall clock, in microseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct JobTimes {
    pub created: u64,
    /// The latest time there is if the job has not ended.
    pub ended: u64,
}

#[derive(Clone, Copy)]
struct HeldLease {
    fence: u64,
    until: StoreTime,
}

impl Index {
    /// Keeps new jobs from getting this number or a lower one.
    pub fn reserve(&mut self, number: u64) {
        self.last = self.last.max(number);
    }

    /// Returns the number of the next new job.
    pub fn next_number(&self) -> u64 {
        self.last + 1
    }

    /// Adds a job, or replaces what is known about it. A running job keeps its lease, or has one
    /// that has lapsed already.
    pub fn put(&mut self, job: &Job) {
        let lease = self.leases.get(&job.number).filter(|lease| lease.fence == job.fence);
        self.put_claimed(job, lease.map_or(StoreTime(0), |lease| lease.until));
    }

    /// Replaces what is known about a job that was claimed; its lease lasts until `until`.
    pub fn put_claimed(&mut self, job: &Job, until: StoreTime) {
        // Entered before it leaves, so that its tenant is not forgotten in between.
        let place = self.ready.enter(job);
        self.remove(job.number);
        self.last = self.last.max(job.number);
        let (number, state) = (job.number, job.status.state);
        let entry = Entry::new(job, self.models.number(&job.spec.model), place);
        self.counts[state as usize] += 1;
        self.by_model.entry((entry.model, state)).or_default().insert(number);
        match state {
            State::Pending => {
                self.waiting.insert((entry.due, number));
                self.deadlines.insert((StoreTime(entry.end), number));
            }
            State::Running => {
                self.lease(number, job.fence, until);
            }
            _ => {
                self.expiry.insert((entry.due, number));
            }
        }
        self.bytes += entry.bytes;
        self.entries.insert(number, entry);
    }

    pub fn remove(&mut self, number: u64) {
        let Some(entry) = self.entries.remove(&number) else { return };
        self.counts[entry.state as usize] -= 1;
        if let Some(jobs) = self.by_model.get_mut(&(entry.model, entry.state)) {
            jobs.remove(&number);
            if jobs.is_empty() {
                self.by_model.remove(&(entry.model, entry.state));
            }
        }
        match entry.state {
            State::Pending => {
                if !self.ready.remove(entry.place, entry.created, number) {
                    self.waiting.remove(&(entry.due, number));
                }
                self.deadlines.remove(&(StoreTime(entry.end), number));
            }
            State::Running => {
                if let Some(lease) = self.leases.remove(&number) {
                    self.lapses.remove(&(lease.until, number));
                }
            }
            _ => {
                self.expiry.remove(&(entry.due, number));
            }
        }
        self.ready.leave(entry.place);
        self.bytes -= entry.bytes;
    }

    pub fn lease(&mut self, number: u64, fence: u64, until: StoreTime) {
        if let Some(lease) = self.leases.insert(number, HeldLease { fence, until }) {
            self.lapses.remove(&(lease.until, number));
        }
        self.lapses.insert((until, number));
    }

    /// Returns whether the job runs under this claim.
    pub fn is_leased(&self, number: u64, fence: u64) -> bool {
        self.leases.get(&number).is_some_and(|lease| lease.fence == fence)
    }

    /// Takes the leases and claims of an earlier index, for a store that was away for a while.
    /// Leases last until `until`.
    pub fn keep_leases(&mut self, earlier: &Index, until: StoreTime) {
        for (number, lease) in &earlier.leases {
            if self.is_leased(*number, lease.fence) && lease.until > StoreTime(0) {
                self.lease(*number, lease.fence, until);
            }
        }
        self.outbox.keep_claims(&earlier.outbox);
    }

    /// Adds a delivery, or replaces what is known about it. Its job may be gone, and its number is
    /// not used again.
    pub fn put_delivery(&mut self, delivery: &Delivery) {
        self.last = self.last.max(delivery.number);
        self.outbox.put(delivery);
    }

    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    pub fn outbox_mut(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    /// Moves the jobs whose time has come to those that may run. Returns true if there are any.
    pub fn promote(&mut self, now: StoreTime) -> bool {
        let mut promoted = false;
        while let Some((_, number)) = self.waiting.first().filter(|(at, _)| *at <= now).copied() {
            self.waiting.pop_first();
            if let Some(entry) = self.entries.get(&number) {
                self.ready.insert(entry.place, entry.created, number);
            }
            promoted = true;
        }
        promoted
    }

    /// Returns up to `limit` jobs that may run, in the order in which they are claimed.
    pub fn ready(&self, limit: usize) -> Vec<u64> {
        self.ready.first(limit)
    }

    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Sets the weights of tenants for the jobs that are claimed next.
    pub fn weigh(&mut self, table: &Arc<TenantTable>) {
        self.ready.weigh(table);
    }

    /// Counts a job that is claimed as a turn of its tenant.
    pub fn charge(&mut self, number: u64) {
        if let Some(entry) = self.entries.get(&number) {
            self.ready.charge(entry.place);
        }
    }

    pub fn overdue(&self, now: StoreTime) -> impl Iterator<Item = u64> {
        due(&self.deadlines, now)
    }

    pub fn abandoned(&self, now: StoreTime) -> impl Iterator<Item = u64> {
        due(&self.lapses, now)
    }

    pub fn expired(&self, now: StoreTime) -> impl Iterator<Item = u64> {
        due(&self.expiry, now)
    }

    /// Adds an idempotency key, which takes these bytes of the store.
    pub fn put_key(&mut self, name: &Arc<str>, expires: StoreTime, bytes: usize) {
        let replaced = self.keys.insert((expires, Arc::clone(name)), bytes).unwrap_or_default();
        self.bytes = self.bytes - replaced + bytes;
    }

    /// Removes and returns a key that has expired.
    pub fn pop_expired_key(&mut self, now: StoreTime) -> Option<Arc<str>> {
        self.keys.first_key_value().filter(|((at, _), _)| *at <= now)?;
        let ((_, name), bytes) = self.keys.pop_first()?;
        self.bytes -= bytes;
        Some(name)
    }

    /// Returns when the first job or key expires.
    pub fn next_expiry(&self) -> Option<StoreTime> {
        let key = self.keys.first_key_value().map(|((at, _), _)| *at);
        let job = self.expiry.first().map(|(at, _)| *at);
        key.into_iter().chain(job).min()
    }

    /// Returns whether the job is known and has not ended.
    pub fn is_open(&self, number: u64) -> bool {
        self.entries.get(&number).is_some_and(|entry| !entry.state.is_final())
    }

    /// Returns the time of the next thing that happens by itself.
    pub fn next_event(&self) -> Option<StoreTime> {
        let sets = [&self.waiting, &self.deadlines, &self.lapses, &self.expiry];
        let first = sets.into_iter().filter_map(|set| set.first()).map(|(at, _)| *at);
        first.chain(self.keys.first_key_value().map(|((at, _), _)| *at)).min()
    }

    /// Returns jobs below this number, newest first, that are in one of these states, or in any if
    /// there are none, and are of this model and version, where given.
    pub(super) fn list<'a>(
        &'a self,
        below: u64,
        states: &[State],
        model: Option<&str>,
        version: Option<&str>,
    ) -> Box<dyn Iterator<Item = u64> + 'a> {
        let wanted = State::ALL.into_iter().filter(|state| states.is_empty() || states.contains(state));
        let sets: Vec<&BTreeSet<u64>> = match model {
            None if states.is_empty() => {
                return Box::new(self.entries.range(..below).rev().map(|(number, _)| *number));
            }
            None => {
                let wanted: Vec<State> = wanted.collect();
                let sets = self.by_model.iter().filter(|((_, state), _)| wanted.contains(state));
                sets.map(|(_, numbers)| numbers).collect()
            }
            Some(model) => {
                let models: Vec<u32> = self.models.versions(model, version).collect();
                let keys = models.iter().flat_map(|model| wanted.clone().map(|state| (*model, state)));
                keys.filter_map(|key| self.by_model.get(&key)).collect()
            }
        };
        Box::new(Merged::new(&sets, below))
    }

    pub(super) fn times(&self, number: u64) -> Option<JobTimes> {
        self.entries.get(&number).map(Entry::times)
    }

    pub fn count(&self) -> usize {
        self.entries.len()
    }

    pub fn bytes(&self) -> usize {
        self.bytes + self.outbox.bytes()
    }

    pub fn bytes_of(&self, number: u64) -> usize {
        self.entries.get(&number).map_or(0, |entry| entry.bytes)
    }

    pub fn counts(&self) -> [usize; State::ALL.len()] {
        self.counts
    }

    /// Returns how many jobs have ended.
    pub fn ended(&self) -> usize {
        self.count() - self.counts[State::Pending as usize] - self.counts[State::Running as usize]
    }
}

fn due(set: &BTreeSet<(StoreTime, u64)>, now: StoreTime) -> impl Iterator<Item = u64> {
    set.iter().take_while(move |(at, _)| *at <= now).map(|(_, number)| *number)
}

/// Returns microseconds since 1970, as clients see them.
pub(super) fn micros(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Several sets of numbers as one, from the largest number to the smallest.
struct Merged<'a> {
    rests: BinaryHeap<Rest<'a>>,
}

/// What is left of one set: its largest number, and the smaller ones.
struct Rest<'a> {
    largest: u64,
    smaller: btree_set::Range<'a, u64>,
}

impl<'a> Merged<'a> {
    fn new(sets: &[&'a BTreeSet<u64>], below: u64) -> Self {
        Merged { rests: sets.iter().filter_map(|set| Rest::of(set.range(..below))).collect() }
    }
}

impl<'a> Rest<'a> {
    fn of(mut numbers: btree_set::Range<'a, u64>) -> Option<Self> {
        let largest = *numbers.next_back()?;
        Some(Rest { largest, smaller: numbers })
    }
}

impl Iterator for Merged<'_> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let Rest { largest, smaller } = self.rests.pop()?;
        self.rests.extend(Rest::of(smaller));
        Some(largest)
    }
}

impl PartialEq for Rest<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.largest == other.largest
    }
}

impl Eq for Rest<'_> {}

impl PartialOrd for Rest<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Rest<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.largest.cmp(&other.largest)
    }
}

/// Small numbers for models, so that an entry does not hold a name.
#[derive(Default)]
struct Models {
    numbers: HashMap<ModelName, u32>,
    versions: HashMap<Arc<str>, BTreeMap<Arc<str>, u32>>,
}

impl Models {
    fn number(&mut self, model: &ModelName) -> u32 {
        if let Some(number) = self.numbers.get(model) {
            return *number;
        }
        let number = u32::try_from(self.numbers.len()).expect("invariant: fewer jobs than numbers");
        self.numbers.insert(model.clone(), number);
        let versions = self.versions.entry(Arc::clone(&model.name)).or_default();
        versions.insert(Arc::clone(&model.version), number);
        number
    }

    /// Returns a version of a model, or all of them.
    fn versions<'a>(&'a self, name: &str, version: Option<&'a str>) -> impl Iterator<Item = u32> + use<'a> {
        let known = self.versions.get(name).into_iter().flatten();
        let wanted = known.filter(move |(known, _)| version.is_none_or(|version| version == &***known));
        wanted.map(|(_, number)| *number)
    }
}
