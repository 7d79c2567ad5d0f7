//! The executors of kind `thread-pool` and `onnx`: a queue and workers. They differ only in what
//! they load: a thread pool runs plugins, and ONNX models on the CPU; an `onnx` executor runs ONNX
//! models on its device.

use super::call::{Call, Precedence, Submit};
use super::callable::{BoxFuture, Callable};
use super::onnx::{Device, OnnxModel, SessionConfig, runtime};
use super::plugin_callable::PluginCallable;
use super::scheduler::{GuestTask, PoolConfig, WorkerPool, Workers};
use super::source::{Source, refuse_pipeline, refuse_remote};
use super::status::Status;
use super::streaming_callable::StreamingCallable;
use super::traits::Executor;
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::predict::Responses;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use tokio::runtime::Handle;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolKind {
    ThreadPool,
    Onnx,
}

impl PoolKind {
    /// Returns the kind's name in the manifest.
    pub fn as_str(self) -> &'static str {
        match self {
            PoolKind::ThreadPool => "thread-pool",
            PoolKind::Onnx => "onnx",
        }
    }
}

pub struct PoolExecutor {
    kind: PoolKind,
    workers: Workers,
    sessions: SessionConfig,
    /// The path of the ONNX Runtime library, if the manifest names one.
    library: Option<PathBuf>,
}

impl PoolExecutor {
    /// Starts the workers. `library` is the path of ONNX Runtime, if the manifest names one.
    pub fn start(
        kind: PoolKind,
        name: &str,
        pool: PoolConfig,
        sessions: SessionConfig,
        library: Option<PathBuf>,
        runtime: &Handle,
        metrics: &Metrics,
    ) -> Result<Self> {
        let sessions = match kind {
            // A thread pool has no device.
            PoolKind::ThreadPool => SessionConfig { device: Device::Cpu, ..sessions },
            PoolKind::Onnx => sessions,
        };
        let workers = Workers::new(WorkerPool::start(name, pool, runtime, metrics)?);
        Ok(PoolExecutor { kind, workers, sessions, library })
    }

    /// Fails if an executor of this kind does not run plugins.
    fn check_runs_plugins(&self, plugin: &str) -> Result<()> {
        match self.kind {
            PoolKind::ThreadPool => Ok(()),
            PoolKind::Onnx => Err(Error::invalid(format!(
                "executor \"{}\" is of kind onnx and runs ONNX files, but the model is the plugin \"{plugin}\"; name \
                 an executor of kind thread-pool, such as \"cpu\"",
                self.name()
            ))),
        }
    }
}

impl Submit for PoolExecutor {
    fn submit(&self, call: Call) -> Result<Responses> {
        self.workers.submit(call)
    }

    fn submit_batch(&self, calls: Vec<Call>) -> Result<Vec<Responses>> {
        self.workers.submit_batch(calls)
    }

    fn submit_started(&self, call: Call, since: Instant) -> BoxFuture<'_, Result<Responses>> {
        Box::pin(self.workers.submit_started(call, since))
    }
}

impl Executor for PoolExecutor {
    fn name(&self) -> &str {
        self.workers.name()
    }

    fn kind(&self) -> &'static str {
        self.kind.as_str()
    }

    fn load(&self, source: &Source) -> Result<Arc<dyn Callable>> {
        Ok(match source {
            Source::Onnx(model) => {
                let environment = runtime::environment(self.library.as_deref())?;
                Arc::new(OnnxModel::load(&environment, model, self.sessions)?)
            }
            Source::Plugin(plugin) => {
                self.check_runs_plugins(plugin.name())?;
                Arc::new(PluginCallable(Arc::clone(plugin)))
            }
            Source::Streaming { plugin, idempotent } => {
                self.check_runs_plugins(plugin.name())?;
                Arc::new(StreamingCallable::new(Arc::clone(plugin), *idempotent))
            }
            Source::Pipeline(_) => return Err(refuse_pipeline(self.name(), self.kind())),
            Source::Remote { name, .. } => return Err(refuse_remote(self.name(), self.kind(), name)),
        })
    }

    fn submit_guest(&self, precedence: Precedence, task: GuestTask) -> Result<(), GuestTask> {
        self.workers.submit_guest(precedence, task)
    }

    fn status(&self) -> Status {
        self.workers.status()
    }

    fn running(&self) -> Vec<String> {
        self.workers.running()
    }
}
