//! The store itself: sends changes to its writer, and reads on threads of its own.

use super::disk::Disk;
use super::fault::Fault;
use super::free_space::FreeSpace;
use super::payloads::{self, InProgress, Prepared, Uncommitted};
use super::reader::Reader;
use super::readers::Readers;
use super::shared::Shared;
use super::tables::Tables;
use super::writer::{self, Change, Command};
use crate::error::{Error, Kind, Result};
use crate::executor::BoxFuture;
use crate::jobs::job::Job;
use crate::jobs::store::{
    self, Bounds, Claim, Claimed, ClaimedJobs, Created, Engine, Filter, IdempotencyKey, JobStore, KeptStep,
    Lease, Page, Purged, Renewal, Submission, Update, Usage,
};
use crate::jobs::store_time::StoreTime;
use crate::jobs::webhooks::{Delivery, DeliveryClaim, Settlement};
use crate::lock::LockUnpoisoned;
use crate::predict::{Payload, StepKey};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

/// Changes that may wait for the disk. Over this, new ones are refused.
const QUEUE_MAX: usize = 4096;

/// New jobs are refused when the disk has less than this left: the results of those that were
/// accepted need room.
const FREE_BYTES_MIN: u64 = 64 << 20;

pub struct DurableStore {
    disk: Arc<dyn Disk>,
    in_progress: Arc<InProgress>,
    free_space: Arc<FreeSpace>,
    shared: Arc<Shared>,
    commands: SyncSender<Command>,
    readers: Readers,
}

impl DurableStore {
    /// Starts the threads of a store, which open it. `runtime` is that of its callers.
    pub fn start(disk: Arc<dyn Disk>, runtime: Handle) -> Result<Self> {
        let failed = |error: std::io::Error| {
            Error::failed(format!("cannot start the threads of the job store: {error}"))
        };
        let (commands, receiver) = sync_channel(QUEUE_MAX);
        let shared = Arc::new(Shared::new());
        let in_progress = Arc::<InProgress>::default();
        let writer = std::thread::Builder::new().name("jobs-write".into());
        let (disk_of, files, state) = (Arc::clone(&disk), Arc::clone(&in_progress), Arc::clone(&shared));
        writer.spawn(move || writer::run(&disk_of, &files, &state, &runtime, receiver)).map_err(failed)?;
        let free_space = Arc::default();
        let readers = Readers::start().map_err(failed)?;
        Ok(DurableStore { disk, in_progress, free_space, shared, commands, readers })
    }

    /// Returns once the store is open, or known to be unavailable.
    pub async fn opened(&self) -> Option<Fault> {
        let _ = self.shared.is_tried.subscribe().wait_for(|is_tried| *is_tried).await;
        self.shared.fault()
    }

