//! The tables of the database, and the records of one transaction.

use super::cache::JobCache;
use super::claim_record;
use super::delivery_record::{decode_delivery, encode_delivery};
use super::fault::{Attempted, Fault};
use super::payloads::{FileReference, Prepared, Slot};
use super::record;
use super::row::{self, RowPayload, RowPayloadKind};
use crate::error::{Error, Result};
use crate::jobs::job::Job;
use crate::jobs::store::{Index, Records, StoredKey};
use crate::jobs::store_time::StoreTime;
use crate::jobs::webhooks::Delivery;
use crate::predict::StepKey;
use rayon::prelude::*;
use redb::{ReadableTable, Table, TableDefinition, WriteTransaction};
use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
pub(super) const JOBS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("jobs");
pub(super) const NUMBERS: TableDefinition<'_, u128, u64> = TableDefinition::new("numbers");
pub(super) const INPUTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("inputs");
pub(super) const RESULTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("results");
/// The outputs of steps, by the number of their job and the key of the step.
pub(super) const STEPS: TableDefinition<'_, (u64, StepKey), &[u8]> = TableDefinition::new("steps");
pub(super) const KEYS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("keys");
/// Claims that the rows of their jobs do not show yet, by the number of the job.
pub(super) const CLAIMS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("claims");
/// By the number of their job.
const DELIVERIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("deliveries");
/// Records that could not be read, by the number of their job.
const DAMAGED: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("damaged");
const DAMAGED_DELIVERIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("damaged_deliveries");

/// The version of the tables. A store of a later version is not touched; one of the first version,
/// whose rows have no payloads, becomes one of this version when it is opened.
pub(super) const SCHEMA: u64 = 2;
pub(super) const FIRST_SCHEMA: u64 = 1;

pub(super) const SCHEMA_KEY: &str = "schema";

/// The time of the store at its latest change.
pub(super) const CLOCK_KEY: &str = "clock_ms";

/// The open tables of a transaction.
pub(super) struct Tables<'a> {
    meta: Table<'a, &'static str, u64>,
    jobs: Table<'a, u64, &'static [u8]>,
    numbers: Table<'a, u128, u64>,
    inputs: Table<'a, u64, &'static [u8]>,
    results: Table<'a, u64, &'static [u8]>,
    steps: Table<'a, (u64, StepKey), &'static [u8]>,
    keys: Table<'a, &'static str, &'static [u8]>,
    claims: Table<'a, u64, &'static [u8]>,
    deliveries: Table<'a, u64, &'static [u8]>,
    damaged: Table<'a, u64, &'static [u8]>,
    damaged_deliveries: Table<'a, u64, &'static [u8]>,
    cache: &'a mut JobCache,
    /// The time of the store at the latest operation.
    pub now: StoreTime,
    /// Files that nothing refers to once the transaction is committed.
    pub unused: Vec<FileReference>,
    /// The jobs that have changed.
    pub changed: Vec<Arc<str>>,
}

impl<'a> Tables<'a> {
    pub fn open(transaction: &'a WriteTransaction, cache: &'a mut JobCache) -> Result<Self, Fault> {
        const WHAT: &str = "cannot open the tables";
        Ok(Tables {
            meta: transaction.open_table(META).attempted(WHAT)?,
            jobs: transaction.open_table(JOBS).attempted(WHAT)?,
            numbers: transaction.open_table(NUMBERS).attempted(WHAT)?,
            inputs: transaction.open_table(INPUTS).attempted(WHAT)?,
            results: transaction.open_table(RESULTS).attempted(WHAT)?,
            steps: transaction.open_table(STEPS).attempted(WHAT)?,
            keys: transaction.open_table(KEYS).attempted(WHAT)?,
            claims: transaction.open_table(CLAIMS).attempted(WHAT)?,
            deliveries: transaction.open_table(DELIVERIES).attempted(WHAT)?,
            damaged: transaction.open_table(DAMAGED).attempted(WHAT)?,
            damaged_deliveries: transaction.open_table(DAMAGED_DELIVERIES).attempted(WHAT)?,
            cache,
            now: StoreTime::default(),
            unused: Vec::new(),
            changed: Vec::new(),
        })
    }

    pub fn set_meta(&mut self, key: &'static str, value: u64) -> Result<(), Fault> {
        self.meta.insert(key, value).attempted(WRITE).map(drop)
    }

