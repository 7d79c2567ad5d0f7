//! Jobs in memory: bounded and fast, but lost when the process ends.

use super::engine::{self, Engine, Records, StoredKey};
use super::index::Index;
use super::interface::{
    Bounds, Change, Claim, Claimed, Created, Filter, IdempotencyKey, JobStore, KeptStep, Lease, Page, Purged,
    Renewal, Submission, Update, Usage,
};
use super::select::{Selection, select, select_ended};
use super::watchers::Watchers;
use crate::error::Result;
use crate::executor::BoxFuture;
use crate::jobs::job::Job;
use crate::jobs::payload::stored_bytes;
use crate::jobs::store_time::{StoreClock, StoreTime};
use crate::jobs::webhooks::{Delivery, DeliveryClaim, Settlement};
use crate::lock::LockUnpoisoned;
use crate::predict::{Payload, StepKey};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

pub struct MemoryStore {
    inner: Mutex<Inner>,
    clock: StoreClock,
    ready: watch::Sender<u64>,
    watchers: Watchers,
}

#[derive(Default)]
struct Inner {
    index: Index,
    records: MemoryRecords,
}

#[derive(Default)]
struct MemoryRecords {
    jobs: HashMap<u64, Record>,
    numbers: HashMap<Arc<str>, u64>,
    keys: HashMap<Arc<str>, StoredKey>,
    deliveries: HashMap<u64, Delivery>,
}

struct Record {
    job: Job,
    input: Option<Payload>,
    result: Option<Payload>,
    steps: HashMap<StepKey, Payload>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        MemoryStore {
            inner: Mutex::default(),
            clock: StoreClock::from(StoreTime::default()),
            ready: watch::Sender::new(0),
            watchers: Watchers::default(),
        }
    }
}

impl MemoryStore {
    fn with<T>(&self, run: impl FnOnce(&mut Engine<'_, MemoryRecords>) -> T) -> T {
        let mut inner = self.inner.lock_unpoisoned();
        let Inner { index, records } = &mut *inner;
        run(&mut Engine { index, records, now: self.clock.now() })
    }

    fn announce(&self) {
        self.ready.send_modify(|count| *count += 1);
    }
}

impl JobStore for MemoryStore {
    fn is_durable(&self) -> bool {
        false
    }

    fn now(&self) -> StoreTime {
        self.clock.now()
    }

    fn create(&self, submission: Submission, bounds: Bounds) -> BoxFuture<'_, Result<Created>> {
        Box::pin(async move {
            let inputs: Vec<Payload> = submission.jobs.iter().map(|job| job.input.clone()).collect();
            let created = self.with(|engine| engine.create(&submission, &inputs, bounds))?;
            self.announce();
            Ok(created)
        })
    }

