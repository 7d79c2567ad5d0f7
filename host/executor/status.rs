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

impl Status {
    /// Returns the part of workers and queue slots that is in use: 1 if new work is refused.
    pub fn saturation(&self) -> f64 {
        let slots = self.workers + self.queue_capacity;
        if slots == 0 { 0.0 } else { (self.busy + self.queue_length) as f64 / slots as f64 }
    }
}
