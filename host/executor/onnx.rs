//! The `onnx` executor: workers that run ONNX models on its device.

use super::pool::{PoolConfig, WorkerPool};
use super::room::Room;
use super::session::{OnnxModel, SessionConfig};
use super::{Call, Callable, Executor, Lent, Source, Status};
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::predict::Responses;
use std::path::PathBuf;
use std::sync::Arc;

pub struct OnnxExecutor {
    pool: Arc<WorkerPool>,
    room: Room,
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
        let pool = Arc::new(WorkerPool::start(name, pool, runtime, metrics)?);
        Ok(OnnxExecutor { pool, room: Room::new(name), sessions, library })
    }
}

impl Executor for OnnxExecutor {
    fn name(&self) -> &str {
        self.pool.name()
    }

    fn kind(&self) -> &'static str {
        Self::KIND
    }

    fn load(&self, source: &Source) -> Result<Arc<dyn Callable>> {
        match source {
            Source::Onnx { path, bytes, external_data } => {
                let environment = super::runtime::environment(self.library.as_deref())?;
                let model = OnnxModel::load(&environment, path, bytes, *external_data, self.sessions)?;
                Ok(Arc::new(model))
            }
            Source::Plugin(plugin) => Err(self.runs_no_plugin(plugin.name())),
            Source::Streaming { plugin, .. } => Err(self.runs_no_plugin(plugin.name())),
            Source::Remote { name, .. } => Err(super::refuse_remote(self.name(), Self::KIND, name)),
        }
    }

    fn submit(&self, call: Call) -> Result<Responses> {
        if call.waits() { self.room.begin(call, &self.pool) } else { self.pool.submit(call) }
    }

    fn submit_batch(&self, calls: Vec<Call>) -> Result<Vec<Responses>> {
        match calls.first() {
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
        [self.pool.running(), self.room.running()].concat()
    }
}

impl OnnxExecutor {
    fn runs_no_plugin(&self, plugin: &str) -> Error {
        Error::invalid(format!(
            "executor \"{}\" is of kind onnx and runs ONNX files, but the model is the plugin \"{plugin}\"; name \
             an executor of kind thread-pool, such as \"cpu\"",
            self.pool.name()
        ))
    }
}
