//! Damages the files of a store, and fills its disk: what was damaged is never read as other data,
//! and what was acknowledged is there when the disk has space again.

use super::disk::Disk;
use super::fault::Fault;
use super::lossy_disk::LossyDisk;
use super::row::{Row, RowPayloadKind};
use super::store::DurableStore;
use crate::error::{Kind, Result};
use crate::jobs::examples::{LONG, json, spec};
use crate::jobs::job::{AttemptStart, End, Job, State};
use crate::jobs::store::{Bounds, Change, Claim, Claimed, Created, JobStore, NewJob, Submission, Update};
use crate::predict::Payload;
use redb::{ReadableTable, TableDefinition};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::runtime::Handle;

const ROOMY: Bounds = Bounds { jobs: 10_000, bytes: 1 << 30 };

async fn create(store: &DurableStore, number: usize, bytes: usize) -> Result<Job> {
    let spec = spec("m");
    let id = format!("{number:032x}").into();
    let job = NewJob { id, spec: Arc::new(spec), input: json(bytes), delay: Duration::ZERO };
    match store.create(Submission { jobs: vec![job], key: None }, ROOMY).await? {
        Created::New(mut jobs) => Ok(jobs.remove(0)),
        other => panic!("{other:?}"),
    }
}

/// What a store says about a job: the record, and the lengths of its payloads.
async fn described(store: &DurableStore, id: &str) -> Result<Option<String>> {
    let Some(job) = store.read(id).await? else { return Ok(None) };
    let length = |payload: Option<Payload>| payload.map(|payload| payload.bytes_kept());
    let (input, result) = (store.input(&job).await?, store.result(&job).await?);
    Ok(Some(format!("{job:?} {:?} {:?}", length(input), length(result))))
}

/// Returns a store with jobs that wait and jobs that have ended, and what it says about each.
async fn filled(disk: &LossyDisk) -> Vec<(Arc<str>, String)> {
    let store = DurableStore::start(Arc::new(disk.clone()), Handle::current()).unwrap();
    assert_eq!(store.opened().await, None);
    let mut ids = Vec::new();
    for number in 0..24 {
        let bytes = if number % 8 == 0 { 70_000 } else { 200 };
        ids.push(create(&store, number, bytes).await.unwrap().id);
    }
    let start = AttemptStart { generation: 1, policy: "digest".into(), now: SystemTime::now() };
    let claimed =
        store.claim(Claim { limit: 12, lease: LONG, models: None, tenants: None, start }).await.unwrap();
    for (number, Claimed { job, .. }) in (0..).zip(claimed) {
        let mut status = job.status.clone();
        let result = json(if number % 4 == 0 { 80_000 } else { 300 });
        status.end(&End::Succeeded(result.clone()), SystemTime::now(), store.now().after(LONG));
        let update =
            Update { id: job.id, number: job.number, revision: job.revision, status, result: Some(result) };
        assert_eq!(store.update(update, ROOMY).await.unwrap(), Change::Done);
    }
    let mut all = Vec::new();
    for id in ids {
        let text = described(&store, &id).await.unwrap().expect("the job exists");
        all.push((id, text));
    }
    store.close().await;
    all
}

/// Rewrites a store as the first schema has it: payloads have tables of their own.
fn to_first_schema(disk: &LossyDisk) {
    const JOBS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("jobs");
    let database = disk.open_database(&super::open::builder(), super::open::DATABASE).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut jobs = transaction.open_table(JOBS).unwrap();
        let rows: Vec<(u64, Vec<u8>)> = jobs
            .iter()
            .unwrap()
            .map(|row| row.map(|(number, row)| (number.value(), row.value().to_vec())).unwrap())
            .collect();
        let mut moved = 0;
        for (number, row) in rows {
            let row = Row::split(&row).unwrap();
            jobs.insert(number, row.record).unwrap();
            let Some((kind, stored)) = row.payload else { continue };
            let name = if kind == RowPayloadKind::Input { "inputs" } else { "results" };
            let table: TableDefinition<'_, u64, &[u8]> = TableDefinition::new(name);
            transaction.open_table(table).unwrap().insert(number, stored).unwrap();
            moved += 1;
        }
        assert!(moved > 0, "no row had a payload");
        let mut meta = transaction.open_table(super::tables::META).unwrap();
        meta.insert(super::tables::SCHEMA_KEY, super::tables::FIRST_SCHEMA).unwrap();
    }
    transaction.commit().unwrap();
}

#[tokio::test]
async fn a_store_of_the_first_schema_is_read_and_goes_on() {
    let disk = LossyDisk::new(1, usize::MAX);
    let before = filled(&disk).await;
    to_first_schema(&disk);
    let store = DurableStore::start(Arc::new(disk.clone()), Handle::current()).unwrap();
    assert_eq!(store.opened().await, None);
    for (id, text) in &before {
        assert_eq!(described(&store, id).await.unwrap().as_ref(), Some(text));
    }
    // Jobs that wait run, and lose their inputs.
    let start = AttemptStart { generation: 1, policy: "digest".into(), now: SystemTime::now() };
    let claimed =
        store.claim(Claim { limit: 100, lease: LONG, models: None, tenants: None, start }).await.unwrap();
    assert_eq!(claimed.len(), 12);
    for Claimed { job, .. } in claimed {
        assert!(store.input(&job).await.unwrap().is_some());
        let mut status = job.status.clone();
        status.end(&End::Succeeded(json(10)), SystemTime::now(), store.now().after(LONG));
        let (id, number, revision) = (Arc::clone(&job.id), job.number, job.revision);
        let update = Update { id, number, revision, status, result: Some(json(10)) };
        assert_eq!(store.update(update, ROOMY).await.unwrap(), Change::Done);
        let ended = store.read(&job.id).await.unwrap().expect("the job exists");
        assert!(store.input(&ended).await.unwrap().is_none());
        assert!(store.result(&ended).await.unwrap().is_some());
    }
    store.close().await;
}

