//! Limits of background jobs. A reload changes them for jobs to come.

use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobsPlan {
    /// Jobs that are kept at once, including ended ones.
    pub capacity: usize,
    /// Memory of inputs, results and everything else that belongs to jobs.
    pub store_bytes: usize,
    /// Jobs that may run an attempt at once.
    pub concurrency: usize,
    /// How long an ended job is kept.
    pub result_ttl: Duration,
    /// The most attempts that a client may ask for. Without asking, a job has one.
    pub max_attempts: u32,
    /// Time from submission to the end if the client does not set it.
    pub total_runtime: Duration,
    pub max_total_runtime: Duration,
}

impl JobsPlan {
    /// Returns keys and values as they are in the manifest.
    pub fn entries(&self) -> [(&'static str, String); 7] {
        let JobsPlan {
            capacity,
            store_bytes,
            concurrency,
            result_ttl,
            max_attempts,
            total_runtime,
            max_total_runtime,
        } = self;
        [
            ("capacity", capacity.to_string()),
            ("store_mb", (store_bytes >> 20).to_string()),
            ("concurrency", concurrency.to_string()),
            ("result_ttl_s", result_ttl.as_secs().to_string()),
            ("max_attempts", max_attempts.to_string()),
            ("total_runtime_ms", total_runtime.as_millis().to_string()),
            ("max_total_runtime_ms", max_total_runtime.as_millis().to_string()),
        ]
    }
}
