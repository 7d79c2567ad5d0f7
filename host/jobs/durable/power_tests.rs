//! Loses the power at every operation of a disk, and checks that what was acknowledged is there.

use super::disk::Disk;
use super::lossy_disk::LossyDisk;
use super::store::DurableStore;
use crate::error::{Kind, Result};
use crate::jobs::examples::{LONG, json, spec};
use crate::jobs::job::{AttemptStart, End, Job, Spec, State};
use crate::jobs::payload::stored_bytes;
use crate::jobs::store::{
    Bounds, Change, Claim, Claimed, Created, Filter, JobStore, KeptStep, Lease, NewJob, Submission, Update,
};
use crate::jobs::webhooks::{DeliveryClaim, DeliveryOutcome, Settlement, Webhook};
use crate::predict::StepKey;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::runtime::Handle;

const ROOMY: Bounds = Bounds { jobs: 10_000, bytes: 1 << 30 };

/// What the store has promised about a job. `None` for the revision of one that was deleted.
#[derive(Debug, Default)]
struct Promises {
    revisions: BTreeMap<Arc<str>, Option<u64>>,
    /// The lengths of inputs and results, which are also their contents.
    inputs: BTreeMap<Arc<str>, usize>,
    results: BTreeMap<Arc<str>, usize>,
    /// The lengths of the kept outputs of steps.
    steps: BTreeMap<(Arc<str>, StepKey), usize>,
    /// The jobs whose end is not delivered.
    deliveries: BTreeSet<Arc<str>>,
    /// The job whose change was not acknowledged, if there is one.
    open: Option<Arc<str>>,
}

fn submission(number: usize, bytes: usize) -> Submission {
    let webhook = Webhook { url: "http://r/hook".into(), receiver: "http://r".into() };
    let spec = Spec { webhook: Some(webhook), ..spec("m") };
    let id = format!("{number:032x}").into();
    let job = NewJob { id, spec: Arc::new(spec), input: json(bytes), delay: Duration::ZERO };
    Submission { jobs: vec![job], key: None }
}

fn lease(job: &Job) -> Lease {
    Lease { id: Arc::clone(&job.id), number: job.number, fence: job.fence }
}

/// Sizes below and above the limit for payloads in the database.
fn size(random: &mut fastrand::Rng) -> usize {
    if random.u8(0..5) == 0 { 70_000 } else { random.usize(10..500) }
}

/// Makes changes until the disk fails, or there were so many.
async fn run(store: &DurableStore, seed: u64, changes: usize) -> Promises {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut promises = Promises::default();
    let mut jobs: BTreeMap<Arc<str>, Job> = BTreeMap::new();
    for number in 0..changes {
        let done = step(store, &mut random, number, &mut promises, &mut jobs).await;
        match done {
            Ok(()) => promises.open = None,
            Err(error) => {
                assert_eq!(error.kind(), Kind::Unavailable, "{error}");
                return promises;
            }
        }
    }
    promises
}

