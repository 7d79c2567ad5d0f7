//! Jobs on a store that fails: whatever breaks, every job ends, and the next one runs.
//!
//! Runs in this process, because the faults are injected into the store. Everything else is built
//! as the host builds it.

use crate::support::in_process::{InProcess, sleep};
use crate::support::receiver::{Reaction, Receiver, secret};
use crate::support::{PATIENCE, eventually};
use hostler::error::{Error, Kind, Result};
use hostler::executor::BoxFuture;
use hostler::jobs::{
    Bounds, Change, Claim, Claimed, Created, Delivery, DeliveryClaim, DeliveryState, Filter, IdempotencyKey,
    Job, JobStore, KeptStep, Lease, MemoryStore, Page, Purged, Renewal, Settlement, State, StoreTime,
    Submission, Update, Usage,
};
use hostler::predict::{Payload, StepKey};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// A memory store that panics or refuses once when a job reaches the given state, or that is
/// unavailable while `away` is set.
#[derive(Default)]
struct Faulty {
    inner: MemoryStore,
    panics_at: Mutex<Option<State>>,
    refuses_at: Mutex<Option<State>>,
    away: Arc<AtomicBool>,
    /// Outcomes of deliveries that were not recorded.
    unsettled: AtomicUsize,
}

fn unavailable() -> Error {
    Error::unavailable("the disk is away")
}

impl Faulty {
    /// Returns whether `state` is the one to fail at, and disarms the slot.
    fn hit(slot: &Mutex<Option<State>>, state: State) -> bool {
        slot.lock().unwrap().take_if(|wanted| *wanted == state).is_some()
    }
}

impl Faulty {
    /// Panics or returns true if an update to this state must fail.
    fn fails_at(&self, state: State) -> bool {
        assert!(!Self::hit(&self.panics_at, state), "a fault of the store, as the test wants it");
        Self::hit(&self.refuses_at, state) || self.away.load(Ordering::SeqCst)
    }

    fn is_away(&self) -> Result<()> {
        if self.away.load(Ordering::SeqCst) { Err(unavailable()) } else { Ok(()) }
    }
}

impl JobStore for Faulty {
    fn is_durable(&self) -> bool {
        self.inner.is_durable()
    }

    fn now(&self) -> StoreTime {
        self.inner.now()
    }