    /// Sends a change to the writer, and waits until it is committed.
    async fn change<T: Send + 'static>(
        &self,
        apply: impl FnOnce(&mut Engine<'_, Tables<'_>>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, outcome) = oneshot::channel();
        let change = Box::new(Pending { apply: Some(apply), outcome: None, reply });
        match self.commands.try_send(Command::Change(change)) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                let message = format!("{QUEUE_MAX} changes of jobs wait for the disk; try again later");
                return Err(Error::overloaded(message));
            }
            Err(TrySendError::Disconnected(_)) => return Err(stopped()),
        }
        outcome.await.map_err(|_| stopped())?
    }

    /// Prepares payloads on a thread that may wait for the disk.
    async fn prepare<T: Send + 'static>(
        &self,
        prepare: impl FnOnce(&mut Uncommitted) -> Result<T, Fault> + Send + 'static,
    ) -> Result<(T, Uncommitted)> {
        let mut uncommitted = Uncommitted::new(&self.disk, &self.in_progress);
        self.readers
            .run(move || {
                let prepared = prepare(&mut uncommitted).map_err(|fault| fault.error())?;
                Ok((prepared, uncommitted))
            })
            .await
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Shared) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T> {
        let shared = Arc::clone(&self.shared);
        self.readers.run(move || read(&shared).map_err(|fault| fault.error())).await
    }

    async fn payload(
        &self,
        read: impl FnOnce(&Reader) -> Result<Option<Vec<u8>>, Fault> + Send + 'static,
    ) -> Result<Option<Payload>> {
        let (shared, disk) = (Arc::clone(&self.shared), Arc::clone(&self.disk));
        self.readers
            .run(move || {
                let stored = shared.read().and_then(|reader| read(&reader));
                let stored = stored.map_err(|fault| fault.error())?;
                stored.map(|stored| payloads::load(&*disk, stored)).transpose()
            })
            .await
    }

    /// Returns jobs that the index names, without those that have changed in between.
    async fn jobs(
        &self,
        numbers: Vec<u64>,
        fits: impl Fn(&Job) -> bool + Send + 'static,
    ) -> Result<Vec<Job>> {
        let mut jobs = self.read(move |shared| shared.read()?.jobs(&numbers)).await?;
        jobs.retain(fits);
        Ok(jobs)
    }

    /// Makes an update and, if it is done, a claim, in one transaction.
    async fn updated(
        &self,
        update: Update,
        claim: Option<Claim>,
        bounds: Bounds,
    ) -> Result<(store::Change, Vec<Claimed>)> {
        let (result, uncommitted) = match update.result.clone() {
            None => (None, None),
            Some(result) => match Prepared::small(&result) {
                Some(small) => (Some(small), None),
                None => {
                    let id = Arc::clone(&update.id);
                    let prepared = self.prepare(move |uncommitted| uncommitted.result(&id, &result));
                    let (result, uncommitted) = prepared.await?;
                    (Some(result), Some(uncommitted))
                }
            },
        };
        let change = self
            .change(move |engine| engine.update_and_claim(&update, claim.as_ref(), result.as_ref(), bounds));
        let updated = change.await;
        if let Some(uncommitted) = uncommitted
            && may_be_committed(&updated, Option::is_some)
        {
            uncommitted.keep();
        }
        Ok(match updated? {
            Some((_, claimed)) => (store::Change::Done, decoded(claimed)),
            None => (store::Change::Stale, Vec::new()),
        })
    }

    fn with_index<T>(&self, run: impl FnOnce(&mut store::Index, StoreTime) -> T) -> T {
        let now = self.shared.now();
        run(&mut self.shared.state.lock_unpoisoned().index, now)
    }
}

fn stopped() -> Error {
    Error::unavailable("the job store is closed: the host is stopping")
}

/// A change whose caller waits for its commit.
struct Pending<T, F> {
    apply: Option<F>,
    outcome: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<T: Send, F: FnOnce(&mut Engine<'_, Tables<'_>>) -> Result<T> + Send> Change for Pending<T, F> {
    fn apply(&mut self, engine: &mut Engine<'_, Tables<'_>>) -> Result<(), Fault> {
        let Some(apply) = self.apply.take() else { return Ok(()) };
        let outcome = apply(engine);
        // Every other error is decided before anything is written.
        if let Err(error) = &outcome
            && matches!(error.kind(), Kind::Unavailable | Kind::Failed)
        {
            return Err(Fault::unavailable(error.message()));
        }
        self.outcome = Some(outcome);
        Ok(())
    }

    fn committed(self: Box<Self>) {
        if let Some(outcome) = self.outcome {
            let _ = self.reply.send(outcome);
        }
    }

    fn failed(self: Box<Self>, error: Error) {
        let _ = self.reply.send(Err(error));
    }
}

impl JobStore for DurableStore {
    fn is_durable(&self) -> bool {
        true
    }

    fn now(&self) -> StoreTime {
        self.shared.now()
    }

    fn create(&self, submission: Submission, bounds: Bounds) -> BoxFuture<'_, Result<Created>> {
        Box::pin(async move {
            if let [job] = &*submission.jobs
                && let Some(input) = Prepared::small(&job.input)
                && self.free_space.take(input.stored().len() as u64, FREE_BYTES_MIN)
            {
                return self.change(move |engine| engine.create(&submission, &[input], bounds)).await;
            }
            let (disk, free_space) = (Arc::clone(&self.disk), Arc::clone(&self.free_space));
            let prepared = self.prepare(move |uncommitted| {
                let free = disk.free_bytes();
                let free = free.map_err(|error| {
                    Fault::io(&format!("cannot look at the disk of {}", disk.shown()), &error)
                })?;
                free_space.set(free);
                if free < FREE_BYTES_MIN {
                    return Err(Fault::unavailable(format!(
                        "the disk of {} has {} MB left; new jobs are accepted while there are at least {} MB",
                        disk.shown(),
                        free >> 20,
                        FREE_BYTES_MIN >> 20
                    )));
                }
                let inputs = submission.jobs.iter().map(|job| uncommitted.input(&job.id, &job.input));
                let inputs = inputs.collect::<Result<Vec<Prepared>, Fault>>()?;
                Ok((submission, inputs))
            });
            let ((submission, inputs), uncommitted) = prepared.await?;
            let created = self.change(move |engine| engine.create(&submission, &inputs, bounds)).await;
            if may_be_committed(&created, |created| matches!(created, Created::New(_))) {
                uncommitted.keep();
            }
            created
        })
    }

