//! The records of the latest reloads.

use crate::policy::record::{RECORDS_MAX, Record, ReloadOutcome};
use std::collections::VecDeque;
use std::sync::Arc;

/// Bytes of text that all records may have together.
const BYTES_MAX: usize = 4 << 20;

/// The records of the latest reloads, bounded in number and in bytes.
#[derive(Default)]
pub(super) struct Records {
    /// The oldest first.
    kept: VecDeque<Arc<Record>>,
    bytes: usize,
}

impl Records {
    /// Keeps a record. It replaces the one before if it only says the same again: an attempt that
    /// is repeated after a transient fault, or files that have not changed.
    pub fn push(&mut self, record: Record) {
        if self.kept.back().is_some_and(|last| is_repeated(last, &record)) {
            self.pop(VecDeque::pop_back);
        }
        self.bytes += text_bytes(&record);
        self.kept.push_back(Arc::new(record));
        while self.kept.len() > RECORDS_MAX || (self.bytes > BYTES_MAX && self.kept.len() > 1) {
            self.pop(VecDeque::pop_front);
        }
    }

    fn pop(&mut self, from: fn(&mut VecDeque<Arc<Record>>) -> Option<Arc<Record>>) {
        self.bytes -= from(&mut self.kept).map_or(0, |record| text_bytes(&record));
    }

    /// Returns the latest records, the newest first.
    pub fn latest(&self, limit: usize) -> Vec<Arc<Record>> {
        self.kept.iter().rev().take(limit).cloned().collect()
    }
}

fn is_repeated(last: &Record, record: &Record) -> bool {
    let is_unchanged = |record: &Record| record.outcome == ReloadOutcome::Unchanged;
    let same = last.outcome == record.outcome
        && last.generation == record.generation
        && last.trigger == record.trigger
        && last.errors == record.errors
        && last.warnings == record.warnings;
    same && (record.failures > 1 || is_unchanged(record))
}

fn text_bytes(record: &Record) -> usize {
    let Record { changes, errors, warnings, .. } = record;
    changes.iter().chain(errors).chain(warnings).map(String::len).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::record::Trigger;

    fn record(outcome: ReloadOutcome, generation: u64, failures: u32, error: &str) -> Record {
        let errors = vec![error.to_owned()];
        Record { outcome, generation, errors, failures, ..Record::new(Trigger::Watch) }
    }

    #[test]
    fn records_are_bounded_and_repetitions_are_one() {
        let mut records = Records::default();
        for generation in 0..300 {
            records.push(record(ReloadOutcome::Applied, generation, 0, ""));
        }
        let latest = records.latest(usize::MAX);
        assert_eq!((latest.len(), latest[0].generation), (RECORDS_MAX, 299));
        assert_eq!(records.latest(3).len(), 3);
        for failures in 1..50 {
            records.push(record(ReloadOutcome::Rejected, 299, failures, "no descriptors"));
            records.push(record(ReloadOutcome::Rejected, 299, failures + 1, "no descriptors"));
        }
        (0..50).for_each(|_| records.push(record(ReloadOutcome::Unchanged, 299, 0, "")));
        let latest = records.latest(3);
        let outcomes: Vec<_> = latest.iter().map(|record| (record.outcome, record.generation)).collect();
        assert_eq!(outcomes[0], (ReloadOutcome::Unchanged, 299));
        assert_eq!(outcomes[1], (ReloadOutcome::Rejected, 299));
        assert_eq!(latest[1].failures, 50);
        records.push(record(ReloadOutcome::Applied, 300, 0, &"x".repeat(2 * BYTES_MAX)));
        assert_eq!(records.latest(usize::MAX).len(), 1);
        assert_eq!(records.bytes, 2 * BYTES_MAX);
    }
}
