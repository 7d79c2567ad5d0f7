//! The `thread-pool` executor: workers that run plugins, and ONNX models on the CPU.

use super::session::{Device, OnnxModel, SessionConfig};
use super::worker_pool::{PoolConfig, WorkerPool};
use super::workers::Workers;
use super::{
    BoxFuture, Call, Callable, Executor, GuestTask, Priority, SharedCallable, Sink, Source, Status,
    check_outputs,
};
use crate::error::Result;
use crate::metrics::Metrics;
use crate::plugin::PluginModel;
use crate::predict::{Announced, CallContext, Metadata, Responses, Tensor};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

pub struct ThreadPoolExecutor {
    workers: Workers,
    sessions: SessionConfig,
    library: Option<PathBuf>,
}

impl ThreadPoolExecutor {
    pub const KIND: &'static str = "thread-pool";

    /// A thread pool has no device: ONNX models run on the CPU.
    pub fn start(
        name: &str,
        pool: PoolConfig,
        sessions: SessionConfig,
        library: Option<PathBuf>,
        runtime: &tokio::runtime::Handle,
        metrics: &Metrics,
    ) -> Result<Self> {
        let sessions = SessionConfig { device: Device::Cpu, ..sessions };
        let workers = Workers::new(WorkerPool::start(name, pool, runtime, metrics)?);
        Ok(ThreadPoolExecutor { workers, sessions, library })
    }
}

impl Executor for ThreadPoolExecutor {
    fn name(&self) -> &str {
        self.workers.name()
    }

    fn kind(&self) -> &'static str {
        Self::KIND
    }

    fn load(&self, source: &Source) -> Result<Arc<dyn Callable>> {
        Ok(match source {
            Source::Onnx(model) => {
                let environment = super::runtime::environment(self.library.as_deref())?;
                Arc::new(OnnxModel::load(&environment, model, self.sessions)?)
            }
            Source::Plugin(plugin) => Arc::new(PluginCallable(Arc::clone(plugin))),
            Source::Pipeline(_) => return Err(super::refuse_pipeline(self.name(), Self::KIND)),
            Source::Remote { name, .. } => return Err(super::refuse_remote(self.name(), Self::KIND, name)),
            Source::Streaming { plugin, idempotent } => {
                Arc::new(SharedCallable::new(Arc::clone(plugin), *idempotent))
            }
        })
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

/// A plugin in the role `model`, as a callable.
pub struct PluginCallable(pub Arc<PluginModel>);

impl Callable for PluginCallable {
    fn metadata(&self) -> &Metadata {
        self.0.metadata()
    }

    fn reads_request(&self) -> bool {
        true
    }

    fn may_wait(&self) -> bool {
        self.0.waits()
    }

    fn call<'a>(
        &'a self,
        context: &'a Arc<CallContext>,
        inputs: Vec<Tensor>,
        _sink: &'a mut Sink,
    ) -> BoxFuture<'a, Result<Option<Vec<Tensor>>>> {
        Box::pin(async move {
            let outputs = self.0.predict(context, inputs).await?;
            check_outputs(self.0.name(), Announced::ByPlugin, self.metadata(), &outputs)?;
            Ok(Some(outputs))
        })
    }
}
