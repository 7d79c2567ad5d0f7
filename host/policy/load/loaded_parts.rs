//! The parts that a policy is made of, and the keys by which a later policy finds the same ones.

use crate::executor::{Callable, Executor, SessionConfig};
use crate::metrics::Families;
use crate::plugin::{PluginExecutor, PluginMetrics, PluginModel, StreamingModel, Transformer};
use crate::policy::files::File;
use crate::policy::plan::{ExecutorPlan, Plan, PluginPlan};
use std::collections::HashMap;
use std::sync::Arc;

/// Parts of a policy that a later one may reuse.
#[derive(Default)]
pub struct LoadedParts {
    pub(super) executors: HashMap<ExecutorKey, Arc<dyn Executor>>,
    pub(super) plugins: HashMap<(Arc<str>, PluginPlan), Arc<LoadedPlugin>>,
    pub(super) callables: HashMap<CallableKey, Arc<dyn Callable>>,
}

/// Identifies an executor. Two are the same only if their plugins and the executors behind them
/// are.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct ExecutorKey {
    pub(super) name: Arc<str>,
    pub(super) plan: ExecutorPlan,
    pub(super) plugin: Option<PluginPlan>,
    pub(super) inner: Option<Box<ExecutorKey>>,
}

impl ExecutorKey {
    pub(super) fn of(plan: &Plan, name: &Arc<str>) -> Self {
        let own = &plan.executors[name];
        let (plugin, inner) = match own {
            ExecutorPlan::Pool { .. } | ExecutorPlan::Triton { .. } | ExecutorPlan::Pipeline { .. } => {
                (None, None)
            }
            ExecutorPlan::Custom { plugin, inner, .. } => {
                (Some(plan.plugins[plugin].clone()), Some(Box::new(ExecutorKey::of(plan, inner))))
            }
        };
        ExecutorKey { name: Arc::clone(name), plan: own.clone(), plugin, inner }
    }
}

/// Identifies a model: its content, and how it is made.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum CallableKey {
    Onnx {
        file: String,
        external: Vec<File>,
        sessions: SessionConfig,
    },
    Plugin {
        name: Arc<str>,
        plan: Box<PluginPlan>,
        idempotent: bool,
    },
    /// On the remote of this executor.
    Remote {
        executor: Box<ExecutorKey>,
        name: String,
        version: Option<String>,
        reference: Option<String>,
    },
}

impl LoadedParts {
    /// Returns the metrics that plugins define themselves.
    pub fn families(&self) -> impl Iterator<Item = &Families> {
        self.plugins.values().map(|plugin| plugin.metrics.families())
    }

    /// Returns the streaming models.
    pub fn shared(&self) -> impl Iterator<Item = &Arc<StreamingModel>> {
        self.plugins.values().filter_map(|plugin| match &plugin.model {
            Some(ModelPlugin::Streaming(model)) => Some(model),
            _ => None,
        })
    }
}

pub(super) struct LoadedPlugin {
    pub(super) metrics: Arc<PluginMetrics>,
    pub(super) transformer: Option<Arc<Transformer>>,
    pub(super) model: Option<ModelPlugin>,
    pub(super) executor: Option<Arc<PluginExecutor>>,
}

/// A plugin that is a model, in one of two roles.
pub(super) enum ModelPlugin {
    Model(Arc<PluginModel>),
    Streaming(Arc<StreamingModel>),
}
