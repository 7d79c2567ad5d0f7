//! Jobs on a store that fails: whatever breaks, every job ends, and the next one runs.
//!
//! Runs in this process, because the faults are injected into the store. Everything else is built
//! as the host builds it.

use crate::support::{PATIENCE, Setup, plugin};
use hostler::app;
use hostler::error::{Error, Kind, Result};
use hostler::executor::BoxFuture;
use hostler::jobs::{
    Bounds, Change, Filter, Item, Job, JobStore, Jobs, JobsConfig, MemoryStore, Page, RequestedBudgets,
    State, Status,
};
use hostler::metrics::Metrics;
use hostler::policy::Reloader;
use hostler::policy::files::Files;
use hostler::policy::reload::FirstPlan;
use hostler::predict::JsonText;
use hostler::router::Router;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

/// A memory store that panics or refuses once when a job reaches the given state, or that is
/// unavailable while `away` is set.
#[derive(Default)]
struct Faulty {
    inner: MemoryStore,
    panics_at: Mutex<Option<State>>,
    refuses_at: Mutex<Option<State>>,
    away: AtomicBool,
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

impl JobStore for Faulty {
    fn create(&self, jobs: Vec<Job>, bounds: Bounds) -> BoxFuture<'_, Result<()>> {
        if self.away.load(Ordering::SeqCst) {
            return Box::pin(async { Err(unavailable()) });
        }
        self.inner.create(jobs, bounds)
    }

    fn read<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<Job>>> {
        self.inner.read(id)
    }

    fn update<'a>(
        &'a self,
        id: &'a str,
        revision: u64,
        status: Status,
        bounds: Bounds,
    ) -> BoxFuture<'a, Result<Change>> {
        assert!(!Self::hit(&self.panics_at, status.state), "a fault of the store, as the test wants it");
        if Self::hit(&self.refuses_at, status.state) || self.away.load(Ordering::SeqCst) {
            return Box::pin(async { Err(unavailable()) });
        }
        self.inner.update(id, revision, status, bounds)
    }

    fn list<'a>(&'a self, filter: &'a Filter) -> BoxFuture<'a, Result<Page>> {
        self.inner.list(filter)
    }

    fn delete<'a>(&'a self, id: &'a str, revision: u64) -> BoxFuture<'a, Result<Change>> {
        self.inner.delete(id, revision)
    }

    fn expire(&self, now: SystemTime) -> BoxFuture<'_, Result<Vec<State>>> {
        self.inner.expire(now)
    }
}

struct Bench {
    jobs: Arc<Jobs>,
    store: Arc<Faulty>,
    router: Arc<Router>,
    metrics: Arc<Metrics>,
    runtime: tokio::runtime::Runtime,
    _reloader: Reloader,
    _setup: Setup,
}

impl Bench {
    fn new() -> Self {
        let manifest = "[jobs]\nconcurrency = 1\n[models.hostile]\nplugin = \"hostile\"\n\
                        [plugins.hostile]\npath = \"hostile.wasm\"\n";
        let setup = Setup::new(manifest).file("hostile.wasm", plugin("hostile"));
        let (path, files) = (setup.path("hostler.toml"), Files::default());
        let first = FirstPlan::read(&path, &files, None).map_err(app::unplanned).unwrap();
        let settings = first.plan.settings.clone();
        let (runtime, metrics) = (app::runtime(&settings).unwrap(), Arc::new(Metrics::new()));
        let loader = app::loader(&settings, &metrics, runtime.handle()).unwrap();
        let reloader = Reloader::start(path, files, first, loader, None).unwrap();
        let router = Arc::new(Router::new(reloader.live(), Arc::clone(&metrics), false, settings.limits));
        let store = Arc::new(Faulty::default());
        let jobs = Jobs::start(JobsConfig {
            store: Arc::clone(&store) as Arc<dyn JobStore>,
            router: Arc::clone(&router),
            metrics: Arc::clone(&metrics),
            runtime: runtime.handle().clone(),
            status_of: |_| 500,
        });
        Bench { jobs, store, router, metrics, runtime, _reloader: reloader, _setup: setup }
    }

