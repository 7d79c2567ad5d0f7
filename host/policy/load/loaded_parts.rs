//! What a policy is made of, and how a later one finds in it what is the same.

use crate::executor::{Callable, Executor, SessionConfig};
use crate::metrics::Families;
use crate::plugin::{PluginExecutor, PluginMetrics, PluginModel, StreamingModel, Transformer};
use crate::policy::files::File;
use crate::policy::plan::{ExecutorPlan, Plan, PluginPlan};
use std::collections::HashMap;
use std::sync::Arc;

/// Pieces of a policy that a later one may use again.
#[derive(Default)]
pub struct LoadedParts {
    pub(super) executors: HashMap<ExecutorKey, Arc<dyn Executor>>,
    pub(super) plugins: HashMap<(Arc<str>, PluginPlan), Arc<LoadedPlugin>>,
    pub(super) callables: HashMap<CallableKey, Arc<dyn Callable>>,
}

/// Executors that are the same: with the same plugin and the same executor behind it, where it has these.
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

/// Models that are the same: the same content, made in the same way.
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
    /// Of the remote that this executor stands for.
    Remote {
        executor: Box<ExecutorKey>,
        name: String,
        version: Option<String>,
        reference: Option<String>,
    },
}

impl LoadedParts {
    /// What the plugins measure themselves.
    pub fn families(&self) -> impl Iterator<Item = &Families> {
        self.plugins.values().map(|plugin| plugin.metrics.families())
    }

    /// Plugins whose calls wait side by side.
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

/// A plugin that is a model, in the one role or the other.
pub(super) enum ModelPlugin {
    Model(Arc<PluginModel>),
    Streaming(Arc<StreamingModel>),
}
