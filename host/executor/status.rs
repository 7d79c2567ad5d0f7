//! The current load of an executor.

/// The current load of an executor.
#[derive(Clone, Copy, Debug)]
pub struct Status {
    pub workers: usize,
    pub busy: usize,
    /// Calls that were admitted and have not ended.
    pub inflight: usize,
    /// Busy workers whose call is past its deadline by more than 10 ms (`OVERDUE_AFTER`).
    pub overdue: usize,
    /// New admissions in the queue. A batch is one.
    pub queue_length: usize,
    pub queue_capacity: usize,
}
