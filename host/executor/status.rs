//! What an executor is doing now.

/// What an executor is doing now.
#[derive(Clone, Copy, Debug)]
pub struct Status {
    pub workers: usize,
    pub busy: usize,
    /// Calls admitted and not ended.
    pub inflight: usize,
    /// Busy workers whose call is past its deadline.
    pub overdue: usize,
    /// Admissions that wait. A batch is one.
    pub queue_length: usize,
    pub queue_capacity: usize,
}