#[tokio::test]
async fn a_job_whose_claim_is_damaged_waits_again() {
    let disk = LossyDisk::new(1, usize::MAX);
    let open = async || {
        let store = DurableStore::start(Arc::new(disk.clone()), Handle::current()).unwrap();
        assert_eq!(store.opened().await, None);
        store
    };
    let claim = async |store: &DurableStore| {
        let start = AttemptStart { generation: 1, policy: "digest".into(), now: SystemTime::now() };
        store.claim(Claim { limit: 2, lease: LONG, models: None, tenants: None, start }).await.unwrap()
    };
    let store = open().await;
    let id = create(&store, 1, 200).await.unwrap().id;
    assert_eq!(claim(&store).await.len(), 1);
    store.close().await;
    let database = disk.open_database(&super::open::builder(), super::open::DATABASE).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut claims = transaction.open_table(super::tables::CLAIMS).unwrap();
        assert!(claims.insert(1, [1, 2, 3].as_slice()).unwrap().is_some());
    }
    transaction.commit().unwrap();
    drop(database);

    let store = open().await;
    assert_eq!(store.usage().damaged, 1);
    assert_eq!(store.read(&id).await.unwrap().expect("the job exists").status.state, State::Pending);
    let [Claimed { job, input }] = &claim(&store).await[..] else { panic!("one job waits") };
    assert_eq!((&job.id, job.fence, input.is_some()), (&id, 1, true));
    store.close().await;
    let store = open().await;
    assert_eq!(store.read(&id).await.unwrap().expect("the job exists").status.state, State::Running);
    store.close().await;
}

#[tokio::test]
async fn a_flipped_byte_is_never_read_as_other_data() {
    let disk = LossyDisk::new(1, usize::MAX);
    let before = filled(&disk).await;
    let mut names = disk.names().unwrap();
    names.retain(|name| name != super::open::DATABASE && name.contains('.'));
    let mut random = fastrand::Rng::with_seed(5);
    let (mut refused, mut reported, mut unharmed) = (0, 0, 0);
    for place in 0..200 {
        // Three of four in the database.
        let name = match place % 4 {
            0 => random.choice(&names).expect("a file of a payload"),
            _ => super::open::DATABASE,
        };
        let mut at = 0;
        let damaged = disk.with_change(name, |data| {
            at = random.usize(..data.len());
            data[at] ^= 1 << random.u8(0..8);
        });
        let what = format!("{name}, byte {at}");
        let store = DurableStore::start(Arc::new(damaged), Handle::current()).unwrap();
        match store.opened().await {
            Some(Fault::Damaged(why)) => {
                assert!(why.contains("jobs.redb"), "{what}: {why}");
                refused += 1;
            }
            Some(Fault::Unavailable(why)) => panic!("{what}: {why}"),
            None => {
                let mut is_told = store.usage().damaged > 0;
                for (id, text) in &before {
                    match described(&store, id).await {
                        Ok(Some(now)) => assert_eq!(&now, text, "{what}"),
                        Ok(None) => assert!(store.usage().damaged > 0, "{what}: {id} is gone silently"),
                        Err(error) => {
                            assert_eq!(error.kind(), Kind::Failed, "{what}: {error}");
                            is_told = true;
                        }
                    }
                }
                (reported, unharmed) =
                    if is_told { (reported + 1, unharmed) } else { (reported, unharmed + 1) };
            }
        }
        store.close().await;
    }
    let counts = format!("{refused} stores refused, {reported} reported a job, {unharmed} unharmed");
    assert!(refused > 20 && reported > 10, "{counts}");
}

/// Repeats a request until the store is open.
async fn once_open<T>(ask: impl AsyncFn() -> Result<T>) -> T {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) => assert!(Instant::now() < until, "the store does not open again: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_full_disk_refuses_changes_and_loses_nothing() {
    let disk = LossyDisk::new(1, usize::MAX);
    let store = DurableStore::start(Arc::new(disk.clone()), Handle::current()).unwrap();
    assert_eq!(store.opened().await, None);
    let (mut accepted, mut number) = (Vec::new(), 0);
    for bytes in [0, 5_000, 50_000, 100_000, 500_000] {
        disk.limit_to(bytes);
        // Payloads of both kinds: in the database, and in files.
        let refused = loop {
            let size = if number % 2 == 0 { 70_000 } else { 4_000 };
            match create(&store, number, size).await {
                Ok(job) => accepted.push((job.id, size)),
                Err(error) => break error,
            }
            number += 1;
        };
        assert_eq!(refused.kind(), Kind::Unavailable, "{refused}");
        let refused = refused.message().to_lowercase();
        assert!(refused.contains("no storage space") || refused.contains("storage full"), "{refused}");
        disk.unlimit();
        // The number that was refused was not acknowledged: it may be there or not.
        number += 1;
        for (id, bytes) in &accepted {
            let job = once_open(async || store.read(id).await).await.expect("it was acknowledged");
            assert_eq!(job.status.state, State::Pending);
            let input = once_open(async || store.input(&job).await).await.expect("its input");
            assert_eq!(input.bytes_kept(), *bytes);
        }
    }
    assert!(accepted.len() > 4, "{}", accepted.len());
    store.close().await;
}