    /// Submits a job for the plugin that echoes its input.
    fn submit(&self) -> Result<Arc<str>> {
        let mut journey = self.router.begin("request".into(), "test", &|_| None);
        let route = journey.resolve("hostile", None, &|_| None).unwrap();
        let input = JsonText::parse("[\"a\"]".into()).unwrap();
        let item = Item::checked(&route, input, Vec::new(), self.router.budget()).unwrap();
        let (asked, id) = (RequestedBudgets::default(), Arc::clone(journey.id()));
        journey.withdraw();
        let submitted = self.jobs.submit_background(&route.name, vec![item], asked, &id);
        self.runtime.block_on(submitted).map(|jobs| Arc::clone(&jobs[0].id))
    }

    fn ended(&self, id: &str) -> Job {
        let job = self.runtime.block_on(self.jobs.wait(id, PATIENCE)).unwrap();
        assert!(job.status.state.is_final(), "{job:?}");
        job
    }

    /// Checks that the slot is free, the counts are right, and nothing is left behind.
    fn runs_on(&self, jobs: i64) {
        let job = self.ended(&self.submit().unwrap());
        assert_eq!(job.status.state, State::Succeeded, "{job:?}");
        let kept = |state: State| self.metrics.jobs.kept.with_label_values(&[state.as_str()]).get();
        assert_eq!(State::ALL.map(kept).iter().sum::<i64>(), jobs + 1);
        for state in State::ALL.into_iter().filter(|state| !state.is_final()) {
            assert_eq!(kept(state), 0, "{}", state.as_str());
        }
        self.runtime.block_on(async {
            tokio::time::timeout(PATIENCE, self.jobs.drain(PATIENCE)).await.expect("no job is live");
            assert_eq!(self.jobs.close().await, 0);
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
    for state in [State::Pending, State::Running, State::Succeeded] {
        let bench = Bench::new();
        *bench.store.panics_at.lock().unwrap() = Some(state);
        let job = bench.ended(&bench.submit().unwrap());
        assert_eq!(job.status.state, State::Failed, "{job:?}");
        let error = job.status.error.unwrap();
        assert_eq!(error.message(), "the job's task ended unexpectedly", "at {}", state.as_str());
        bench.runs_on(1);
    }
}

#[test]
fn a_store_that_refuses_a_change_fails_the_job() {
    for state in [State::Pending, State::Running, State::Succeeded] {
        let bench = Bench::new();
        *bench.store.refuses_at.lock().unwrap() = Some(state);
        let job = bench.ended(&bench.submit().unwrap());
        assert_eq!(job.status.state, State::Failed, "{job:?}");
        let error = job.status.error.unwrap();
        assert_eq!(
            error.message(),
            "cannot update the job in the store: the disk is away",
            "at {}",
            state.as_str()
        );
        bench.runs_on(1);
    }
}

#[test]
fn a_store_that_is_away_for_a_while_has_the_ends_once_it_is_back() {
    let bench = Bench::new();
    bench.store.away.store(true, Ordering::SeqCst);
    assert_eq!(bench.submit().unwrap_err().kind(), Kind::Unavailable, "nothing was promised");
    bench.store.away.store(false, Ordering::SeqCst);
    // The job is created, and then the store becomes unavailable.
    let mut held = bench.store.refuses_at.lock().unwrap();
    *held = Some(State::Pending);
    let id = bench.submit().unwrap();
    bench.store.away.store(true, Ordering::SeqCst);
    drop(held);
    let ended = bench.runtime.block_on(bench.jobs.wait(&id, Duration::from_millis(700))).unwrap();
    assert_eq!(ended.status.state, State::Created, "the store cannot know better");
    bench.store.away.store(false, Ordering::SeqCst);
    assert_eq!(bench.ended(&id).status.state, State::Failed);
    bench.runs_on(1);
}