    fn create(&self, submission: Submission, bounds: Bounds) -> BoxFuture<'_, Result<Created>> {
        match self.is_away() {
            Err(error) => Box::pin(async { Err(error) }),
            Ok(()) => self.inner.create(submission, bounds),
        }
    }

    fn created(&self, key: IdempotencyKey) -> BoxFuture<'_, Result<Option<Created>>> {
        self.inner.created(key)
    }

    fn claim(&self, claim: Claim) -> BoxFuture<'_, Result<Vec<Claimed>>> {
        // An idle host claims as well, but only a claim that finds a job fails.
        let is_due = self.inner.usage().jobs[State::Pending as usize] > 0;
        assert!(
            !(is_due && Self::hit(&self.panics_at, State::Pending)),
            "a fault of the store, as the test wants it"
        );
        if is_due && Self::hit(&self.refuses_at, State::Pending) || self.away.load(Ordering::SeqCst) {
            return Box::pin(async { Err(unavailable()) });
        }
        self.inner.claim(claim)
    }

    fn renew(&self, leases: Vec<Lease>, time: Duration) -> BoxFuture<'_, Result<Vec<Renewal>>> {
        self.inner.renew(leases, time)
    }

    fn update(&self, update: Update, bounds: Bounds) -> BoxFuture<'_, Result<Change>> {
        match self.fails_at(update.status.state) {
            true => Box::pin(async { Err(unavailable()) }),
            false => self.inner.update(update, bounds),
        }
    }

    fn update_and_claim(
        &self,
        update: Update,
        claim: Claim,
        bounds: Bounds,
    ) -> BoxFuture<'_, Result<(Change, Vec<Claimed>)>> {
        match self.fails_at(update.status.state) {
            true => Box::pin(async { Err(unavailable()) }),
            false => self.inner.update_and_claim(update, claim, bounds),
        }
    }

    fn keep_step(&self, lease: Lease, step: KeptStep, bounds: Bounds) -> BoxFuture<'_, Result<Change>> {
        self.inner.keep_step(lease, step, bounds)
    }

    fn kept_step<'a>(&'a self, lease: &'a Lease, key: StepKey) -> BoxFuture<'a, Result<Option<Payload>>> {
        self.inner.kept_step(lease, key)
    }

    fn read<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<Job>>> {
        self.inner.read(id)
    }

    fn input<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, Result<Option<Payload>>> {
        self.inner.input(job)
    }

    fn result<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, Result<Option<Payload>>> {
        self.inner.result(job)
    }

    fn list<'a>(&'a self, filter: &'a Filter) -> BoxFuture<'a, Result<Page>> {
        self.inner.list(filter)
    }

    fn purge(&self, filter: Filter, is_dry_run: bool) -> BoxFuture<'_, Result<Purged>> {
        self.inner.purge(filter, is_dry_run)
    }

    fn delete(&self, id: Arc<str>, revision: u64) -> BoxFuture<'_, Result<Change>> {
        self.inner.delete(id, revision)
    }

    fn expire(&self, limit: usize) -> BoxFuture<'_, Result<usize>> {
        self.inner.expire(limit)
    }

    fn overdue(&self, limit: usize) -> BoxFuture<'_, Result<Vec<Job>>> {
        self.inner.overdue(limit)
    }

    fn abandoned(&self, limit: usize) -> BoxFuture<'_, Result<Vec<Job>>> {
        self.inner.abandoned(limit)
    }

    fn claim_deliveries(&self, claim: DeliveryClaim) -> BoxFuture<'_, Result<Vec<Delivery>>> {
        self.inner.claim_deliveries(claim)
    }

    fn settle_delivery(&self, settlement: Settlement) -> BoxFuture<'_, Result<Change>> {
        match self.is_away() {
            Err(error) => {
                self.unsettled.fetch_add(1, Ordering::SeqCst);
                Box::pin(async { Err(error) })
            }
            Ok(()) => self.inner.settle_delivery(settlement),
        }
    }

    fn next_delivery(&self, after: Option<StoreTime>) -> Option<StoreTime> {
        self.inner.next_delivery(after)
    }

    fn next_event(&self) -> Option<StoreTime> {
        self.inner.next_event()
    }

    fn ready(&self) -> watch::Receiver<u64> {
        self.inner.ready()
    }

    fn changed<'a>(&'a self, id: &'a str, revision: u64) -> BoxFuture<'a, Result<()>> {
        self.inner.changed(id, revision)
    }

    fn usage(&self) -> Usage {
        self.inner.usage()
    }
}

struct Bench {
    host: InProcess,
    store: Arc<Faulty>,
}

impl Bench {
    fn new() -> Self {
        Bench::with("", Arc::default())
    }

    /// `more` are further tables. The store is unavailable while `away` is set.
    fn with(more: &str, away: Arc<AtomicBool>) -> Self {
        let store = Arc::new(Faulty { away, ..Faulty::default() });
        let keys = format!("concurrency = 1\n{more}");
        let files = [("a.secret", &*secret(1))];
        Bench { host: InProcess::with_files(&keys, &files, Arc::clone(&store) as Arc<dyn JobStore>), store }
    }

    fn submit(&self) -> Result<Arc<str>> {
        self.host.submit(Vec::new(), None)
    }

    fn ended(&self, id: &str) -> Job {
        let job = self.host.runtime.block_on(self.host.jobs.wait(id, PATIENCE)).unwrap();
        assert!(job.status.state.is_final(), "{job:?}");
        job
    }

    /// Checks that the slot is free, the counts are right, and nothing is left behind.
    fn runs_on(&self, jobs: i64) {
        let job = self.ended(&self.submit().unwrap());
        assert_eq!(job.status.state, State::Succeeded, "{job:?}");
        let kept = |state: State| self.host.metrics.jobs.kept.with_label_values(&[state.as_str()]).get();
        assert_eq!(State::ALL.map(kept).iter().sum::<i64>(), jobs + 1);
        for state in State::ALL.into_iter().filter(|state| !state.is_final()) {
            assert_eq!(kept(state), 0, "{}", state.as_str());
        }
        self.host.runtime.block_on(async {
            tokio::time::timeout(PATIENCE, self.host.jobs.drain(PATIENCE)).await.expect("no job is live");
            assert_eq!(self.host.jobs.close().await, 0);
        });
        let late = self.submit().unwrap_err();
        assert_eq!(
            (late.kind(), late.message()),
            (Kind::Unavailable, "the host is stopping and accepts no more jobs")
        );
    }
}