async fn step(
    store: &DurableStore,
    random: &mut fastrand::Rng,
    number: usize,
    promises: &mut Promises,
    jobs: &mut BTreeMap<Arc<str>, Job>,
) -> Result<()> {
    let some = |random: &mut fastrand::Rng, jobs: &BTreeMap<Arc<str>, Job>, state: State| {
        let ids: Vec<_> = jobs.values().filter(|job| job.status.state == state).cloned().collect();
        random.choice(ids)
    };
    match random.u8(0..14) {
        0..=3 => {
            let bytes = size(random);
            let submission = submission(number, bytes);
            let id = Arc::clone(&submission.jobs[0].id);
            promises.open = Some(Arc::clone(&id));
            let Created::New(created) = store.create(submission, ROOMY).await? else { panic!("ids differ") };
            promises.revisions.insert(Arc::clone(&id), Some(1));
            promises.inputs.insert(Arc::clone(&id), bytes);
            jobs.insert(id, created.into_iter().next().expect("one job"));
        }
        4 | 5 => {
            let start = AttemptStart { generation: 1, policy: "digest".into(), now: SystemTime::now() };
            let oldest =
                jobs.values().filter(|job| job.status.state == State::Pending).min_by_key(|job| job.number);
            promises.open = oldest.map(|job| Arc::clone(&job.id));
            for Claimed { job, input } in
                store.claim(Claim { limit: 1, lease: LONG, models: None, tenants: None, start }).await?
            {
                let (known, bytes) = (input.map(|input| stored_bytes(&input)), promises.inputs[&job.id]);
                assert!(known.is_none_or(|known| known == stored_bytes(&json(bytes))), "another input");
                promises.revisions.insert(Arc::clone(&job.id), Some(job.revision));
                jobs.insert(Arc::clone(&job.id), job);
            }
        }
        6..=8 => {
            let Some(mut job) = some(random, jobs, State::Running) else { return Ok(()) };
            let bytes = size(random);
            promises.open = Some(Arc::clone(&job.id));
            let expires = store.now().after(LONG);
            job.status.end(&End::Succeeded(json(bytes)), SystemTime::now(), expires);
            let update = Update {
                id: Arc::clone(&job.id),
                number: job.number,
                revision: job.revision,
                status: job.status.clone(),
                result: Some(json(bytes)),
            };
            assert_eq!(store.update(update, ROOMY).await?, Change::Done);
            job.revision += 1;
            promises.revisions.insert(Arc::clone(&job.id), Some(job.revision));
            promises.results.insert(Arc::clone(&job.id), bytes);
            promises.deliveries.insert(Arc::clone(&job.id));
            promises.inputs.remove(&job.id);
            promises.steps.retain(|(id, _), _| *id != job.id);
            jobs.insert(Arc::clone(&job.id), job);
        }
        9 | 10 => {
            let Some(job) = some(random, jobs, State::Running) else { return Ok(()) };
            let (bytes, mut key) = (size(random), StepKey::default());
            key[..8].copy_from_slice(&number.to_le_bytes());
            promises.open = Some(Arc::clone(&job.id));
            let step = KeptStep { key, outputs: json(bytes) };
            assert_eq!(store.keep_step(lease(&job), step, ROOMY).await?, Change::Done);
            promises.steps.insert((job.id, key), bytes);
        }
        11 | 12 => {
            for delivery in store.claim_deliveries(deliveries(1)).await? {
                let id = &delivery.job;
                promises.open = Some(Arc::clone(id));
                let (number, fence, outcome) = (delivery.number, delivery.fence, DeliveryOutcome::Delivered);
                let settlement = Settlement { number, fence, attempts: 1, outcome };
                assert_eq!(store.settle_delivery(settlement).await?, Change::Done);
                promises.deliveries.remove(id);
                // Its job may have been deleted.
                if let Some(job) = jobs.get_mut(id) {
                    job.revision += 1;
                    promises.revisions.insert(Arc::clone(id), Some(job.revision));
                }
            }
        }
        _ => {
            let Some(job) = some(random, jobs, State::Succeeded) else { return Ok(()) };
            promises.open = Some(Arc::clone(&job.id));
            assert_eq!(store.delete(Arc::clone(&job.id), job.revision).await?, Change::Done);
            promises.revisions.insert(Arc::clone(&job.id), None);
            promises.results.remove(&job.id);
            jobs.remove(&job.id);
        }
    }
    Ok(())
}

fn deliveries(limit: usize) -> DeliveryClaim {
    DeliveryClaim { limit, lease: LONG, capacity: Arc::new(move |_| limit) }
}

