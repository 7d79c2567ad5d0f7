//! Checks `max_batch_size` and `max_queue_delay_us` of a model.

use super::planner::Planner;
use crate::executor::Batching;
use crate::policy::manifest::Model;
use std::time::Duration;

/// No run gains from more rows than this.
const SIZE_MAX: usize = 1024;

/// A longer delay costs more than a larger batch can gain.
const DELAY_US_MAX: u64 = 1_000_000;

impl Planner<'_> {
    /// Returns `None` if the model runs one call at a time.
    pub(super) fn batching(&mut self, what: &str, table: &Model) -> Option<Batching> {
        let size = table.max_batch_size.as_ref();
        let max_size = size.map_or(1, |size| *size.get_ref());
        if let Some(size) = size.filter(|_| !(1..=SIZE_MAX).contains(&max_size)) {
            let message = format!("{what}: max_batch_size is {max_size}; it must be from 1 to {SIZE_MAX}");
            self.hinted(size.span(), message, "1 runs each request alone");
            return None;
        }
        let delay = table.max_queue_delay_us.as_ref();
        let delay_us = delay.map_or(0, |delay| *delay.get_ref());
        if let Some(delay) = delay {
            let timeout_us = table.timeout_ms.as_ref().map(|ms| ms.get_ref().saturating_mul(1000));
            if max_size == 1 && delay_us > 0 {
                let message = format!("{what}: max_queue_delay_us does nothing without max_batch_size");
                self.hinted(delay.span(), message, "add max_batch_size, such as max_batch_size = 32");
            } else if delay_us > DELAY_US_MAX {
                let message = format!(
                    "{what}: max_queue_delay_us is {delay_us}; it must be at most {DELAY_US_MAX}, a second"
                );
                self.fault(delay.span(), message);
            } else if delay_us > 0 && timeout_us.is_some_and(|timeout_us| delay_us >= timeout_us) {
                let message = format!("{what}: max_queue_delay_us is as long as the model's timeout_ms");
                self.hinted(delay.span(), message, "a request that waits alone would never be served");
            }
        }
        (max_size > 1).then(|| Batching { max_size, max_delay: Duration::from_micros(delay_us) })
    }
}