#[test]
fn a_task_that_panics_fails_its_job() {
    let bench = Bench::new();
    *bench.store.panics_at.lock().unwrap() = Some(State::Succeeded);
    let job = bench.ended(&bench.submit().unwrap());
    assert_eq!(job.status.state, State::Failed, "{job:?}");
    assert_eq!(job.status.error.unwrap().message(), "the job's task ended unexpectedly");
    bench.runs_on(1);
}

#[test]
fn a_claim_that_panics_is_made_again() {
    let bench = Bench::new();
    *bench.store.panics_at.lock().unwrap() = Some(State::Pending);
    let job = bench.ended(&bench.submit().unwrap());
    assert_eq!(job.status.state, State::Succeeded, "{job:?}");
    bench.runs_on(1);
}

#[test]
fn a_change_that_the_store_refuses_is_made_again() {
    for state in [State::Pending, State::Succeeded] {
        let bench = Bench::new();
        *bench.store.refuses_at.lock().unwrap() = Some(state);
        let job = bench.ended(&bench.submit().unwrap());
        assert_eq!(job.status.state, State::Succeeded, "at {}: {job:?}", state.as_str());
        assert!(bench.store.refuses_at.lock().unwrap().is_none(), "the store has refused");
        bench.runs_on(1);
    }
}

#[test]
fn a_store_that_is_away_for_a_while_has_the_ends_once_it_is_back() {
    let bench = Bench::new();
    bench.store.away.store(true, Ordering::SeqCst);
    assert_eq!(bench.submit().unwrap_err().kind(), Kind::Unavailable, "nothing was promised");
    bench.store.away.store(false, Ordering::SeqCst);
    // The job runs, and then the store becomes unavailable.
    let id = bench.host.submit(sleep(300), None).unwrap();
    let state = || bench.host.runtime.block_on(bench.host.jobs.get(&id)).unwrap().status.state;
    eventually("the attempt", || (state() == State::Running).then_some(()), || format!("{:?}", state()));
    bench.store.away.store(true, Ordering::SeqCst);
    let ended = bench.host.runtime.block_on(bench.host.jobs.wait(&id, Duration::from_millis(700))).unwrap();
    assert_eq!(ended.status.state, State::Running, "the store cannot know better");
    bench.store.away.store(false, Ordering::SeqCst);
    assert_eq!(bench.ended(&id).status.state, State::Succeeded, "the result was kept meanwhile");
    bench.runs_on(1);
}

#[test]
fn a_delivery_is_recorded_once_the_store_is_back_and_not_repeated() {
    let away = Arc::<AtomicBool>::default();
    let goes_away = Arc::clone(&away);
    let receiver = Receiver::answering(move |_| {
        goes_away.store(true, Ordering::SeqCst);
        Reaction::Status(204)
    });
    let table = format!(
        "[jobs.webhooks]\nallow_hosts = [\"{}\"]\nsecrets = [{{ file = \"a.secret\" }}]\n",
        receiver.url("")
    );
    let bench = Bench::with(&table, away);
    let id = bench.host.submit(Vec::new(), Some(&receiver.url("/"))).unwrap();
    bench.ended(&id);
    let unsettled = || (bench.store.unsettled.load(Ordering::SeqCst) > 0).then_some(());
    eventually("the outcome not to be recorded", unsettled, || format!("{:?}", receiver.received()));
    let delivery = || bench.host.runtime.block_on(bench.host.jobs.get(&id)).unwrap().delivery;
    assert_eq!(delivery(), None);
    bench.store.away.store(false, Ordering::SeqCst);
    let delivered = || delivery().filter(|delivery| delivery.state == DeliveryState::Delivered);
    let shown = eventually("the outcome", delivered, || format!("{:?}", delivery()));
    assert_eq!((shown.attempts, receiver.received().len()), (1, 1));
    let count = || bench.host.metrics.jobs.webhook_deliveries.with_label_values(&["delivered"]).get();
    eventually("it to be counted", || (count() == 1).then_some(()), || count().to_string());
    bench.runs_on(1);
}
