//! Checks `[executors]`: those that always exist, and those that the manifest adds.

use super::bounds::{CALLS_MAX, QUEUE_MAX, SESSIONS_MAX, WORKERS_MAX};
use super::executor_plan::{ExecutorKind, ExecutorPlan};
use super::planner::Planner;
use crate::config::cores;
use crate::executor::{Device, PoolConfig, SessionConfig};
use crate::policy::manifest::{self, Manifest, Spanned};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// The executor of pipelines, which always exists.
const PIPELINE: &str = "pipeline";

/// Concurrent requests of pipelines. They wait for their steps most of the time.
const REQUESTS: usize = 64;

impl Planner<'_> {
    pub(super) fn executors(&mut self, manifest: &Manifest) -> BTreeMap<Arc<str>, ExecutorPlan> {
        // These always exist. A table of the same name changes their limits.
        let builtin: [(&str, ExecutorKind, usize); 3] = [
            ("cpu", ExecutorKind::ThreadPool, 8),
            ("gpu", ExecutorKind::ThreadPool, 2),
            ("onnx", ExecutorKind::Onnx, cores()),
        ];
        let nothing = manifest::Executor::default();
        let mut plans = BTreeMap::new();
        for (name, kind, workers) in builtin {
            let written =
                manifest.executors.iter().find(|(key, _)| key.get_ref() == name).map(|(_, table)| table);
            if let Some(plan) = self.executor(name, written.unwrap_or(&nothing), Some(kind), workers) {
                plans.insert(name.into(), plan);
            }
        }
        let pipeline = manifest.executors.iter().find(|(key, _)| key.get_ref() == PIPELINE);
        if let Some(kind) = pipeline.and_then(|(_, table)| table.kind.as_ref())
            && kind.get_ref() != PIPELINE
        {
            let message = format!("executor \"{PIPELINE}\" always exists and cannot be {}", kind.get_ref());
            self.hinted(kind.span(), message, format!("give the {} executor another name", kind.get_ref()));
        }
        if let Some(plan) = self.pipeline_executor(PIPELINE, pipeline.map_or(&nothing, |(_, table)| table)) {
            plans.insert(PIPELINE.into(), plan);
        }
        for (key, table) in &manifest.executors {
            let name = key.get_ref();
            self.check_name("executor", key);
            let is_builtin = name == PIPELINE || builtin.iter().any(|(builtin, ..)| builtin == name);
            if plans.contains_key(name.as_str()) || is_builtin {
                continue;
            }
            if table.kind.is_none() {
                let message = format!("executor \"{name}\" has no kind");
                let hint = "add kind = \"thread-pool\", \"onnx\", \"triton\", \"custom\" or \"pipeline\"";
                self.hinted(key.span(), message, hint);
            }
            let plan = match table.kind.as_ref().map(|kind| kind.get_ref().as_str()) {
                Some("custom") => self.custom(key, table),
                Some("triton") => self.triton(key, table),
                Some("pipeline") => self.pipeline_executor(name, table),
                _ => self.executor(name, table, None, cores()),
            };
            if let Some(plan) = plan {
                plans.insert(name.as_str().into(), plan);
            }
        }
        self.inner_executors(manifest, &mut plans);
        plans
    }

    fn executor(
        &mut self,
        name: &str,
        table: &manifest::Executor,
        builtin: Option<ExecutorKind>,
        workers: usize,
    ) -> Option<ExecutorPlan> {
        let kind = match &table.kind {
            None => builtin?,
            Some(kind) => match kind.get_ref().as_str() {
                "thread-pool" => ExecutorKind::ThreadPool,
                "onnx" => ExecutorKind::Onnx,
                other @ ("custom" | "triton" | "pipeline") => {
                    let message = format!("executor \"{name}\" always exists and cannot be {other}");
                    self.hinted(kind.span(), message, format!("give the {other} executor another name"));
                    return None;
                }
                other => {
                    let known = ExecutorKind::ALL.map(ExecutorKind::as_str);
                    let hint = self.did_you_mean(other, known);
                    let message = format!("executor \"{name}\": kind \"{other}\" is not known{hint}");
                    self.hinted(kind.span(), message, format!("kinds: {}", known.join(", ")));
                    return None;
                }
            },
        };
        self.no_custom(name, table);
        self.no_remote(name, table);
        self.misplaced(name, [("threads", span(&table.threads), "custom and triton")]);
        let workers = self.at_least_one(name, "workers", &table.workers, workers, WORKERS_MAX);
        // More copies than cores cost memory and gain nothing. Eight copies take much memory
        // already.
        let sessions = workers.min(cores()).min(8);
        let sessions = self.at_least_one(name, "sessions", &table.sessions, sessions, SESSIONS_MAX);
        let intra_threads = self.at_least_one(name, "intra_threads", &table.intra_threads, 1, SESSIONS_MAX);
        let of_executor = format!("executor \"{name}\": ");
        let queue = self.number(&of_executor, "queue", table.queue.as_ref(), 256, 0..=QUEUE_MAX);
        let device = match (&table.device, kind) {
            (None, _) => Device::Cpu,
            (Some(device), ExecutorKind::ThreadPool) => {
                let message = format!("executor \"{name}\" is a thread pool, which has no device");
                self.hinted(device.span(), message, "device belongs to executors of kind onnx");
                Device::Cpu
            }
            (Some(device), _) => self.device(name, device),
        };
        Some(ExecutorPlan::Pool {
            kind,
            pool: PoolConfig { workers, queue },
            sessions: SessionConfig { device, sessions, intra_threads },
        })
    }

    /// Reads how many requests may run at once, and how many may wait.
    fn pipeline_executor(&mut self, name: &str, table: &manifest::Executor) -> Option<ExecutorPlan> {
        self.no_custom(name, table);
        self.no_remote(name, table);
        self.misplaced(
            name,
            [
                ("threads", span(&table.threads), "custom and triton"),
                ("sessions", span(&table.sessions), "thread-pool and onnx"),
                ("intra_threads", span(&table.intra_threads), "thread-pool and onnx"),
                ("device", span(&table.device), "onnx"),
            ],
        );
        let workers = self.at_least_one(name, "workers", &table.workers, REQUESTS, CALLS_MAX);
        let of_executor = format!("executor \"{name}\": ");
        let queue = self.number(&of_executor, "queue", table.queue.as_ref(), 256, 0..=QUEUE_MAX);
        Some(ExecutorPlan::Pipeline { pool: PoolConfig { workers, queue } })
    }

    pub(super) fn at_least_one(
        &mut self,
        name: &str,
        key: &str,
        value: &Option<Spanned<usize>>,
        default: usize,
        most: usize,
    ) -> usize {
        self.number(&format!("executor \"{name}\": "), key, value.as_ref(), default, 1..=most)
    }

    /// Refuses keys of executors that have their own workers.
    pub(super) fn no_workers(&mut self, name: &str, table: &manifest::Executor) {
        self.misplaced(
            name,
            [
                ("queue", span(&table.queue), "thread-pool and onnx"),
                ("sessions", span(&table.sessions), "thread-pool and onnx"),
                ("intra_threads", span(&table.intra_threads), "thread-pool and onnx"),
                ("device", span(&table.device), "onnx"),
            ],
        );
    }

    /// Refuses keys of executors of kind `custom`.
    pub(super) fn no_custom(&mut self, name: &str, table: &manifest::Executor) {
        let keys = [
            ("plugin", span(&table.plugin)),
            ("inner", span(&table.inner)),
            ("on_failure", span(&table.on_failure)),
        ];
        self.misplaced(name, keys.map(|(key, span)| (key, span, "custom")));
    }

    /// Refuses keys of executors of kind `triton`.
    pub(super) fn no_remote(&mut self, name: &str, table: &manifest::Executor) {
        let keys = [
            ("url", span(&table.url)),
            ("channels", span(&table.channels)),
            ("connect_timeout_ms", span(&table.connect_timeout_ms)),
            ("keepalive_ms", span(&table.keepalive_ms)),
            ("max_message_mb", span(&table.max_message_mb)),
            ("tls", span(&table.tls)),
        ];
        self.misplaced(name, keys.map(|(key, span)| (key, span, "triton")));
    }

    fn misplaced<const N: usize>(
        &mut self,
        name: &str,
        keys: [(&'static str, Option<Range<usize>>, &'static str); N],
    ) {
        for (key, span, kind) in keys {
            let Some(span) = span else { continue };
            let message = format!("executor \"{name}\": {key} does not belong to its kind");
            self.hinted(span, message, format!("{key} belongs to executors of kind {kind}"));
        }
    }

    fn device(&mut self, executor: &str, device: &Spanned<String>) -> Device {
        let text = device.get_ref().as_str();
        let cuda = text.strip_prefix("cuda").and_then(|rest| match rest.strip_prefix(':') {
            Some(index) => index.parse().ok(),
            None => rest.is_empty().then_some(0),
        });
        match cuda {
            Some(index) => Device::Cuda(index),
            None if text == "cpu" => Device::Cpu,
            None => {
                let message = format!("executor \"{executor}\": device \"{text}\" is not known");
                self.hinted(device.span(), message, "devices: cpu, cuda, cuda:<index>");
                Device::Cpu
            }
        }
    }
}

/// Returns where a key is, if it is set.
fn span<T>(value: &Option<Spanned<T>>) -> Option<Range<usize>> {
    value.as_ref().map(Spanned::span)
}