    /// Fills the index. Moves records that cannot be read to a table of their own, and returns how
    /// many there were.
    pub fn load(&mut self, index: &mut Index) -> Result<usize, Fault> {
        let mut claims = HashMap::new();
        for entry in self.claims.iter().attempted(READ)? {
            let (number, claim) = entry.attempted(READ)?;
            claims.insert(number.value(), claim.value().to_vec());
        }
        let (mut damaged, mut lost_claims) = (Vec::new(), Vec::new());
        let mut records = self.jobs.iter().attempted(READ)?;
        loop {
            let next = records.by_ref().take(LOADED_AT_ONCE).map(|entry| {
                let (number, bytes) = entry.attempted(READ)?;
                Ok((number.value(), bytes.value().to_vec()))
            });
            let next: Vec<(u64, Vec<u8>)> = next.collect::<Result<_, Fault>>()?;
            if next.is_empty() {
                break;
            }
            // Decoding takes most of the time of a start.
            let decode = |(number, bytes): &(u64, Vec<u8>)| row::decode_job(*number, bytes);
            let decoded: Vec<Result<Job>> = next.par_iter().map(decode).collect();
            for (record, job) in next.into_iter().zip(decoded) {
                let claimed = job.map(|mut job| {
                    let claim = claims.get(&job.number).filter(|_| claim_record::is_possible(&job));
                    // Without its claim, the job is pending as before.
                    if claim.is_some_and(|claim| claim_record::apply(&mut job, claim).is_err()) {
                        lost_claims.push(job.number);
                    }
                    job
                });
                match claimed {
                    Ok(job) => index.put(&job),
                    Err(_) => damaged.push(record),
                }
            }
        }
        drop(records);
        for number in &lost_claims {
            self.claims.remove(number).attempted(WRITE)?;
        }
        for (number, bytes) in &damaged {
            self.damaged.insert(number, bytes.as_slice()).attempted(WRITE)?;
            self.jobs.remove(number).attempted(WRITE)?;
            self.claims.remove(number).attempted(WRITE)?;
        }
        // Their numbers still have other rows.
        if let Some((number, _)) = self.damaged.last().attempted(READ)? {
            index.reserve(number.value());
        }
        for entry in self.keys.iter().attempted(READ)? {
            let (name, bytes) = entry.attempted(READ)?;
            if let Ok(key) = record::decode_key(bytes.value()) {
                index.put_key(&name.value().into(), key.expires, key.bytes(name.value()));
            }
        }
        Ok(damaged.len() + lost_claims.len() + self.load_deliveries(index)?)
    }

    fn load_deliveries(&mut self, index: &mut Index) -> Result<usize, Fault> {
        let mut damaged = Vec::new();
        for entry in self.deliveries.iter().attempted(READ)? {
            let (number, bytes) = entry.attempted(READ)?;
            match decode_delivery(number.value(), bytes.value()) {
                Ok(delivery) => index.put_delivery(&delivery),
                Err(_) => damaged.push((number.value(), bytes.value().to_vec())),
            }
        }
        for (number, bytes) in &damaged {
            self.damaged_deliveries.insert(number, bytes.as_slice()).attempted(WRITE)?;
            self.deliveries.remove(number).attempted(WRITE)?;
        }
        Ok(damaged.len())
    }

    /// Returns whether a job refers to this file.
    pub fn refers_to(&self, id: &str, slot: Slot, name: &str) -> Result<bool, Fault> {
        let Some(id) = id_number(id) else { return Ok(false) };
        let Some(number) = self.numbers.get(id).attempted(READ)?.map(|number| number.value()) else {
            return Ok(false);
        };
        let table = match slot {
            Slot::Input => &self.inputs,
            Slot::Result => &self.results,
            Slot::Steps => return Ok(false),
        };
        let stored = table.get(number).attempted(READ)?;
        Ok(stored.and_then(|bytes| Prepared::file_of(bytes.value())).is_some_and(|file| file.name == name))
    }

    /// Returns the files of the outputs of steps.
    pub fn step_files(&self) -> Result<HashSet<String>, Fault> {
        let mut names = HashSet::new();
        for entry in self.steps.iter().attempted(READ)? {
            let (_, value) = entry.attempted(READ)?;
            let file = sized(value.value()).and_then(|(_, stored)| Prepared::file_of(stored));
            names.extend(file.map(|file| file.name));
        }
        Ok(names)
    }

    /// Returns the payload in the row of a job.
    fn row_payload(&self, number: u64) -> Result<Option<RowPayload>, Fault> {
        if let Some(payload) = self.cache.payload(number) {
            return Ok(payload);
        }
        let bytes = self.jobs.get(number).attempted(READ)?;
        let payload = bytes.as_ref().and_then(|bytes| row::payload(bytes.value()));
        Ok(payload.map(RowPayload::copied))
    }

