//! The `onnx` executor: workers that run ONNX models on its device.

use super::session::{OnnxModel, SessionConfig};
use super::worker_pool::{PoolConfig, WorkerPool};
use super::workers::Workers;
use super::{BoxFuture, Call, Callable, Executor, GuestTask, Priority, Source, Status};
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::predict::Responses;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

pub struct OnnxExecutor {
    workers: Workers,
    sessions: SessionConfig,
    library: Option<PathBuf>,
}

impl OnnxExecutor {
    pub const KIND: &'static str = "onnx";

    /// `library` is where the manifest says that ONNX Runtime is.
    pub fn start(
        name: &str,
        pool: PoolConfig,
        sessions: SessionConfig,
        library: Option<PathBuf>,
        runtime: &tokio::runtime::Handle,
        metrics: &Metrics,
    ) -> Result<Self> {
        let workers = Workers::new(WorkerPool::start(name, pool, runtime, metrics)?);
        Ok(OnnxExecutor { workers, sessions, library })
    }
}

impl Executor for OnnxExecutor {
    fn name(&self) -> &str {
        self.workers.name()
    }

    fn kind(&self) -> &'static str {
        Self::KIND
    }

    fn load(&self, source: &Source) -> Result<Arc<dyn Callable>> {
        match source {
            Source::Onnx(model) => {
                let environment = super::runtime::environment(self.library.as_deref())?;
                let loaded = OnnxModel::load(&environment, model, self.sessions)?;
                Ok(Arc::new(loaded))
            }
            Source::Plugin(plugin) => Err(self.runs_no_plugin(plugin.name())),
            Source::Streaming { plugin, .. } => Err(self.runs_no_plugin(plugin.name())),
            Source::Pipeline(_) => Err(super::refuse_pipeline(self.name(), Self::KIND)),
            Source::Remote { name, .. } => Err(super::refuse_remote(self.name(), Self::KIND, name)),
        }
    }

    fn submit(&self, call: Call) -> Result<Responses> {
        self.workers.submit(call)
    }

    fn submit_started(&self, call: Call, since: Instant) -> BoxFuture<'_, Result<Responses>> {
        Box::pin(self.workers.submit_started(call, since))
    }

    fn submit_batch(&self, calls: Vec<Call>) -> Result<Vec<Responses>> {
        self.workers.submit_batch(calls)
    }

    fn submit_guest(&self, order: Priority, task: GuestTask) -> Result<(), GuestTask> {
        self.workers.submit_guest(order, task)
    }

    fn status(&self) -> Status {
        self.workers.status()
    }

    fn running(&self) -> Vec<String> {
        self.workers.running()
    }
}

impl OnnxExecutor {
    fn runs_no_plugin(&self, plugin: &str) -> Error {
        Error::invalid(format!(
            "executor \"{}\" is of kind onnx and runs ONNX files, but the model is the plugin \"{plugin}\"; name \
             an executor of kind thread-pool, such as \"cpu\"",
            self.workers.name()
        ))
    }
}
