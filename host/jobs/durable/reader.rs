//! Reads what is committed.

use super::claim_record;
use super::fault::{Attempted, Fault};
use super::record;
use super::row::{self, RowPayloadKind};
use super::tables::{CLAIMS, INPUTS, JOBS, KEYS, NUMBERS, READ, RESULTS, STEPS, id_number, sized};
use crate::jobs::job::Job;
use crate::jobs::store::StoredKey;
use crate::predict::StepKey;
use redb::ReadTransaction;

/// What a reader sees: everything that was committed when it began.
pub(super) struct Reader(pub ReadTransaction);

impl Reader {
    pub fn find(&self, id: &str) -> Result<Option<Job>, Fault> {
        let Some(id) = id_number(id) else { return Ok(None) };
        let numbers = self.0.open_table(NUMBERS).attempted(READ)?;
        match numbers.get(id).attempted(READ)? {
            Some(number) => self.job(number.value()),
            None => Ok(None),
        }
    }

    /// Returns a job; `None` if there is none or its record is damaged.
    pub fn job(&self, number: u64) -> Result<Option<Job>, Fault> {
        Ok(self.jobs(&[number])?.pop())
    }

    pub fn key(&self, name: &str) -> Result<Option<StoredKey>, Fault> {
        let keys = self.0.open_table(KEYS).attempted(READ)?;
        let bytes = keys.get(name).attempted(READ)?;
        Ok(bytes.and_then(|bytes| record::decode_key(bytes.value()).ok()))
    }

    /// Returns jobs, without those whose records are damaged.
    pub fn jobs(&self, numbers: &[u64]) -> Result<Vec<Job>, Fault> {
        let jobs = self.0.open_table(JOBS).attempted(READ)?;
        let claims = self.0.open_table(CLAIMS).attempted(READ)?;
        let mut found = Vec::with_capacity(numbers.len());
        for number in numbers {
            let bytes = jobs.get(number).attempted(READ)?;
            let job = bytes.and_then(|bytes| row::decode_job(*number, bytes.value()).ok());
            let Some(mut job) = job else { continue };
            if claim_record::is_possible(&job)
                && let Some(claim) = claims.get(number).attempted(READ)?
                && claim_record::apply(&mut job, claim.value()).is_err()
            {
                continue;
            }
            found.push(job);
        }
        Ok(found)
    }

    /// Returns the payload in the row of a job, if it is of this kind.
    fn row_payload(&self, number: u64, kind: RowPayloadKind) -> Result<Option<Vec<u8>>, Fault> {
        let jobs = self.0.open_table(JOBS).attempted(READ)?;
        let bytes = jobs.get(number).attempted(READ)?;
        let payload = bytes.as_ref().and_then(|bytes| row::payload(bytes.value()));
        Ok(payload.filter(|(found, _)| *found == kind).map(|(_, stored)| stored.to_vec()))
    }

    /// Returns the stored form of an input.
    pub fn input(&self, number: u64) -> Result<Option<Vec<u8>>, Fault> {
        if let Some(stored) = self.row_payload(number, RowPayloadKind::Input)? {
            return Ok(Some(stored));
        }
        let table = self.0.open_table(INPUTS).attempted(READ)?;
        Ok(table.get(number).attempted(READ)?.map(|bytes| bytes.value().to_vec()))
    }

    /// Returns the stored form of a result.
    pub fn result(&self, number: u64) -> Result<Option<Vec<u8>>, Fault> {
        if let Some(stored) = self.row_payload(number, RowPayloadKind::Result)? {
            return Ok(Some(stored));
        }
        let table = self.0.open_table(RESULTS).attempted(READ)?;
        Ok(table.get(number).attempted(READ)?.map(|bytes| bytes.value().to_vec()))
    }

    /// Returns the stored form of the outputs of a step of this job.
    pub fn step(&self, id: &str, key: &StepKey) -> Result<Option<Vec<u8>>, Fault> {
        let Some(id) = id_number(id) else { return Ok(None) };
        let numbers = self.0.open_table(NUMBERS).attempted(READ)?;
        let Some(number) = numbers.get(id).attempted(READ)? else { return Ok(None) };
        let table = self.0.open_table(STEPS).attempted(READ)?;
        let value = table.get((number.value(), *key)).attempted(READ)?;
        Ok(value.and_then(|value| sized(value.value()).map(|(_, stored)| stored.to_vec())))
    }
}