    fn created(&self, key: IdempotencyKey) -> BoxFuture<'_, Result<Option<Created>>> {
        Box::pin(async move {
            let name = Arc::clone(&key.name);
            let known = self.read(move |shared| shared.read()?.key(&name)).await?;
            Ok(known.and_then(|known| known.answer(&key, self.shared.now())))
        })
    }

    fn claim(&self, claim: Claim) -> BoxFuture<'_, Result<Vec<Claimed>>> {
        Box::pin(async move {
            // Without this look, an idle host would commit empty transactions.
            let is_empty = self.with_index(|index, now| {
                index.promote(now);
                !index.has_ready()
            });
            if is_empty {
                return self.shared.fault().map_or(Ok(Vec::new()), |fault| Err(fault.error()));
            }
            Ok(decoded(self.change(move |engine| engine.claim(&claim)).await?))
        })
    }

    fn renew(&self, leases: Vec<Lease>, time: Duration) -> BoxFuture<'_, Result<Vec<Renewal>>> {
        Box::pin(async move {
            if let Some(fault) = self.shared.fault() {
                return Err(fault.error());
            }
            // Leases end with the process, so they are not written.
            Ok(self.with_index(|index, now| store::renew(index, &leases, now, time)))
        })
    }

    fn update(&self, update: Update, bounds: Bounds) -> BoxFuture<'_, Result<store::Change>> {
        Box::pin(async move { Ok(self.updated(update, None, bounds).await?.0) })
    }

    fn update_and_claim(
        &self,
        update: Update,
        claim: Claim,
        bounds: Bounds,
    ) -> BoxFuture<'_, Result<(store::Change, Vec<Claimed>)>> {
        Box::pin(self.updated(update, Some(claim), bounds))
    }

    fn keep_step(
        &self,
        lease: Lease,
        step: KeptStep,
        bounds: Bounds,
    ) -> BoxFuture<'_, Result<store::Change>> {
        Box::pin(async move {
            let (id, KeptStep { key, outputs }) = (Arc::clone(&lease.id), step);
            let prepared = self.prepare(move |uncommitted| uncommitted.step(&id, &outputs));
            let (outputs, uncommitted) = prepared.await?;
            let kept = self.change(move |engine| engine.keep_step(&lease, &key, &outputs, bounds)).await;
            if may_be_committed(&kept, |change| *change == store::Change::Done) {
                uncommitted.keep();
            }
            kept
        })
    }

    fn kept_step<'a>(&'a self, lease: &'a Lease, key: StepKey) -> BoxFuture<'a, Result<Option<Payload>>> {
        let id = Arc::clone(&lease.id);
        Box::pin(self.payload(move |reader| reader.step(&id, &key)))
    }

    fn read<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<Job>>> {
        Box::pin(async move {
            let id = id.to_owned();
            self.read(move |shared| shared.read()?.find(&id)).await
        })
    }

    fn input<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, Result<Option<Payload>>> {
        let number = job.number;
        Box::pin(self.payload(move |reader| reader.input(number)))
    }

    fn result<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, Result<Option<Payload>>> {
        let number = job.number;
        Box::pin(self.payload(move |reader| reader.result(number)))
    }

    fn list<'a>(&'a self, filter: &'a Filter) -> BoxFuture<'a, Result<Page>> {
        Box::pin(async move {
            let selection = self.with_index(|index, _| store::select(index, filter))?;
            let states = filter.states.clone();
            let jobs = self.jobs(selection.numbers, move |job| store::is_in(job, &states)).await?;
            Ok(Page { jobs, next: selection.next })
        })
    }

    fn purge(&self, filter: Filter, is_dry_run: bool) -> BoxFuture<'_, Result<Purged>> {
        Box::pin(async move {
            if let Some(fault) = self.shared.fault() {
                return Err(fault.error());
            }
            // Without this look, pages with nothing to purge would commit empty transactions.
            let found = self.with_index(|index, _| store::select_ended(index, &filter))?;
            if is_dry_run || found.numbers.is_empty() {
                return Ok(found.counted());
            }
            let (removed, next) = self.change(move |engine| engine.purge(&filter)).await?;
            Ok(Purged { jobs: removed.len(), next })
        })
    }

    fn delete(&self, id: Arc<str>, revision: u64) -> BoxFuture<'_, Result<store::Change>> {
        Box::pin(self.change(move |engine| engine.delete(&id, revision)))
    }

    fn expire(&self, limit: usize) -> BoxFuture<'_, Result<usize>> {
        Box::pin(async move {
            if !self.shared.has_expired() {
                return Ok(0);
            }
            Ok(self.change(move |engine| engine.expire(limit)).await?.len())
        })
    }

    fn overdue(&self, limit: usize) -> BoxFuture<'_, Result<Vec<Job>>> {
        Box::pin(async move {
            let numbers: Vec<u64> = self.with_index(|index, now| index.overdue(now).take(limit).collect());
            if numbers.is_empty() {
                return Ok(Vec::new());
            }
            self.jobs(numbers, |job| job.status.state == crate::jobs::State::Pending).await
        })
    }

    fn abandoned(&self, limit: usize) -> BoxFuture<'_, Result<Vec<Job>>> {
        Box::pin(async move {
            let numbers: Vec<u64> = self.with_index(|index, now| index.abandoned(now).take(limit).collect());
            if numbers.is_empty() {
                return Ok(Vec::new());
            }
            self.jobs(numbers, |job| job.status.state == crate::jobs::State::Running).await
        })
    }

    fn claim_deliveries(&self, claim: DeliveryClaim) -> BoxFuture<'_, Result<Vec<Delivery>>> {
        Box::pin(async move {
            if let Some(fault) = self.shared.fault() {
                return Err(fault.error());
            }
            // Each change wakes the tasks that wait for deliveries, so one without an effect must
            // not be made.
            if !self.with_index(|index, now| index.outbox().has_claimable(&claim, now)) {
                return Ok(Vec::new());
            }
            self.change(move |engine| engine.claim_deliveries(&claim)).await
        })
    }

    fn settle_delivery(&self, settlement: Settlement) -> BoxFuture<'_, Result<store::Change>> {
        Box::pin(
            async move { Ok(changed(self.change(move |engine| engine.settle_delivery(&settlement)).await?)) },
        )
    }

    fn next_delivery(&self, after: Option<StoreTime>) -> Option<StoreTime> {
        self.with_index(|index, _| index.outbox().next_due(after))
    }

    fn next_event(&self) -> Option<StoreTime> {
        let (promoted, next) = self.with_index(|index, now| (index.promote(now), index.next_event()));
        if promoted {
            self.shared.announce(&[]);
        }
        next
    }

    fn ready(&self) -> watch::Receiver<u64> {
        self.shared.ready.subscribe()
    }

    fn changed<'a>(&'a self, id: &'a str, revision: u64) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let watcher = self.shared.watchers.watch(id);
            let has_changed = async || {
                let job = JobStore::read(self, id).await?;
                Ok(job.is_none_or(|job| job.revision != revision))
            };
            watcher.changed(has_changed).await
        })
    }

    fn usage(&self) -> Usage {
        self.shared.usage()
    }

    fn reset(&self) -> BoxFuture<'_, Result<String>> {
        Box::pin(async move {
            let (reply, outcome) = oneshot::channel();
            self.commands.try_send(Command::Reset(reply)).map_err(|_| stopped())?;
            let folder = outcome.await.map_err(|_| stopped())??;
            // The next answer comes from the new store.
            self.opened().await;
            Ok(folder)
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let (reply, closed) = oneshot::channel();
            if self.commands.try_send(Command::Close(reply)).is_ok() {
                let _ = closed.await;
            }
        })
    }
}

/// Whether a change may be on the disk. If a write has failed, that is not known.
fn may_be_committed<T>(outcome: &Result<T>, is_done: impl FnOnce(&T) -> bool) -> bool {
    match outcome {
        Ok(value) => is_done(value),
        Err(error) => error.kind() == Kind::Unavailable,
    }
}

/// Decodes the inputs of claimed jobs.
fn decoded(claimed: ClaimedJobs<Prepared>) -> Vec<Claimed> {
    let decoded = claimed.into_iter().map(|(job, input)| {
        // A damaged input fails its job when the job reads it.
        Claimed { job, input: input.and_then(|input| input.decoded()) }
    });
    decoded.collect()
}

fn changed(is_changed: bool) -> store::Change {
    if is_changed { store::Change::Done } else { store::Change::Stale }
}
