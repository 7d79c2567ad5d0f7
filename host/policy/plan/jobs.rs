//! `[jobs]`: what background work may take. Live: a reload changes it for jobs to come.

use super::Planner;
use super::bounds::{CALLS_MAX, MS_MAX};
use crate::policy::manifest;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobsPlan {
    /// Jobs kept at once, ended ones included.
    pub capacity: usize,
    /// Inputs, results and what else jobs take.
    pub store_bytes: usize,
    /// Jobs that may have an attempt at once.
    pub concurrency: usize,
    /// Time for which an ended job is kept.
    pub result_ttl: Duration,
    /// The most that a caller may ask for; without asking it is 1.
    pub max_attempts: u32,
    /// From submission to the end, where the caller does not say.
    pub total_runtime: Duration,
    pub max_total_runtime: Duration,
}

impl JobsPlan {
    pub fn entries(&self) -> [(&'static str, String); 7] {
        [
            ("capacity", self.capacity.to_string()),
            ("store_mb", (self.store_bytes >> 20).to_string()),
            ("concurrency", self.concurrency.to_string()),
            ("result_ttl_s", self.result_ttl.as_secs().to_string()),
            ("max_attempts", self.max_attempts.to_string()),
            ("total_runtime_ms", self.total_runtime.as_millis().to_string()),
            ("max_total_runtime_ms", self.max_total_runtime.as_millis().to_string()),
        ]
    }
}

impl Planner<'_> {
    pub(super) fn jobs(&mut self, table: &manifest::Jobs) -> JobsPlan {
        const TABLE: &str = "[jobs] ";
        // A day: longer work wants a store that outlives the process.
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
            // Under the queue of an executor, so that jobs leave room for requests.
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
