//! What every store must do, tried on each store of this machine.

use super::durable::{DurableStore, FolderDisk};
use super::examples::{LONG, json, spec};
use super::job::{AttemptStart, Budgets, End, Job, Spec, State, Status};
use super::payload::stored_bytes;
use super::{
    Bounds, Change, Claim, Claimed, Created, Cursor, Filter, IdempotencyKey, JobStore, KeptStep, Lease,
    MemoryStore, NewJob, Purged, Renewal, Submission, Update,
};
use crate::error::{Error, Kind};
use crate::predict::Payload;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::runtime::Handle;

pub(super) const ROOMY: Bounds = Bounds { jobs: 100, bytes: 1 << 20 };

/// Runs a test on a store in memory, and on one in a folder.
pub(super) async fn on_each(test: impl AsyncFn(&dyn JobStore)) {
    test(&MemoryStore::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let store = DurableStore::start(Arc::new(FolderDisk::new(folder.path().join("jobs"))), Handle::current())
        .unwrap();
    assert_eq!(store.opened().await, None);
    test(&store).await;
    store.close().await;
}

pub(super) fn id(name: &str) -> Arc<str> {
    let digits: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("{digits:0>32}").into()
}

pub(super) fn new_job(name: &str, model: &str, input_bytes: usize) -> NewJob {
    let spec = spec(model);
    NewJob { id: id(name), spec: Arc::new(spec), input: json(input_bytes), delay: Duration::ZERO }
}

pub(super) async fn create(
    store: &dyn JobStore,
    jobs: Vec<NewJob>,
    bounds: Bounds,
) -> Result<Created, Error> {
    store.create(Submission { jobs, key: None }, bounds).await
}

pub(super) async fn create_one(store: &dyn JobStore, name: &str) -> Job {
    match create(store, vec![new_job(name, "m", 10)], ROOMY).await.unwrap() {
        Created::New(mut jobs) => jobs.remove(0),
        other => panic!("{other:?}"),
    }
}

async fn claim(store: &dyn JobStore, limit: usize, lease: Duration) -> Vec<Job> {
    let start = AttemptStart { generation: 1, policy: "digest".into(), now: SystemTime::now() };
    let claimed = store.claim(Claim { limit, lease, models: None, tenants: None, start }).await.unwrap();
    claimed.into_iter().map(|claimed| claimed.job).collect()
}

pub(super) async fn read(store: &dyn JobStore, name: &str) -> Job {
    store.read(&id(name)).await.unwrap().expect("the job exists")
}

fn ended(store: &dyn JobStore, job: &Job, end: &End, ttl: Duration) -> Status {
    let mut status = job.status.clone();
    status.end(end, SystemTime::now(), store.now().after(ttl));
    status
}

pub(super) async fn change(
    store: &dyn JobStore,
    job: &Job,
    status: Status,
    result: Option<Payload>,
    bounds: Bounds,
) -> Result<Change, Error> {
    let (id, number, revision) = (Arc::clone(&job.id), job.number, job.revision);
    store.update(Update { id, number, revision, status, result }, bounds).await
}

pub(super) async fn fail(store: &dyn JobStore, job: &Job, ttl: Duration) -> Change {
    let status = ended(store, job, &End::Failed(Error::failed("x")), ttl);
    change(store, job, status, None, ROOMY).await.unwrap()
}

#[tokio::test]
async fn of_two_changes_from_one_revision_the_first_wins() {
    on_each(async |store| {
        let job = create_one(store, "a").await;
        assert_eq!(fail(store, &job, LONG).await, Change::Done);
        assert_eq!(fail(store, &job, LONG).await, Change::Stale);
        let kept = read(store, "a").await;
        assert_eq!((kept.status.state, kept.revision), (State::Failed, 2));
        let has_input = store.input(&kept).await.unwrap().is_some();
        assert_eq!(has_input, store.is_durable(), "it can be submitted again");
        assert_eq!(store.delete(Arc::clone(&job.id), 1).await.unwrap(), Change::Stale);
        assert_eq!(store.delete(Arc::clone(&job.id), 2).await.unwrap(), Change::Done);
        assert!(store.read(&job.id).await.unwrap().is_none());
        assert_eq!(store.usage().bytes, 0);
    })
    .await;
}

#[tokio::test]
async fn all_or_none_are_created_within_the_bounds() {
    on_each(async |store| {
        let bounds = Bounds { jobs: 3, bytes: 1 << 20 };
        let jobs = |names: &[&str]| names.iter().map(|name| new_job(name, "m", 10)).collect();
        create(store, jobs(&["a", "b"]), bounds).await.unwrap();
        let error = create(store, jobs(&["c", "d"]), bounds).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Overloaded);
        assert!(error.message().contains("2 of 3 jobs, 0 jobs have ended"), "{error}");
        assert!(store.read(&id("c")).await.unwrap().is_none());
        let error = create(store, jobs(&["c", "d", "e", "f"]), bounds).await.unwrap_err();
        assert_eq!(error.kind(), Kind::TooLarge, "it never fits");

        let large = Bounds { jobs: 100, bytes: 300_000 };
        create(store, vec![new_job("e", "m", 160_000)], large).await.unwrap();
        let error = create(store, vec![new_job("f", "m", 160_000)], large).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Overloaded, "{error}");
        // A job that has succeeded releases the bytes of its input.
        let job = read(store, "e").await;
        let status = ended(store, &job, &End::Succeeded(json(2)), LONG);
        change(store, &job, status, Some(json(2)), large).await.unwrap();
        create(store, vec![new_job("f", "m", 160_000)], large).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_result_that_does_not_fit_is_refused_and_every_other_end_is_not() {
    on_each(async |store| {
        let bounds = Bounds { jobs: 10, bytes: 100_000 };
        create(store, vec![new_job("a", "m", 1_000)], bounds).await.unwrap();
        let job = read(store, "a").await;
        let status = ended(store, &job, &End::Succeeded(json(2)), LONG);
        let error = change(store, &job, status, Some(json(200_000)), bounds).await.unwrap_err();
        assert_eq!(error.kind(), Kind::TooLarge);
        let long = End::Failed(Error::failed("x".repeat(15_000)));
        let status = ended(store, &job, &long, LONG);
        let small = Bounds { jobs: 10, bytes: 100 };
        assert_eq!(change(store, &job, status, None, small).await.unwrap(), Change::Done);
    })
    .await;
}

#[tokio::test]
async fn inputs_and_results_of_any_size_are_read_back() {
    on_each(async |store| {
        for (name, bytes) in [("a", 10), ("b", 65_536), ("c", 200_000)] {
            create(store, vec![new_job(name, "m", bytes)], ROOMY).await.unwrap();
            let job = read(store, name).await;
            let input = store.input(&job).await.unwrap().expect("an input");
            assert_eq!(input.bytes_kept(), bytes);
            let status = ended(store, &job, &End::Succeeded(json(bytes + 1)), LONG);
            change(store, &job, status, Some(json(bytes + 1)), ROOMY).await.unwrap();
            let job = read(store, name).await;
            assert!(store.input(&job).await.unwrap().is_none(), "nobody needs it any more");
            assert_eq!(store.result(&job).await.unwrap().expect("a result").bytes_kept(), bytes + 1);
        }
    })
    .await;
}

#[tokio::test]
async fn what_has_ended_expires_and_leaves_nothing() {
    on_each(async |store| {
        let (a, b) = (create_one(store, "a").await, create_one(store, "b").await);
        fail(store, &a, LONG).await;
        assert_eq!(store.expire(10).await.unwrap(), 0);
        fail(store, &b, Duration::ZERO).await;
        assert_eq!(store.expire(10).await.unwrap(), 1);
        assert!(store.read(&b.id).await.unwrap().is_none());
        store.delete(Arc::clone(&a.id), 2).await.unwrap();
        assert_eq!((store.usage().bytes, store.usage().jobs, store.next_event()), (0, [0; 6], None));
    })
    .await;
}

#[tokio::test]
async fn a_claim_begins_an_attempt_in_order_of_submission() {
    on_each(async |store| {
        for name in ["a", "b", "c"] {
            create_one(store, name).await;
        }
        let claimed = claim(store, 2, LONG).await;
        assert_eq!(claimed.iter().map(|job| Arc::clone(&job.id)).collect::<Vec<_>>(), [id("a"), id("b")]);
        let job = read(store, "a").await;
        assert_eq!(
            (job.status.state, job.fence, job.revision, job.status.attempts.len()),
            (State::Running, 1, 2, 1)
        );
        assert_eq!(claim(store, 2, LONG).await.len(), 1);
        assert_eq!(claim(store, 2, LONG).await.len(), 0);
        // A refused attempt makes it wait, before those that came later.
        create_one(store, "d").await;
        let mut status = job.status.clone();
        status.refuse(&Error::overloaded("full"), store.now());
        change(store, &job, status, None, ROOMY).await.unwrap();
        assert_eq!(claim(store, 1, LONG).await[0].id, id("a"));
    })
    .await;
}

#[tokio::test]
async fn the_end_of_a_job_claims_the_next_one_and_a_stale_end_claims_none() {
    on_each(async |store| {
        for name in ["a", "b", "c"] {
            create_one(store, name).await;
        }
        let first = claim(store, 1, LONG).await.remove(0);
        let end = async |job: &Job, result: Option<Payload>, bounds: Bounds| {
            let outcome = result.clone().map_or_else(|| End::Failed(Error::failed("x")), End::Succeeded);
            let status = ended(store, job, &outcome, LONG);
            let (id, number, revision) = (Arc::clone(&job.id), job.number, job.revision);
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(5);
            let start = AttemptStart { generation: 2, policy: "digest".into(), now };
            let claim = Claim { limit: 1, lease: LONG, models: None, tenants: None, start };
            store.update_and_claim(Update { id, number, revision, status, result }, claim, bounds).await
        };
        let error = end(&first, Some(json(2000)), Bounds { bytes: 2000, ..ROOMY }).await.unwrap_err();
        assert_eq!(error.kind(), Kind::TooLarge);
        assert_eq!(read(store, "b").await.status.state, State::Pending, "nothing is done");

        let (change, claimed) = end(&first, Some(json(5)), ROOMY).await.unwrap();
        assert_eq!(change, Change::Done);
        let second = &claimed[0].job;
        assert_eq!((second.id.clone(), second.fence, second.revision), (id("b"), 1, 2));
        assert_eq!(format!("{:?}", read(store, "b").await), format!("{second:?}"));
        assert_eq!(read(store, "a").await.status.state, State::Succeeded);

        let (change, claimed) = end(&first, None, ROOMY).await.unwrap();
        assert_eq!((change, claimed.len()), (Change::Stale, 0));
        assert_eq!(end(second, None, ROOMY).await.unwrap().1[0].job.id, id("c"));
        let last = read(store, "c").await;
        assert_eq!(end(&last, None, ROOMY).await.unwrap().1.len(), 0, "no job waits");
    })
    .await;
}

#[tokio::test]
async fn a_claim_brings_the_input_or_leaves_it_to_be_read() {
    on_each(async |store| {
        for (name, bytes) in [("a", 10), ("b", 5_000), ("c", 70_000)] {
            create(store, vec![new_job(name, "m", bytes)], ROOMY).await.unwrap();
            let start = AttemptStart { generation: 1, policy: "digest".into(), now: SystemTime::now() };
            let claim = Claim { limit: 5, lease: LONG, models: None, tenants: None, start };
            let mut claimed = store.claim(claim).await.unwrap();
            assert_eq!(claimed.len(), 1);
            let Claimed { job, input } = claimed.remove(0);
            let read = store.input(&job).await.unwrap().unwrap();
            assert_eq!(stored_bytes(&read), bytes);
            assert!(input.is_none_or(|input| stored_bytes(&input) == bytes), "{name}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_host_that_serves_other_models_claims_other_jobs() {
    on_each(async |store| {
        create(store, vec![new_job("a", "one", 10), new_job("b", "two:2", 10)], ROOMY).await.unwrap();
        let start = AttemptStart { generation: 1, policy: "digest".into(), now: SystemTime::now() };
        let models: Arc<dyn Fn(&crate::policy::plan::ModelName) -> bool + Send + Sync> =
            Arc::new(|model| &*model.version == "2");
        let claimed = store
            .claim(Claim { limit: 5, lease: LONG, models: Some(models), tenants: None, start })
            .await
            .unwrap();
        assert_eq!(claimed.len(), 1);
        assert_eq!(claimed[0].job.id, id("b"));
    })
    .await;
}

#[tokio::test]
async fn a_lease_that_lapses_makes_a_job_abandoned_and_a_result_counts_until_the_next_claim() {
    on_each(async |store| {
        for name in ["a", "b"] {
            create_one(store, name).await;
        }
        let held = claim(store, 2, Duration::ZERO).await;
        let abandoned = store.abandoned(10).await.unwrap();
        assert_eq!(abandoned.len(), 2);
        // The host of `a` was only slow.
        let status = ended(store, &held[0], &End::Succeeded(json(4)), LONG);
        assert_eq!(change(store, &held[0], status, Some(json(4)), ROOMY).await.unwrap(), Change::Done);
        // `b` is claimed by another host.
        let mut status = abandoned[1].status.clone();
        status.interrupt(&Error::failed("gone"), SystemTime::now(), store.now());
        change(store, &abandoned[1], status, None, ROOMY).await.unwrap();
        let again = claim(store, 2, LONG).await;
        assert_eq!((again.len(), again[0].fence), (1, 2));
        let status = ended(store, &held[1], &End::Succeeded(json(4)), LONG);
        assert_eq!(change(store, &held[1], status, Some(json(4)), ROOMY).await.unwrap(), Change::Stale);
        let lease = |job: &Job| Lease { id: Arc::clone(&job.id), number: job.number, fence: job.fence };
        let leases = vec![lease(&held[0]), lease(&held[1]), lease(&again[0])];
        let renewed = store.renew(leases, LONG).await.unwrap();
        assert_eq!(renewed, [Renewal::Ended, Renewal::Lost, Renewal::Held]);
        assert!(store.abandoned(10).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_job_waits_for_its_time_and_its_deadline_is_seen() {
    on_each(async |store| {
        let late = NewJob { delay: LONG, ..new_job("late", "m", 10) };
        let spec = Spec {
            budgets: Budgets { max_total_runtime: Duration::ZERO, ..late.spec.budgets },
            ..(*late.spec).clone()
        };
        let overdue = NewJob { spec: Arc::new(spec), ..NewJob { id: id("overdue"), ..late.clone() } };
        create(store, vec![late, overdue], ROOMY).await.unwrap();
        assert!(claim(store, 5, LONG).await.is_empty());
        let due = store.overdue(10).await.unwrap();
        assert_eq!(due.iter().map(|job| Arc::clone(&job.id)).collect::<Vec<_>>(), [id("overdue")]);
        fail(store, &due[0], LONG).await;
        assert!(store.overdue(10).await.unwrap().is_empty());
        assert!(store.next_event().expect("the other job waits") > store.now());
    })
    .await;
}

#[tokio::test]
async fn an_idempotency_key_outlives_its_jobs_and_belongs_to_one_request() {
    on_each(async |store| {
        let key = |request: u8, time| IdempotencyKey { name: "key".into(), request: [request; 32], time };
        let submission = |name: &str, key| Submission { jobs: vec![new_job(name, "m", 10)], key: Some(key) };
        let Created::New(jobs) = store.create(submission("a", key(1, LONG)), ROOMY).await.unwrap() else {
            panic!()
        };
        let Created::Existing(ids) = store.create(submission("b", key(1, LONG)), ROOMY).await.unwrap() else {
            panic!()
        };
        assert_eq!(ids, [id("a")]);
        assert!(matches!(
            store.create(submission("c", key(2, LONG)), ROOMY).await.unwrap(),
            Created::Conflict
        ));
        fail(store, &jobs[0], LONG).await;
        store.delete(id("a"), 2).await.unwrap();
        let again = store.create(submission("d", key(1, LONG)), ROOMY).await.unwrap();
        assert!(matches!(again, Created::Existing(_)), "{again:?}");
        assert!(store.read(&id("b")).await.unwrap().is_none());
        assert!(store.usage().bytes > 0, "keys take room");
        // The same ids again, after an answer was lost.
        create_one(store, "e").await;
        let again = create(store, vec![new_job("e", "m", 10)], ROOMY).await.unwrap();
        assert!(matches!(again, Created::Existing(_)), "{again:?}");
    })
    .await;
}

#[tokio::test]
async fn a_key_that_has_expired_is_free_again() {
    on_each(async |store| {
        let key = || Some(IdempotencyKey { name: "key".into(), request: [1; 32], time: Duration::ZERO });
        for name in ["a", "b"] {
            let submission = Submission { jobs: vec![new_job(name, "m", 10)], key: key() };
            assert!(matches!(store.create(submission, ROOMY).await.unwrap(), Created::New(_)));
        }
        store.expire(10).await.unwrap();
        for name in ["a", "b"] {
            store.delete(id(name), 1).await.unwrap();
        }
        assert_eq!(store.usage().bytes, 0);
    })
    .await;
}

#[tokio::test]
async fn a_watcher_learns_of_the_next_change() {
    on_each(async |store| {
        let job = create_one(store, "a").await;
        let watch = store.changed(&job.id, 1);
        let change = async {
            tokio::task::yield_now().await;
            fail(store, &job, LONG).await;
        };
        tokio::join!(async { watch.await.unwrap() }, change);
        store.changed(&job.id, 1).await.unwrap();
        store.delete(Arc::clone(&job.id), 2).await.unwrap();
        store.changed(&job.id, 2).await.unwrap();
    })
    .await;
}

async fn ids(store: &dyn JobStore, filter: Filter) -> (Vec<Arc<str>>, Option<Cursor>) {
    let page = store.list(&filter).await.unwrap();
    (page.jobs.into_iter().map(|job| job.id).collect(), page.next)
}

fn names(names: &[&str]) -> Vec<Arc<str>> {
    names.iter().map(|name| id(name)).collect()
}

#[tokio::test]
async fn pages_hold_still_while_jobs_come_and_go() {
    on_each(async |store| {
        for n in 0..6 {
            let model = if n % 2 == 0 { "even" } else { "odd:2" };
            create(store, vec![new_job(&n.to_string(), model, 10)], ROOMY).await.unwrap();
        }
        let page = |after| Filter { after, limit: 2, ..Filter::default() };
        let (first, next) = ids(store, page(None)).await;
        assert_eq!(first, names(&["5", "4"]));
        create(store, vec![new_job("6", "even:3", 10)], ROOMY).await.unwrap();
        // One is the last of the page, the other is still to come.
        store.delete(id("4"), 1).await.unwrap();
        store.delete(id("2"), 1).await.unwrap();
        let (second, next) = ids(store, page(next)).await;
        assert_eq!((second, next.is_some()), (names(&["3", "1"]), true));
        assert_eq!(ids(store, page(next)).await, (names(&["0"]), None));
        let even = Filter { model: Some("even".into()), limit: 10, ..Filter::default() };
        assert_eq!(ids(store, even.clone()).await, (names(&["6", "0"]), None));
        fail(store, &read(store, "0").await, LONG).await;
        assert_eq!(ids(store, even.clone()).await, (names(&["6", "0"]), None));
        let failed = Filter { states: vec![State::Failed], ..even };
        assert_eq!(ids(store, failed).await, (names(&["0"]), None));
        let none = Filter { states: vec![State::Running], limit: 10, ..Filter::default() };
        assert_eq!(ids(store, none).await, (vec![], None));
        let wrong = Filter { after: Some(Cursor("x".into())), limit: 1, ..Filter::default() };
        assert_eq!(store.list(&wrong).await.err().map(|error| error.kind()), Some(Kind::InvalidInput));
    })
    .await;
}

#[tokio::test]
async fn outputs_of_steps_are_kept_until_the_job_ends() {
    on_each(async |store| {
        create_one(store, "a").await;
        let job = claim(store, 1, LONG).await.remove(0);
        let lease = Lease { id: Arc::clone(&job.id), number: job.number, fence: job.fence };
        let keep = async |fence: u64, key: u8, bytes: usize, bounds: Bounds| {
            let step = KeptStep { key: [key; 32], outputs: json(bytes) };
            store.keep_step(Lease { fence, ..lease.clone() }, step, bounds).await
        };
        let before = store.usage().bytes;
        assert_eq!(keep(job.fence, 1, 100, ROOMY).await.unwrap(), Change::Done);
        assert_eq!(keep(job.fence, 2, 70_000, ROOMY).await.unwrap(), Change::Done);
        assert!(store.usage().bytes >= before + 70_100, "they count");
        let used = store.usage().bytes;
        assert_eq!(keep(job.fence, 2, 80_000, ROOMY).await.unwrap(), Change::Done, "it is replaced");
        assert_eq!(store.usage().bytes, used + 10_000);
        assert_eq!(keep(job.fence - 1, 3, 50, ROOMY).await.unwrap(), Change::Stale, "another claim");
        let tight = Bounds { jobs: 100, bytes: 160_000 };
        assert_eq!(keep(job.fence, 4, 70_000, tight).await.unwrap_err().kind(), Kind::TooLarge);
        for (key, bytes) in [(1, Some(100)), (2, Some(80_000)), (3, None), (4, None)] {
            let kept = store.kept_step(&lease, [key; 32]).await.unwrap();
            assert_eq!(kept.map(|outputs| outputs.bytes_kept()), bytes, "{key}");
        }
        // They neither change the revision, nor what the job says.
        let now = read(store, "a").await;
        assert_eq!((now.revision, now.status.state), (job.revision, State::Running));
        assert_eq!(fail(store, &job, LONG).await, Change::Done);
        assert!(store.kept_step(&lease, [2; 32]).await.unwrap().is_none());
        assert!(store.usage().bytes <= before + 100, "{} bytes, before {before}", store.usage().bytes);
        assert_eq!(keep(job.fence, 5, 50, ROOMY).await.unwrap(), Change::Stale, "it has ended");
    })
    .await;
}

#[tokio::test]
async fn a_purge_removes_what_has_ended_and_fits_page_by_page() {
    on_each(async |store| {
        for n in 0..6 {
            let model = if n % 2 == 0 { "even" } else { "odd:2" };
            create(store, vec![new_job(&n.to_string(), model, 10)], ROOMY).await.unwrap();
        }
        for name in ["1", "2", "3", "4"] {
            fail(store, &read(store, name).await, LONG).await;
        }
        let purged = |jobs, after: Option<&Cursor>| Purged { jobs, next: after.cloned() };
        let odd =
            Filter { model: Some("odd".into()), version: Some("2".into()), limit: 10, ..Filter::default() };
        assert_eq!(store.purge(odd.clone(), true).await.unwrap(), purged(2, None));
        assert_eq!(ids(store, odd.clone()).await.0, names(&["5", "3", "1"]), "a dry run changes nothing");
        let (watched, watch) = (read(store, "3").await, id("3"));
        let watch = store.changed(&watch, watched.revision);
        let first = store.purge(Filter { limit: 1, ..odd.clone() }, false).await.unwrap();
        assert_eq!(first, purged(1, first.next.as_ref()));
        watch.await.unwrap();
        assert!(first.next.is_some());
        let rest = Filter { after: first.next, ..odd.clone() };
        assert_eq!(store.purge(rest, false).await.unwrap(), purged(1, None));
        assert_eq!(ids(store, odd.clone()).await.0, names(&["5"]), "it has not ended");
        assert_eq!(store.purge(odd, false).await.unwrap(), purged(0, None));
        let late = Filter { ended_before: Some(SystemTime::UNIX_EPOCH), limit: 10, ..Filter::default() };
        assert_eq!(store.purge(late, false).await.unwrap(), purged(0, None));
        assert!(store.read(&id("1")).await.unwrap().is_none());
        let all = Filter { limit: 10, ..Filter::default() };
        assert_eq!(store.purge(all, false).await.unwrap(), purged(2, None));
        assert_eq!(store.usage().jobs, [2, 0, 0, 0, 0, 0]);
    })
    .await;
}
