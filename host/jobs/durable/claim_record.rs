//! The record of a claim, which is apart from the row of its job.
//!
//! A claim only begins an attempt, so it is a small record in a table of its own. The row of a
//! claimed job says that the job is pending. The next change of the job writes the row and removes
//! the record.

use super::record::{self, StoredAttempt};
use crate::error::Result;
use crate::jobs::job::{Job, State};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct ClaimRecord {
    revision: u64,
    fence: u64,
    attempt: StoredAttempt,
}

/// Returns the record of the claim of a job, which has begun an attempt.
pub(super) fn encode(job: &Job) -> Vec<u8> {
    let attempt = job.status.attempts.last().expect("invariant: a claim begins an attempt");
    let attempt = record::stored_attempt(attempt);
    record::with_version(&ClaimRecord { revision: job.revision, fence: job.fence, attempt })
}

/// Returns whether a job that was read from its row may have a record of a claim.
pub(super) fn is_possible(job: &Job) -> bool {
    job.status.state == State::Pending
}

/// Changes a job as its claim has.
///
/// # Errors
/// `failed` if the record is damaged.
pub(super) fn apply(job: &mut Job, claim: &[u8]) -> Result<()> {
    let ClaimRecord { revision, fence, attempt } = record::without_version(claim)?;
    let attempt = record::attempt(attempt)?;
    job.revision = revision;
    job.fence = fence;
    let status = &mut job.status;
    status.state = State::Running;
    status.started_at.get_or_insert(attempt.started_at);
    status.steps.clear();
    status.attempts.push(attempt);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::examples::job;
    use crate::jobs::job::AttemptStart;
    use std::time::{Duration, SystemTime};

    #[test]
    fn a_claim_is_what_the_store_has_changed() {
        let mut job = Job { input_bytes: 3, ..job(7) };
        let mut read = job.clone();
        assert!(is_possible(&job));
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1500);
        job.revision += 1;
        job.fence += 1;
        job.status.begin(&AttemptStart { generation: 3, policy: "digest".into(), now });
        let claim = encode(&job);
        apply(&mut read, &claim).unwrap();
        assert_eq!(format!("{read:?}"), format!("{job:?}"));
        assert!(!is_possible(&read));
        assert!(apply(&mut read, &claim[..claim.len() - 1]).is_err());
    }
}