    fn created(&self, key: IdempotencyKey) -> BoxFuture<'_, Result<Option<Created>>> {
        Box::pin(async move {
            self.with(|engine| {
                Ok(engine.records.key(&key.name)?.and_then(|known| known.answer(&key, engine.now)))
            })
        })
    }

    fn claim(&self, claim: Claim) -> BoxFuture<'_, Result<Vec<Claimed>>> {
        Box::pin(async move {
            let claimed = self.with(|engine| engine.claim(&claim))?;
            claimed.iter().for_each(|(job, _)| self.watchers.notify(&job.id));
            Ok(claimed.into_iter().map(|(job, input)| Claimed { job, input }).collect())
        })
    }

    fn renew(&self, leases: Vec<Lease>, time: Duration) -> BoxFuture<'_, Result<Vec<Renewal>>> {
        Box::pin(
            async move { Ok(self.with(|engine| engine::renew(engine.index, &leases, engine.now, time))) },
        )
    }

    fn update(&self, update: Update, bounds: Bounds) -> BoxFuture<'_, Result<Change>> {
        Box::pin(async move {
            let updated = self.with(|engine| engine.update(&update, update.result.as_ref(), bounds))?;
            let Some(job) = updated else { return Ok(Change::Stale) };
            self.watchers.notify(&job.id);
            self.announce();
            Ok(Change::Done)
        })
    }

    fn update_and_claim(
        &self,
        update: Update,
        claim: Claim,
        bounds: Bounds,
    ) -> BoxFuture<'_, Result<(Change, Vec<Claimed>)>> {
        Box::pin(async move {
            let result = update.result.as_ref();
            let updated =
                self.with(|engine| engine.update_and_claim(&update, Some(&claim), result, bounds))?;
            let Some((job, claimed)) = updated else { return Ok((Change::Stale, Vec::new())) };
            self.watchers.notify(&job.id);
            claimed.iter().for_each(|(job, _)| self.watchers.notify(&job.id));
            self.announce();
            Ok((Change::Done, claimed.into_iter().map(|(job, input)| Claimed { job, input }).collect()))
        })
    }

    fn keep_step(&self, lease: Lease, step: KeptStep, bounds: Bounds) -> BoxFuture<'_, Result<Change>> {
        Box::pin(
            async move { self.with(|engine| engine.keep_step(&lease, &step.key, &step.outputs, bounds)) },
        )
    }

    fn kept_step<'a>(&'a self, lease: &'a Lease, key: StepKey) -> BoxFuture<'a, Result<Option<Payload>>> {
        Box::pin(
            async move { Ok(self.with(|engine| engine.records.read(&lease.id)?.steps.get(&key).cloned())) },
        )
    }

    fn read<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<Job>>> {
        Box::pin(
            async move { Ok(self.with(|engine| engine.records.read(id).map(|record| record.job.clone()))) },
        )
    }

    fn input<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, Result<Option<Payload>>> {
        Box::pin(async move { Ok(self.with(|engine| engine.records.read(&job.id)?.input.clone())) })
    }

    fn result<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, Result<Option<Payload>>> {
        Box::pin(async move { Ok(self.with(|engine| engine.records.read(&job.id)?.result.clone())) })
    }

    fn list<'a>(&'a self, filter: &'a Filter) -> BoxFuture<'a, Result<Page>> {
        Box::pin(async move {
            self.with(|engine| {
                let Selection { numbers, next } = select(engine.index, filter)?;
                let jobs = numbers.into_iter().filter_map(|number| engine.records.job(number).transpose());
                Ok(Page { jobs: jobs.collect::<Result<_>>()?, next })
            })
        })
    }

    fn purge(&self, filter: Filter, is_dry_run: bool) -> BoxFuture<'_, Result<Purged>> {
        Box::pin(async move {
            if is_dry_run {
                return self.with(|engine| Ok(select_ended(engine.index, &filter)?.counted()));
            }
            let (removed, next) = self.with(|engine| engine.purge(&filter))?;
            removed.iter().for_each(|id| self.watchers.notify(id));
            Ok(Purged { jobs: removed.len(), next })
        })
    }

    fn delete(&self, id: Arc<str>, revision: u64) -> BoxFuture<'_, Result<Change>> {
        Box::pin(async move {
            let change = self.with(|engine| engine.delete(&id, revision))?;
            self.watchers.notify(&id);
            Ok(change)
        })
    }

    fn expire(&self, limit: usize) -> BoxFuture<'_, Result<usize>> {
        Box::pin(async move {
            let expired = self.with(|engine| engine.expire(limit))?;
            expired.iter().for_each(|id| self.watchers.notify(id));
            Ok(expired.len())
        })
    }

    fn overdue(&self, limit: usize) -> BoxFuture<'_, Result<Vec<Job>>> {
        Box::pin(async move {
            self.with(|engine| {
                let numbers = engine.index.overdue(engine.now).take(limit);
                numbers.filter_map(|number| engine.records.job(number).transpose()).collect()
            })
        })
    }

    fn abandoned(&self, limit: usize) -> BoxFuture<'_, Result<Vec<Job>>> {
        Box::pin(async move {
            self.with(|engine| {
                let numbers = engine.index.abandoned(engine.now).take(limit);
                numbers.filter_map(|number| engine.records.job(number).transpose()).collect()
            })
        })
    }

    fn claim_deliveries(&self, claim: DeliveryClaim) -> BoxFuture<'_, Result<Vec<Delivery>>> {
        Box::pin(async move { self.with(|engine| engine.claim_deliveries(&claim)) })
    }

    fn settle_delivery(&self, settlement: Settlement) -> BoxFuture<'_, Result<Change>> {
        Box::pin(async move {
            let is_settled = self.with(|engine| engine.settle_delivery(&settlement))?;
            self.announce();
            Ok(if is_settled { Change::Done } else { Change::Stale })
        })
    }

    fn next_delivery(&self, after: Option<StoreTime>) -> Option<StoreTime> {
        self.with(|engine| engine.index.outbox().next_due(after))
    }

    fn next_event(&self) -> Option<StoreTime> {
        let (promoted, next) =
            self.with(|engine| (engine.index.promote(engine.now), engine.index.next_event()));
        if promoted {
            self.announce();
        }
        next
    }

    fn ready(&self) -> watch::Receiver<u64> {
        self.ready.subscribe()
    }

    fn changed<'a>(&'a self, id: &'a str, revision: u64) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let watcher = self.watchers.watch(id);
            let has_changed = async || {
                let now = self.with(|engine| engine.records.read(id).map(|record| record.job.revision));
                Ok(now != Some(revision))
            };
            watcher.changed(has_changed).await
        })
    }

    fn usage(&self) -> Usage {
        self.with(|engine| Usage {
            jobs: engine.index.counts(),
            bytes: engine.index.bytes(),
            deliveries: engine.index.outbox().count(),
            is_open: true,
            damaged: 0,
        })
    }
}