    fn drop_payload(
        table: &mut Table<'a, u64, &'static [u8]>,
        number: u64,
        unused: &mut Vec<FileReference>,
    ) -> Result<(), Fault> {
        if let Some(bytes) = table.remove(number).attempted(WRITE)? {
            unused.extend(Prepared::file_of(bytes.value()));
        }
        Ok(())
    }
}

/// Records that are decoded together when a store is opened.
const LOADED_AT_ONCE: usize = 1024;

pub(super) const READ: &str = "cannot read";
const WRITE: &str = "cannot write";

impl Records for Tables<'_> {
    type Payload = Prepared;

    const KEEPS_INPUTS: bool = true;

    fn bytes(payload: &Prepared) -> usize {
        payload.bytes
    }

    fn number(&self, id: &str) -> Result<Option<u64>> {
        let Some(id) = id_number(id) else { return Ok(None) };
        let number = self.numbers.get(id).attempted(READ).map_err(|fault| fault.error())?;
        Ok(number.map(|number| number.value()))
    }

    fn job(&self, number: u64) -> Result<Option<Job>> {
        if let Some(job) = self.cache.get(number) {
            return Ok(Some(job.clone()));
        }
        let bytes = self.jobs.get(number).attempted(READ).map_err(|fault| fault.error())?;
        let job = bytes.map(|bytes| row::decode_job(number, bytes.value())).transpose()?;
        let Some(mut job) = job else { return Ok(None) };
        if claim_record::is_possible(&job)
            && let Some(claim) = self.claims.get(number).attempted(READ).map_err(|fault| fault.error())?
        {
            claim_record::apply(&mut job, claim.value())?;
        }
        Ok(Some(job))
    }

    fn job_to_claim(&mut self, number: u64) -> Result<Option<Job>> {
        if self.cache.get(number).is_none() {
            // One look at the row is enough for the job and its payload.
            let row = self.jobs.get(number).attempted(READ).map_err(|fault| fault.error())?;
            if let Some(row) = row {
                let job = row::decode_job(number, row.value())?;
                let payload = row::payload(row.value()).map(RowPayload::copied);
                self.cache.put_next(job, payload);
            }
        }
        self.job(number)
    }

    fn input_at_hand(&self, number: u64) -> Result<Option<Prepared>> {
        let payload = self.row_payload(number).map_err(|fault| fault.error())?;
        if let Some(input) = payload.filter(|payload| payload.kind == RowPayloadKind::Input) {
            return Ok(Prepared::inline(&input.stored));
        }
        let bytes = self.inputs.get(number).attempted(READ).map_err(|fault| fault.error())?;
        Ok(bytes.and_then(|bytes| Prepared::inline(bytes.value())))
    }

    fn insert(&mut self, job: &Job, input: &Prepared) -> Result<()> {
        let payload = RowPayload::new(RowPayloadKind::Input, input);
        let row = row::encode(job, payload.as_ref());
        let is_in_row = payload.is_some();
        self.cache.put(job, payload, self.now);
        let id = id_number(&job.id)
            .ok_or_else(|| Error::failed("the id of a job is not 32 hexadecimal digits"))?;
        self.changed.push(Arc::clone(&job.id));
        let mut insert = || {
            self.jobs.insert(job.number, row.as_slice()).attempted(WRITE)?;
            self.numbers.insert(id, job.number).attempted(WRITE)?;
            if !is_in_row {
                self.inputs.insert(job.number, input.stored()).attempted(WRITE)?;
            }
            Ok(())
        };
        insert().map_err(|fault: Fault| fault.error())
    }

    fn claim(&mut self, job: &Job) -> Result<()> {
        self.changed.push(Arc::clone(&job.id));
        let mut claim = || {
            let payload = self.row_payload(job.number)?;
            self.claims.insert(job.number, claim_record::encode(job).as_slice()).attempted(WRITE)?;
            self.cache.put(job, payload, self.now);
            Ok(())
        };
        claim().map_err(|fault: Fault| fault.error())
    }

    fn replace(&mut self, job: &Job, result: Option<&Prepared>) -> Result<()> {
        self.changed.push(Arc::clone(&job.id));
        let (state, keeps_input) = (job.status.state, Self::keeps_input(job.status.state));
        let mut replace = || {
            let before = self.row_payload(job.number)?;
            let had_input = before.as_ref().is_some_and(|payload| payload.kind == RowPayloadKind::Input);
            let kept = before.filter(|payload| payload.is_kept(state, keeps_input));
            let new = result.and_then(|result| RowPayload::new(RowPayloadKind::Result, result));
            let is_in_row = new.is_some();
            let payload = new.or(kept);
            self.jobs.insert(job.number, row::encode(job, payload.as_ref()).as_slice()).attempted(WRITE)?;
            self.claims.remove(job.number).attempted(WRITE)?;
            self.cache.put(job, payload, self.now);
            if !keeps_input && !had_input {
                Self::drop_payload(&mut self.inputs, job.number, &mut self.unused)?;
            }
            if let Some(result) = result.filter(|_| !is_in_row) {
                self.results.insert(job.number, result.stored()).attempted(WRITE)?;
            }
            Ok(())
        };
        replace().map_err(|fault: Fault| fault.error())
    }

    fn remove(&mut self, job: &Job) -> Result<()> {
        self.cache.remove(job.number);
        self.changed.push(Arc::clone(&job.id));
        let id = id_number(&job.id);
        let mut remove = || {
            self.jobs.remove(job.number).attempted(WRITE)?;
            self.claims.remove(job.number).attempted(WRITE)?;
            if let Some(id) = id {
                self.numbers.remove(id).attempted(WRITE)?;
            }
            Self::drop_payload(&mut self.inputs, job.number, &mut self.unused)?;
            Self::drop_payload(&mut self.results, job.number, &mut self.unused)
        };
        remove().map_err(|fault: Fault| fault.error())
    }

    fn insert_step(&mut self, number: u64, key: &StepKey, outputs: &Prepared) -> Result<Option<usize>> {
        let value = [&(outputs.bytes as u64).to_le_bytes(), outputs.stored()].concat();
        let before = self.steps.insert((number, *key), value.as_slice()).attempted(WRITE);
        let before = before.map_err(|fault| fault.error())?;
        let Some((bytes, stored)) = before.as_ref().and_then(|before| sized(before.value())) else {
            return Ok(None);
        };
        self.unused.extend(Prepared::file_of(stored));
        Ok(Some(bytes))
    }

    fn remove_steps(&mut self, number: u64) -> Result<()> {
        let unused = &mut self.unused;
        let removed = self.steps.retain_in(steps_of(number), |_, value| {
            unused.extend(sized(value).and_then(|(_, stored)| Prepared::file_of(stored)));
            false
        });
        removed.attempted(WRITE).map_err(|fault| fault.error())
    }

    fn key(&self, name: &str) -> Result<Option<StoredKey>> {
        let bytes = self.keys.get(name).attempted(READ).map_err(|fault| fault.error())?;
        bytes.map(|bytes| record::decode_key(bytes.value())).transpose()
    }

    fn insert_key(&mut self, name: &Arc<str>, key: StoredKey) -> Result<()> {
        let inserted =
            self.keys.insert(&**name, record::encode_key(&key).as_slice()).attempted(WRITE).map(drop);
        inserted.map_err(|fault| fault.error())
    }

    fn remove_key(&mut self, name: &str) -> Result<()> {
        self.keys.remove(name).attempted(WRITE).map(drop).map_err(|fault| fault.error())
    }

    fn delivery(&self, number: u64) -> Result<Option<Delivery>> {
        let bytes = self.deliveries.get(number).attempted(READ).map_err(|fault| fault.error())?;
        bytes.map(|bytes| decode_delivery(number, bytes.value())).transpose()
    }

    fn put_delivery(&mut self, delivery: &Delivery) -> Result<()> {
        let record = encode_delivery(delivery);
        let inserted = self.deliveries.insert(delivery.number, record.as_slice()).attempted(WRITE).map(drop);
        inserted.map_err(|fault| fault.error())
    }

    fn remove_delivery(&mut self, number: u64) -> Result<()> {
        self.deliveries.remove(number).attempted(WRITE).map(drop).map_err(|fault| fault.error())
    }
}

/// Returns the bytes that count of the outputs of a step, and their stored form.
pub(super) fn sized(value: &[u8]) -> Option<(usize, &[u8])> {
    let (bytes, stored) = value.split_first_chunk::<8>()?;
    Some((usize::try_from(u64::from_le_bytes(*bytes)).ok()?, stored))
}

/// Returns the range of the steps of a job.
fn steps_of(number: u64) -> RangeInclusive<(u64, StepKey)> {
    (number, [0; 32])..=(number, [u8::MAX; 32])
}

/// Ids of jobs are 128 bits in hexadecimal digits.
pub(super) fn id_number(id: &str) -> Option<u128> {
    let is_id = id.len() == 32 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_id.then(|| u128::from_str_radix(id, 16).ok()).flatten()
}
