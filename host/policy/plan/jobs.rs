//! Checks `[jobs]`.

use super::bounds::CALLS_MAX;
use super::jobs_plan::JobsPlan;
use super::planner::Planner;
use crate::policy::manifest;
use crate::policy::milliseconds::MS_MAX;
use std::time::Duration;

impl Planner<'_> {
    pub(super) fn jobs(&mut self, table: &manifest::Jobs) -> JobsPlan {
        const TABLE: &str = "[jobs] ";
        // A day. Longer jobs need a store that outlives the process.
        let longest = self.ms(TABLE, "max_total_runtime_ms", table.max_total_runtime_ms.as_ref());
        let longest = longest.unwrap_or(Duration::from_secs(86_400));
        let total_runtime = self.ms(TABLE, "total_runtime_ms", table.total_runtime_ms.as_ref());
        if let (Some(total), Some(written)) = (total_runtime, &table.total_runtime_ms)
            && total > longest
        {
            let ms = total.as_millis();
            let message = format!("[jobs] total_runtime_ms is {ms}, over max_total_runtime_ms");
            self.hinted(written.span(), message, format!("at most {}", longest.as_millis()));
        }
        let (result_ttl, store) = (table.result_ttl_s.as_ref(), table.store_mb.as_ref());
        let (capacity, concurrency) = (table.capacity.as_ref(), table.concurrency.as_ref());
        let attempts = table.max_attempts.as_ref();
        JobsPlan {
            capacity: self.number(TABLE, "capacity", capacity, 1000, 1..=1_000_000),
            store_bytes: self.number(TABLE, "store_mb", store, 256, 1..=1 << 20) << 20,
            // Less than the queue of an executor, so that jobs leave room for requests.
            concurrency: self.number(TABLE, "concurrency", concurrency, 64, 1..=CALLS_MAX),
            result_ttl: Duration::from_secs(self.number(
                TABLE,
                "result_ttl_s",
                result_ttl,
                600,
                1..=MS_MAX / 1000,
            )),
            max_attempts: self.number(TABLE, "max_attempts", attempts, 10, 1..=1000),
            total_runtime: total_runtime.unwrap_or(Duration::from_secs(600)).min(longest),
            max_total_runtime: longest,
        }
    }
}