impl MemoryRecords {
    fn read(&self, id: &str) -> Option<&Record> {
        self.jobs.get(self.numbers.get(id)?)
    }
}

impl Records for MemoryRecords {
    type Payload = Payload;

    const KEEPS_INPUTS: bool = false;

    fn bytes(payload: &Payload) -> usize {
        stored_bytes(payload)
    }

    fn number(&self, id: &str) -> Result<Option<u64>> {
        Ok(self.numbers.get(id).copied())
    }

    fn job(&self, number: u64) -> Result<Option<Job>> {
        Ok(self.jobs.get(&number).map(|record| record.job.clone()))
    }

    fn input_at_hand(&self, number: u64) -> Result<Option<Payload>> {
        Ok(self.jobs.get(&number).and_then(|record| record.input.clone()))
    }

    fn insert(&mut self, job: &Job, input: &Payload) -> Result<()> {
        self.numbers.insert(Arc::clone(&job.id), job.number);
        let record =
            Record { job: job.clone(), input: Some(input.clone()), result: None, steps: HashMap::new() };
        self.jobs.insert(job.number, record);
        Ok(())
    }

    fn replace(&mut self, job: &Job, result: Option<&Payload>) -> Result<()> {
        if let Some(record) = self.jobs.get_mut(&job.number) {
            record.job = job.clone();
            if !Self::keeps_input(job.status.state) {
                record.input = None;
            }
            if let Some(result) = result {
                record.result = Some(result.clone());
            }
        }
        Ok(())
    }

    fn remove(&mut self, job: &Job) -> Result<()> {
        self.numbers.remove(&job.id);
        self.jobs.remove(&job.number);
        Ok(())
    }

    fn insert_step(&mut self, number: u64, key: &StepKey, outputs: &Payload) -> Result<Option<usize>> {
        let record = self.jobs.get_mut(&number);
        let before = record.and_then(|record| record.steps.insert(*key, outputs.clone()));
        Ok(before.as_ref().map(Self::bytes))
    }

    fn remove_steps(&mut self, number: u64) -> Result<()> {
        if let Some(record) = self.jobs.get_mut(&number) {
            record.steps.clear();
        }
        Ok(())
    }

    fn key(&self, name: &str) -> Result<Option<StoredKey>> {
        Ok(self.keys.get(name).cloned())
    }

    fn insert_key(&mut self, name: &Arc<str>, key: StoredKey) -> Result<()> {
        self.keys.insert(Arc::clone(name), key);
        Ok(())
    }

    fn remove_key(&mut self, name: &str) -> Result<()> {
        self.keys.remove(name);
        Ok(())
    }

    fn delivery(&self, number: u64) -> Result<Option<Delivery>> {
        Ok(self.deliveries.get(&number).cloned())
    }

    fn put_delivery(&mut self, delivery: &Delivery) -> Result<()> {
        self.deliveries.insert(delivery.number, delivery.clone());
        Ok(())
    }

    fn remove_delivery(&mut self, number: u64) -> Result<()> {
        self.deliveries.remove(&number);
        Ok(())
    }
}
