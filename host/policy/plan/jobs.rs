//! `[jobs]`: what background work may take. Live: a reload changes it for jobs to come.

use super::Planner;
use crate::policy::manifest::{self, Spanned};
use crate::policy::settings::milliseconds;
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
        let total_runtime_ms = self.positive("total_runtime_ms", table.total_runtime_ms.as_ref());
        // A day: longer work wants a store that outlives the process.
        let longest_ms = self.positive("max_total_runtime_ms", table.max_total_runtime_ms.as_ref());
        let longest = milliseconds(longest_ms.unwrap_or(86_400_000));
        if let (Some(ms), Some(written)) = (total_runtime_ms, &table.total_runtime_ms)
            && milliseconds(ms) > longest
        {
            let message = format!("[jobs] total_runtime_ms is {ms}, over max_total_runtime_ms");
            self.hinted(written.span(), message, format!("at most {}", longest.as_millis()));
        }
        let result_ttl_s = self.positive("result_ttl_s", table.result_ttl_s.as_ref()).unwrap_or(600);
        let store_mb = self.positive("store_mb", table.store_mb.as_ref()).unwrap_or(256);
        JobsPlan {
            capacity: self.positive("capacity", table.capacity.as_ref()).unwrap_or(1000),
            store_bytes: store_mb.saturating_mul(1 << 20),
            // Under the queue of an executor, so that jobs leave room for requests.
            concurrency: self.positive("concurrency", table.concurrency.as_ref()).unwrap_or(64),
            result_ttl: milliseconds(result_ttl_s.saturating_mul(1000)),
            max_attempts: self.positive("max_attempts", table.max_attempts.as_ref()).unwrap_or(10),
            total_runtime: milliseconds(total_runtime_ms.unwrap_or(600_000)).min(longest),
            max_total_runtime: longest,
        }
    }

    fn positive<N: Copy + Default + PartialEq>(
        &mut self,
        key: &str,
        value: Option<&Spanned<N>>,
    ) -> Option<N> {
        let value = value?;
        if *value.get_ref() == N::default() {
            self.fault(value.span(), format!("[jobs] {key} must be at least 1"));
            return None;
        }
        Some(*value.get_ref())
    }
}
