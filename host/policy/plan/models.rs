//! `[models]` and `[policy]`: what each model is made of, and where it runs.

use super::{
    CheckPlan, ExecutorPlan, ModelName, ModelPlan, Planner, PluginPlan, SourcePlan, parse_model_name,
};
use crate::error::did_you_mean;
use crate::plugin::Role;
use crate::policy::manifest::{self, Manifest, Spanned};
use crate::policy::settings::milliseconds;
use std::collections::BTreeMap;
use std::sync::Arc;

impl Planner<'_> {
    /// The executor of models that `[policy]` does not name.
    pub(super) fn policy_default(
        &mut self,
        manifest: &Manifest,
        executors: &BTreeMap<Arc<str>, ExecutorPlan>,
    ) -> Option<Arc<str>> {
        let (_, executor) = manifest.policy.iter().find(|(key, _)| key.get_ref() == "default")?;
        self.executor_named(executor, "[policy] default", executors)
    }

    fn executor_named(
        &mut self,
        name: &Spanned<String>,
        what: &str,
        executors: &BTreeMap<Arc<str>, ExecutorPlan>,
    ) -> Option<Arc<str>> {
        if let Some((known, _)) = executors.get_key_value(name.get_ref().as_str()) {
            return Some(Arc::clone(known));
        }
        let known = || executors.keys().map(|name| &**name);
        let hint = did_you_mean(name.get_ref(), known());
        let message = format!("{what}: no executor \"{}\"{hint}", name.get_ref());
        self.hinted(name.span(), message, format!("executors: {}", known().collect::<Vec<_>>().join(", ")));
        None
    }

    pub(super) fn models(
        &mut self,
        manifest: &Manifest,
        executors: &BTreeMap<Arc<str>, ExecutorPlan>,
        plugins: &mut BTreeMap<Arc<str>, PluginPlan>,
        default: Option<&Arc<str>>,
    ) -> BTreeMap<ModelName, ModelPlan> {
        let mut plans = BTreeMap::new();
        for (key, table) in &manifest.models {
            let Some(name) = self.model_name(key) else { continue };
            let what = format!("model \"{name}\"");
            let source = self.source(&what, key, table, plugins);
            let transformer = table
                .transformer
                .as_ref()
                .and_then(|name| self.want_role(&what, name, Role::Transformer, plugins));
            let wanted = manifest
                .policy
                .iter()
                .find(|(route, _)| parse_model_name(route.get_ref()).as_ref() == Some(&name));
            let executor = match (wanted, default, &source) {
                (Some((_, executor)), ..) => self.executor_named(executor, &what, executors),
                (None, Some(default), _) => Some(Arc::clone(default)),
                // Without a default each kind of model has its own.
                (None, None, Some(SourcePlan::Onnx { .. })) => Some("onnx".into()),
                (None, None, _) => Some("cpu".into()),
            };
            if let Some(timeout) = table.timeout_ms.as_ref().filter(|ms| *ms.get_ref() == 0) {
                self.fault(timeout.span(), format!("{what}: timeout_ms must be at least 1"));
            }
            let batching = self.batching(&what, table);
            let checks = table
                .checks
                .iter()
                .filter_map(|check| {
                    let file = self.file(&format!("{what}: check"), &check.file)?;
                    Some(CheckPlan { file, tolerance: check.tolerance })
                })
                .collect();
            if plans.contains_key(&name) {
                self.fault(
                    key.span(),
                    format!("{what} is given twice: a name without a version is version 1"),
                );
            }
            if let (Some(source), Some(executor)) = (source, executor) {
                let timeout = table.timeout_ms.as_ref().map(|ms| milliseconds(*ms.get_ref()));
                let idempotent = table.idempotent;
                let plan = ModelPlan { source, executor, transformer, timeout, batching, idempotent, checks };
                plans.insert(name, plan);
            }
        }
        plans
    }

    fn source(
        &mut self,
        what: &str,
        key: &Spanned<String>,
        table: &manifest::Model,
        plugins: &mut BTreeMap<Arc<str>, PluginPlan>,
    ) -> Option<SourcePlan> {
        match (&table.path, &table.plugin) {
            (Some(path), None) => {
                let full = self.folder.join(path.get_ref());
                match self.files.model(&full) {
                    Ok((file, external)) => {
                        self.pinned(what, &file, table.sha256.as_ref());
                        Some(SourcePlan::Onnx { file, external })
                    }
                    Err(error) => {
                        self.fault(path.span(), format!("{what}: cannot read {}: {error}", full.display()));
                        None
                    }
                }
            }
            (None, Some(plugin)) => {
                if let Some(pin) = &table.sha256 {
                    let hint = format!("a plugin is pinned by sha256 under [plugins.{}]", plugin.get_ref());
                    self.hinted(pin.span(), format!("{what} has sha256 and no file of its own"), hint);
                }
                self.want_role(what, plugin, Role::Model, plugins).map(SourcePlan::Plugin)
            }
            (Some(_), Some(plugin)) => {
                self.fault(plugin.span(), format!("{what} has both a path and a plugin; it can have one"));
                None
            }
            (None, None) => {
                let hint = "add path = \"<file>.onnx\" or plugin = \"<name>\"";
                self.hinted(key.span(), format!("{what} has neither a path nor a plugin"), hint);
                None
            }
        }
    }

    pub(super) fn want_role(
        &mut self,
        what: &str,
        plugin: &Spanned<String>,
        role: Role,
        plugins: &mut BTreeMap<Arc<str>, PluginPlan>,
    ) -> Option<Arc<str>> {
        let name = plugin.get_ref().as_str();
        let Some(known) = plugins.keys().find(|known| ***known == *name).cloned() else {
            if self.unreadable.contains(name) {
                return None;
            }
            let hint = did_you_mean(name, plugins.keys().map(|name| &**name));
            let message = format!("{what}: no plugin \"{name}\"{hint}");
            self.hinted(plugin.span(), message, format!("add a table [plugins.{name}] with its path"));
            return None;
        };
        plugins.get_mut(&known)?.roles.insert(role);
        Some(known)
    }

    /// Every key of `[policy]` must be `default` or a model, and each model is there once.
    pub(super) fn policy_names(&mut self, manifest: &Manifest, models: &BTreeMap<ModelName, ModelPlan>) {
        let mut seen = Vec::new();
        for (route, _) in manifest.policy.iter().filter(|(route, _)| route.get_ref() != "default") {
            let written = route.get_ref();
            let name = parse_model_name(written);
            if name.is_none() || !manifest.models.keys().any(|key| parse_model_name(key.get_ref()) == name) {
                // With a version or without, as it is written.
                let known = models.keys().map(|known| match written.contains(':') {
                    true => known.to_string(),
                    false => known.name.to_string(),
                });
                let known: Vec<String> = known.collect();
                let hint = did_you_mean(written, known.iter().map(String::as_str));
                self.fault(route.span(), format!("[policy]: no model \"{written}\"{hint}"));
            } else if seen.contains(&name) {
                let message =
                    format!("[policy]: \"{written}\" is given twice: a name without a version is version 1");
                self.fault(route.span(), message);
            }
            seen.push(name);
        }
    }
}