/// Checks what a store has after the power was lost.
async fn check(store: &DurableStore, disk: &LossyDisk, promises: &Promises, at: &str) {
    assert_eq!(store.opened().await, None, "{at}");
    for (id, revision) in &promises.revisions {
        let found = store.read(id).await.unwrap();
        let is_open = promises.open.as_ref() == Some(id);
        let next = |revision: u64| is_open.then_some(revision + 1);
        match (revision, &found) {
            (Some(revision), Some(job)) if job.revision == *revision => {}
            (Some(revision), Some(job)) if Some(job.revision) == next(*revision) => continue,
            (Some(_), None) if is_open => continue,
            (None, None) => continue,
            _ => panic!("{at}: {id} has revision {revision:?}, and the store {found:?}"),
        }
        let job = found.expect("matched above");
        if let Some(bytes) = promises.inputs.get(id) {
            let input = store.input(&job).await.unwrap().expect("an input");
            assert_eq!(input.bytes_kept(), *bytes, "{at}: the input of {id}");
        }
        if let Some(bytes) = promises.results.get(id) {
            let result = store.result(&job).await.unwrap().expect("a result");
            assert_eq!(result.bytes_kept(), *bytes, "{at}: the result of {id}");
        }
        for ((_, key), bytes) in promises.steps.iter().filter(|((of, _), _)| of == id) {
            let outputs = store.kept_step(&lease(&job), *key).await.unwrap().expect("kept outputs");
            assert_eq!(outputs.bytes_kept(), *bytes, "{at}: a step of {id}");
        }
    }
    let claimed = store.claim_deliveries(deliveries(10_000)).await.unwrap();
    let waiting: BTreeSet<Arc<str>> = claimed.into_iter().map(|delivery| delivery.job).collect();
    for id in waiting.symmetric_difference(&promises.deliveries) {
        assert_eq!(promises.open.as_ref(), Some(id), "{at}: a delivery is lost, or was never promised");
    }
    // Nothing that was never submitted, and no file that belongs to nobody.
    let all = Filter { limit: 10_000, ..Filter::default() };
    let mut files = 0;
    for job in store.list(&all).await.unwrap().jobs {
        let is_known = promises.revisions.contains_key(&job.id) || promises.open.as_ref() == Some(&job.id);
        assert!(is_known, "{at}: {} was never submitted", job.id);
        files += usize::from(job.input_bytes > 65_000) + usize::from(job.result_bytes > 65_000);
        // All large ones have this size.
        files += job.kept_bytes / 70_000;
    }
    let names = disk.names().unwrap();
    let suffixes = [".input", ".result", ".step"];
    let payloads = names.iter().filter(|name| suffixes.iter().any(|suffix| name.ends_with(suffix))).count();
    assert_eq!(payloads, files, "{at}: {names:?}");
}

/// Makes `changes`, loses the power after `operations` of the disk, and checks the rest. Returns
/// how many operations there were.
fn lose_power(seed: u64, changes: usize, operations: usize) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let disk = LossyDisk::new(seed, operations);
        let store = DurableStore::start(Arc::new(disk.clone()), Handle::current()).unwrap();
        let is_open = store.opened().await.is_none();
        let promises = if is_open { run(&store, seed, changes).await } else { Promises::default() };
        let done = disk.operations();
        let rest = disk.after_power_cut();
        store.close().await;
        let again = DurableStore::start(Arc::new(rest.clone()), Handle::current()).unwrap();
        let at = format!("seed {seed}, power lost after {operations} operations");
        check(&again, &rest, &promises, &at).await;
        again.close().await;
        done
    })
}

/// Every operation in `cargo xtask soak`, some of them otherwise.
#[test]
fn no_acknowledged_change_is_lost_with_the_power() {
    let is_long = std::env::var_os("HOSTLER_SOAK").is_some();
    let changes = if is_long { 200 } else { 40 };
    let all = lose_power(1, changes, usize::MAX);
    let step = if is_long { 1 } else { (all / 60).max(1) };
    for operations in (0..all).step_by(step) {
        lose_power(1, changes, operations);
    }
}

#[test]
fn no_acknowledged_change_is_lost_at_random_points_of_long_scripts() {
    let is_long = std::env::var_os("HOSTLER_SOAK").is_some();
    let (changes, points) = if is_long { (600, 1000) } else { (60, 20) };
    let mut random = fastrand::Rng::with_seed(3);
    for seed in 0..points {
        let all = if seed % 50 == 0 { lose_power(seed, changes, usize::MAX) } else { changes * 12 };
        lose_power(seed, changes, random.usize(0..all));
    }
}
