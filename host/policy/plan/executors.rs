//! `[executors]`: the three that always exist, and those that the manifest adds.

use super::{ExecutorKind, ExecutorPlan, Planner};
use crate::config::cores;
use crate::error::did_you_mean;
use crate::executor::{Device, PoolConfig, SessionConfig};
use crate::policy::manifest::{self, Manifest, Spanned};
use std::collections::BTreeMap;
use std::sync::Arc;

impl Planner<'_> {
    pub(super) fn executors(&mut self, manifest: &Manifest) -> BTreeMap<Arc<str>, ExecutorPlan> {
        // These always exist; a table of the same name changes their numbers.
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
        for (key, table) in &manifest.executors {
            let name = key.get_ref();
            self.check_name("executor", key);
            if plans.contains_key(name.as_str()) || builtin.iter().any(|(builtin, ..)| builtin == name) {
                continue;
            }
            if table.kind.is_none() {
                let message = format!("executor \"{name}\" has no kind");
                self.hinted(key.span(), message, "add kind = \"thread-pool\" or kind = \"onnx\"");
            }
            if let Some(plan) = self.executor(name, table, None, cores()) {
                plans.insert(name.as_str().into(), plan);
            }
        }
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
                other => {
                    let hint = did_you_mean(other, ["thread-pool", "onnx"]);
                    let message = format!("executor \"{name}\": kind \"{other}\" is not known{hint}");
                    self.hinted(kind.span(), message, "kinds: thread-pool, onnx");
                    return None;
                }
            },
        };
        let mut at_least_one = |key: &str, value: &Option<Spanned<usize>>, default: usize| match value {
            Some(value) if *value.get_ref() == 0 => {
                self.fault(value.span(), format!("executor \"{name}\": {key} must be at least 1"));
                1
            }
            Some(value) => *value.get_ref(),
            None => default,
        };
        let workers = at_least_one("workers", &table.workers, workers);
        // More copies than cores cost memory and gain nothing; eight are much memory already.
        let sessions = at_least_one("sessions", &table.sessions, workers.min(cores()).min(8));
        let intra_threads = at_least_one("intra_threads", &table.intra_threads, 1);
        let device = match (&table.device, kind) {
            (None, _) => Device::Cpu,
            (Some(device), ExecutorKind::ThreadPool) => {
                let message = format!("executor \"{name}\" is a thread pool, which has no device");
                self.hinted(device.span(), message, "device belongs to executors of kind onnx");
                Device::Cpu
            }
            (Some(device), ExecutorKind::Onnx) => self.device(name, device),
        };
        Some(ExecutorPlan {
            kind,
            pool: PoolConfig { workers, queue: table.queue.unwrap_or(256) },
            sessions: SessionConfig { device, sessions, intra_threads },
        })
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
