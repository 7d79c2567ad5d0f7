//! Executors of kind `custom`: their plugin, and the executor that they stand before.

use super::bounds::{CALLS_MAX, WORKERS_MAX};
use super::{ExecutorPlan, Planner, PluginPlan};
use crate::config::cores;
use crate::executor::{CustomConfig, OnFailure};
use crate::plugin::Role;
use crate::policy::manifest::{self, Manifest, Spanned};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Calls at once; each holds an instance of the plugin while it waits for the model.
const WORKERS: usize = 128;

/// Custom executors before one another: each is a call within a call.
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
        let on_failure = match table.on_failure.as_ref().map(|word| (word.get_ref().as_str(), word)) {
            None | Some(("fail", _)) => OnFailure::Fail,
            Some(("inner", _)) => OnFailure::Inner,
            Some((other, word)) => {
                let message = format!("executor \"{name}\": on_failure = \"{other}\" is not known");
                self.hinted(word.span(), message, "write \"fail\" or \"inner\"");
                OnFailure::Fail
            }
        };
        let config = CustomConfig {
            workers: self.at_least_one(name, "workers", &table.workers, WORKERS, CALLS_MAX),
            threads: self.at_least_one(name, "threads", &table.threads, cores(), WORKERS_MAX),
            on_failure,
        };
        for (word, value, mend) in [
            ("plugin", &table.plugin, "add plugin = \"<name>\", a plugin in the role executor"),
            ("inner", &table.inner, "add inner = \"<executor>\", such as \"onnx\" or \"cpu\""),
        ] {
            if value.is_none() {
                let message = format!("executor \"{name}\" is custom and has no {word}");
                self.hinted(key.span(), message, mend);
            }
        }
        let (plugin, inner) = (table.plugin.as_ref()?, table.inner.as_ref()?);
        let word = |word: &Spanned<String>| word.get_ref().as_str().into();
        Some(ExecutorPlan::Custom { config, plugin: word(plugin), inner: word(inner) })
    }

    /// Takes out those whose `inner` is not there or leads back to them.
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
                let message = format!("executor \"{name}\" stands before more than {CHAIN_MAX} others");
                self.hinted(inner.span(), message, format!("the first of them: {}", path.join(" -> ")));
                bad.push(name.clone());
            } else if path.len() > 1 && path[..path.len() - 1].contains(&path[path.len() - 1]) {
                let way = path.join(" -> ");
                let message = format!("executor \"{name}\" stands before itself: {way}");
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
                let message = format!("executor \"{name}\" stands before \"{next}\", which runs pipelines");
                let mend = "let a step's model have the custom executor, or write the logic as a router";
                self.hinted(inner.span(), message, mend);
                bad.push(name.clone());
            } else if !plans.contains_key(next) {
                // The fault is said where it is.
                bad.push(name.clone());
            }
        }
        for name in &bad {
            plans.remove(name.as_str());
        }
    }

    /// Asks the plugins of custom executors for their role.
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
