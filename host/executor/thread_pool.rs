//! The `thread-pool` executor: workers that run plugins, and ONNX models on the CPU.

use super::pool::{PoolConfig, WorkerPool};
use super::room::Room;
use super::session::{Device, OnnxModel, SessionConfig};
use super::{BoxFuture, Call, Callable, Executor, Lent, SharedCallable, Sink, Source, Status, check_outputs};
use crate::error::Result;
use crate::metrics::Metrics;
use crate::plugin::PluginModel;
use crate::predict::{Context, Metadata, Responses, Tensor};
use std::path::PathBuf;
use std::sync::Arc;

pub struct ThreadPoolExecutor {
    pool: Arc<WorkerPool>,
    room: Room,
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
        let pool = Arc::new(WorkerPool::start(name, pool, runtime, metrics)?);
        Ok(ThreadPoolExecutor { pool, room: Room::new(name), sessions, library })
    }
}

impl Executor for ThreadPoolExecutor {
    fn name(&self) -> &str {
        self.pool.name()
    }

    fn kind(&self) -> &'static str {
        Self::KIND
    }

    fn load(&self, source: &Source) -> Result<Arc<dyn Callable>> {
        Ok(match source {
            Source::Onnx { path, bytes, external_data } => {
                let environment = super::runtime::environment(self.library.as_deref())?;
                Arc::new(OnnxModel::load(&environment, path, bytes, *external_data, self.sessions)?)
            }
            Source::Plugin(plugin) => Arc::new(PluginCallable(Arc::clone(plugin))),
            Source::Remote { name, .. } => return Err(super::refuse_remote(self.name(), Self::KIND, name)),
            Source::Streaming { plugin, idempotent } => {
                Arc::new(SharedCallable::new(Arc::clone(plugin), *idempotent))
            }
        })
    }

    fn submit(&self, call: Call) -> Result<Responses> {
        if call.callable.shared().is_some() {
            self.room.submit(call)
        } else if call.waits() {
            self.room.begin(call, &self.pool)
        } else {
            self.pool.submit(call)
        }
    }

    fn submit_batch(&self, calls: Vec<Call>) -> Result<Vec<Responses>> {
        match calls.first() {
            Some(first) if first.callable.shared().is_some() => self.room.submit_batch(calls),
            Some(first) if first.waits() => self.room.begin_batch(calls, &self.pool),
            _ => self.pool.submit_batch(calls),
        }
    }

    fn lend(&self, lent: Lent) -> Result<(), Lent> {
        self.pool.lend(lent)
    }

    fn status(&self) -> Status {
        let status = self.pool.status();
        Status { inflight: status.inflight + self.room.in_flight(), ..status }
    }

    fn running(&self) -> Vec<String> {
        let mut running = self.pool.running();
        running.extend(self.room.running());
        running
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

    fn waits(&self) -> bool {
        self.0.waits()
    }

    fn call<'a>(
        &'a self,
        context: &'a Arc<Context>,
        inputs: Vec<Tensor>,
        _sink: &'a mut Sink,
    ) -> BoxFuture<'a, Result<Option<Vec<Tensor>>>> {
        Box::pin(async move {
            let outputs = self.0.predict(context, inputs).await?;
            check_outputs(self.0.name(), "its", self.metadata(), &outputs)?;
            Ok(Some(outputs))
        })
    }
}
