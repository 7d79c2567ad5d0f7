//! Checks executors of kind `custom`: their plugin, and their inner executor.

use super::bounds::{CALLS_MAX, WORKERS_MAX};
use super::executor_plan::ExecutorPlan;
use super::planner::Planner;
use super::plugin_plan::PluginPlan;
use crate::config::cores;
use crate::executor::{CustomConfig, OnFailure};
use crate::plugin::Role;
use crate::policy::manifest::{self, Manifest, Spanned};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Concurrent calls. Each holds an instance of the plugin while it waits for the model.
const WORKERS: usize = 128;

/// The longest chain of custom executors. Each adds a call within a call.
const CHAIN_MAX: usize = 16;

impl Planner<'_> {
    pub(super) fn custom(
        &mut self,
        key: &Spanned<String>,
        table: &manifest::Executor,
    ) -> Option<ExecutorPlan> {
        let name = key.get_ref().as_str();
        self.no_workers(name, table);
        self.no_remote(name, table);
        let on_failure = match table.on_failure.as_ref().map(|value| (value.get_ref().as_str(), value)) {
            None | Some(("fail", _)) => OnFailure::Fail,
            Some(("inner", _)) => OnFailure::Inner,
            Some((other, value)) => {
                let message = format!("executor \"{name}\": on_failure = \"{other}\" is not known");
                self.hinted(value.span(), message, "write \"fail\" or \"inner\"");
                OnFailure::Fail
            }
        };
        let config = CustomConfig {
            workers: self.at_least_one(name, "workers", &table.workers, WORKERS, CALLS_MAX),
            threads: self.at_least_one(name, "threads", &table.threads, cores(), WORKERS_MAX),
            on_failure,
        };
        for (missing, value, hint) in [
            ("plugin", &table.plugin, "add plugin = \"<name>\", a plugin in the role executor"),
            ("inner", &table.inner, "add inner = \"<executor>\", such as \"onnx\" or \"cpu\""),
        ] {
            if value.is_none() {
                let message = format!("executor \"{name}\" is custom and has no {missing}");
                self.hinted(key.span(), message, hint);
            }
        }
        let (plugin, inner) = (table.plugin.as_ref()?, table.inner.as_ref()?);
        let text = |value: &Spanned<String>| value.get_ref().as_str().into();
        Some(ExecutorPlan::Custom { config, plugin: text(plugin), inner: text(inner) })
    }

    /// Removes executors whose `inner` does not exist or leads back to them.
    pub(super) fn inner_executors(
        &mut self,
        manifest: &Manifest,
        plans: &mut BTreeMap<Arc<str>, ExecutorPlan>,
    ) {
        let mut bad = Vec::new();
        for (key, table) in &manifest.executors {
            let (Some(inner), Some(ExecutorPlan::Custom { .. })) =
                (&table.inner, plans.get(key.get_ref().as_str()))
            else {
                continue;
            };
            let name = key.get_ref();
            let mut path = vec![name.as_str()];
            let mut next = inner.get_ref().as_str();
            while let Some(ExecutorPlan::Custom { inner, .. }) = plans.get(next) {
                path.push(next);
                if path[..path.len() - 1].contains(&next) || path.len() > CHAIN_MAX {
                    break;
                }
                next = inner;
            }
            if path.len() > CHAIN_MAX && !path[..path.len() - 1].contains(&path[path.len() - 1]) {
                let message =
                    format!("executor \"{name}\" has a chain of more than {CHAIN_MAX} inner executors");
                self.hinted(inner.span(), message, format!("the chain begins: {}", path.join(" -> ")));
                bad.push(name.clone());
            } else if path.len() > 1 && path[..path.len() - 1].contains(&path[path.len() - 1]) {
                let path = path.join(" -> ");
                let message = format!("executor \"{name}\" has a cycle of inner executors: {path}");
                self.hinted(
                    inner.span(),
                    message,
                    "one of them needs an inner of kind thread-pool, onnx or triton",
                );
                bad.push(name.clone());
            } else if !plans.contains_key(inner.get_ref().as_str()) {
                let known = || plans.keys().map(|name| &**name).filter(|other| other != name);
                let hint = self.did_you_mean(inner.get_ref(), known());
                let message = format!("executor \"{name}\": no executor \"{}\"{hint}", inner.get_ref());
                let known = known().collect::<Vec<_>>().join(", ");
                self.hinted(inner.span(), message, format!("executors: {known}"));
                bad.push(name.clone());
            } else if let Some(ExecutorPlan::Pipeline { .. }) = plans.get(next) {
                let message = format!("executor \"{name}\" cannot wrap \"{next}\", which runs pipelines");
                let hint = "let a step's model have the custom executor, or write the logic as a router";
                self.hinted(inner.span(), message, hint);
                bad.push(name.clone());
            } else if !plans.contains_key(next) {
                // The fault is reported at the executor that has it.
                bad.push(name.clone());
            }
        }
        for name in &bad {
            plans.remove(name.as_str());
        }
    }

    /// Requires the role `executor` of the plugins of custom executors.
    pub(super) fn custom_plugins(
        &mut self,
        manifest: &Manifest,
        executors: &BTreeMap<Arc<str>, ExecutorPlan>,
        plugins: &mut BTreeMap<Arc<str>, PluginPlan>,
    ) {
        for (key, table) in &manifest.executors {
            let name = key.get_ref().as_str();
            if let (Some(plugin), Some(ExecutorPlan::Custom { .. })) = (&table.plugin, executors.get(name)) {
                self.want_role(&format!("executor \"{name}\""), plugin, Role::Executor, plugins);
            }
        }
    }
}
