//! An executor of a plan: its kind and limits.

use crate::executor::{CustomConfig, PoolConfig, SessionConfig, TritonConfig};
use crate::policy::files::File;
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExecutorKind {
    ThreadPool,
    Onnx,
    Triton,
    Custom,
    Pipeline,
}

impl ExecutorKind {
    pub const ALL: [ExecutorKind; 5] = [
        ExecutorKind::ThreadPool,
        ExecutorKind::Onnx,
        ExecutorKind::Triton,
        ExecutorKind::Custom,
        ExecutorKind::Pipeline,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            ExecutorKind::ThreadPool => "thread-pool",
            ExecutorKind::Onnx => "onnx",
            ExecutorKind::Triton => "triton",
            ExecutorKind::Custom => "custom",
            ExecutorKind::Pipeline => "pipeline",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ExecutorPlan {
    Pool { kind: ExecutorKind, pool: PoolConfig, sessions: SessionConfig },
    Triton { config: TritonConfig, tls: Option<Box<TlsPlan>> },
    Custom { config: CustomConfig, plugin: Arc<str>, inner: Arc<str> },
    Pipeline { pool: PoolConfig },
}

/// How an encrypted connection is checked. Certificate and key are set together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TlsPlan {
    pub ca: Option<File>,
    pub identity: Option<(File, File)>,
    pub domain: Option<String>,
}

impl TlsPlan {
    pub fn files(&self) -> impl Iterator<Item = &File> {
        let identity = self.identity.iter().flat_map(|(certificate, key)| [certificate, key]);
        self.ca.iter().chain(identity)
    }
}

impl ExecutorPlan {
    pub fn kind(&self) -> ExecutorKind {
        match self {
            ExecutorPlan::Pool { kind, .. } => *kind,
            ExecutorPlan::Triton { .. } => ExecutorKind::Triton,
            ExecutorPlan::Custom { .. } => ExecutorKind::Custom,
            ExecutorPlan::Pipeline { .. } => ExecutorKind::Pipeline,
        }
    }

    /// Returns the number of concurrent calls.
    pub fn workers(&self) -> usize {
        match self {
            ExecutorPlan::Pool { pool, .. } | ExecutorPlan::Pipeline { pool } => pool.workers,
            ExecutorPlan::Triton { config, .. } => config.workers,
            ExecutorPlan::Custom { config, .. } => config.workers,
        }
    }

    /// Returns the number of admitted calls that may wait for a worker.
    pub fn queue(&self) -> usize {
        match self {
            ExecutorPlan::Pool { pool, .. } | ExecutorPlan::Pipeline { pool } => pool.queue,
            ExecutorPlan::Triton { .. } | ExecutorPlan::Custom { .. } => 0,
        }
    }

    /// Returns how the executor holds models; `None` if it does not run them itself.
    pub fn sessions(&self) -> Option<SessionConfig> {
        match self {
            ExecutorPlan::Pool { sessions, .. } => Some(*sessions),
            ExecutorPlan::Triton { .. } | ExecutorPlan::Custom { .. } | ExecutorPlan::Pipeline { .. } => None,
        }
    }
}

/// Returns the executor that runs models in the end: the named one, or the last of its inner ones.
pub(super) fn base<'a>(
    executors: &'a BTreeMap<Arc<str>, ExecutorPlan>,
    name: &str,
) -> Option<(&'a Arc<str>, &'a ExecutorPlan)> {
    match executors.get_key_value(name)? {
        (_, ExecutorPlan::Custom { inner, .. }) => base(executors, inner),
        found => Some(found),
    }
}
