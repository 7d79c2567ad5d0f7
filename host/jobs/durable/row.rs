//! Rows of the table of jobs: the record of a job, and its small payload, so that one change of one
//! table has both.
//!
//! A row without a payload is the record alone, whose first byte is 1. Otherwise, it begins with 2,
//! what the payload is, and the length of the record in 4 little-endian bytes.

use super::payloads::Prepared;
use super::record;
use crate::error::Result;
use crate::jobs::job::{Job, State};
use bytes::Bytes;

/// The first byte of a row with a payload.
const WITH_PAYLOAD: u8 = 2;

/// The bytes before the record in a row with a payload.
const HEAD_BYTES: usize = 6;

/// Larger payloads have a table of their own: pages of jobs that are listed should not be full of
/// them.
const PAYLOAD_BYTES_MAX: usize = 1 << 10;

/// What the payload of a row is. A job that has succeeded has a result, every other one an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowPayloadKind {
    Input = 1,
    Result = 2,
}

/// The stored form of a small payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RowPayload {
    pub kind: RowPayloadKind,
    pub stored: Bytes,
}

impl RowPayload {
    /// Returns the payload for a row; `None` if it is too large for one, or in a file.
    pub fn new(kind: RowPayloadKind, payload: &Prepared) -> Option<Self> {
        let fits = payload.is_inline() && payload.stored().len() <= PAYLOAD_BYTES_MAX;
        fits.then(|| RowPayload { kind, stored: payload.shared() })
    }

    /// Copies what was read from a row.
    pub fn copied((kind, stored): (RowPayloadKind, &[u8])) -> Self {
        RowPayload { kind, stored: Bytes::copy_from_slice(stored) }
    }

    /// Returns whether a job in this state still has the payload. `keeps_input` is whether it has
    /// its input.
    pub fn is_kept(&self, state: State, keeps_input: bool) -> bool {
        match self.kind {
            RowPayloadKind::Input => keeps_input,
            RowPayloadKind::Result => state == State::Succeeded,
        }
    }
}

pub(super) fn encode(job: &Job, payload: Option<&RowPayload>) -> Vec<u8> {
    let record = record::encode_job(job);
    let Some(RowPayload { kind, stored }) = payload else { return record };
    let mut row = Vec::with_capacity(HEAD_BYTES + record.len() + stored.len());
    row.extend_from_slice(&[WITH_PAYLOAD, *kind as u8]);
    row.extend_from_slice(&(record.len() as u32).to_le_bytes());
    row.extend_from_slice(&record);
    row.extend_from_slice(stored);
    row
}

/// # Errors
/// `failed` if the row is damaged.
pub(super) fn decode_job(number: u64, row: &[u8]) -> Result<Job> {
    let row = Row::split(row).ok_or_else(record::damaged)?;
    record::decode_job(number, row.record)
}

/// Returns the payload of a row; `None` if it has none.
pub(super) fn payload(row: &[u8]) -> Option<(RowPayloadKind, &[u8])> {
    Row::split(row)?.payload
}

/// The parts of a row.
pub(super) struct Row<'a> {
    pub record: &'a [u8],
    pub payload: Option<(RowPayloadKind, &'a [u8])>,
}

impl<'a> Row<'a> {
    /// Returns `None` if the row is damaged.
    pub fn split(row: &'a [u8]) -> Option<Self> {
        if row.first() != Some(&WITH_PAYLOAD) {
            return Some(Row { record: row, payload: None });
        }
        let (head, rest) = row.split_first_chunk::<HEAD_BYTES>()?;
        let kind = match head[1] {
            1 => RowPayloadKind::Input,
            2 => RowPayloadKind::Result,
            _ => return None,
        };
        let length = u32::from_le_bytes([head[2], head[3], head[4], head[5]]) as usize;
        let (record, stored) = rest.split_at_checked(length)?;
        Some(Row { record, payload: Some((kind, stored)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::examples::job;
    use crate::predict::{JsonText, Payload};

    fn prepared(bytes: usize) -> Prepared {
        let text = format!("\"{}\"", "a".repeat(bytes));
        Prepared::small(&Payload::Json(JsonText::parse(text.into()).unwrap())).unwrap()
    }

    #[test]
    fn a_row_has_the_record_and_its_payload() {
        let job = job(7);
        let small = prepared(100);
        let input = RowPayload::new(RowPayloadKind::Input, &small).unwrap();
        let row = encode(&job, Some(&input));
        assert_eq!(format!("{:?}", decode_job(7, &row).unwrap()), format!("{job:?}"));
        assert_eq!(payload(&row), Some((RowPayloadKind::Input, small.stored())));

        let alone = encode(&job, None);
        assert_eq!(alone, record::encode_job(&job), "as stores of the first schema have it");
        assert_eq!(payload(&alone), None);
        assert!(decode_job(7, &alone).is_ok());
        assert!(RowPayload::new(RowPayloadKind::Result, &prepared(2000)).is_none());
    }

    #[test]
    fn damaged_rows_are_refused() {
        let input = RowPayload::new(RowPayloadKind::Input, &prepared(10)).unwrap();
        let row = encode(&job(7), Some(&input));
        for length in 0..HEAD_BYTES + 100 {
            assert!(decode_job(7, &row[..length]).is_err(), "{length}");
        }
        let mut other = row;
        other[1] = 9;
        assert!(decode_job(7, &other).is_err());
    }

    #[test]
    fn an_input_goes_with_the_success_and_a_result_stays() {
        let of = |kind| RowPayload::new(kind, &prepared(1)).unwrap();
        assert!(of(RowPayloadKind::Input).is_kept(State::Running, true));
        assert!(!of(RowPayloadKind::Input).is_kept(State::Succeeded, false));
        assert!(of(RowPayloadKind::Result).is_kept(State::Succeeded, false));
    }
}
