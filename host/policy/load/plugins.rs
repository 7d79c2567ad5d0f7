//! Compiles the plugins of a plan, or takes them from an earlier policy.

use super::faults::{Failed, LoadFaults};
use super::loaded_parts::{LoadedParts, LoadedPlugin, ModelPlugin};
use super::loader::Loader;
use crate::error::{Error, Result};
use crate::plugin::{Plugin, Role};
use crate::policy::content::PolicyContent;
use crate::policy::files::Files;
use crate::policy::plan::{ExecutorPlan, Plan, PluginPlan, SourcePlan};
use std::sync::Arc;

impl Loader {
    pub(super) fn plugins(
        &self,
        plan: &Plan,
        files: &Files,
        parts: &mut LoadedParts,
        reuse: &[Arc<PolicyContent>],
        failed: &mut Failed,
    ) -> Result<(), LoadFaults> {
        // Plugins that no model uses are compiled too, so that a broken one is reported.
        for (name, wanted) in &plan.plugins {
            files.progress.check()?;
            failed.open -= 1;
            let key = (Arc::clone(name), wanted.clone());
            let known = reuse.iter().find_map(|old| old.parts.plugins.get(&key));
            let plugin = known.map_or_else(
                || self.load_plugin(name, wanted, plan, files).map(Arc::new),
                |plugin| Ok(Arc::clone(plugin)),
            );
            let plugin = match plugin {
                Ok(plugin) => plugin,
                Err(error) => {
                    failed.plugins.insert(Arc::clone(name));
                    failed.add(error)?;
                    continue;
                }
            };
            parts.plugins.insert(key, plugin);
        }
        Ok(())
    }

    fn load_plugin(
        &self,
        name: &Arc<str>,
        plan: &PluginPlan,
        whole: &Plan,
        files: &Files,
    ) -> Result<LoadedPlugin> {
        let named = |error: Error| error.context(format!("plugin \"{name}\"")).plugin(&**name);
        let wasm = files.read(&plan.file).map_err(named)?;
        let assets = plan.assets.iter().map(|(key, file)| Ok((key.clone(), files.read(file)?)));
        let mut spec = self.engine.plugin_spec(Arc::clone(name), plan.limits.clone(), &self.metrics);
        spec.config.clone_from(&plan.config);
        spec.assets = assets.collect::<Result<_>>().map_err(named)?;
        let metrics = spec.metrics();
        if let Some(http) = &plan.http {
            let ca = http.ca.as_ref().map(|file| files.read(file)).transpose().map_err(named)?;
            let runtime = self.runtime.clone();
            spec.allow_http(http.limits.clone(), ca.as_deref(), runtime, &self.metrics).map_err(named)?;
        }
        let plugin = Plugin::load(&self.engine, spec, &wasm, &self.metrics, &files.progress.stop)?;
        for role in &plan.roles {
            let is_streaming = *role == Role::Model && plugin.info().roles.contains(&Role::StreamingModel);
            if let Err(error) = plugin.check_role(*role)
                && !is_streaming
            {
                return Err(match user(whole, name, *role) {
                    Some(user) => error.context(user),
                    None => error,
                });
            }
        }
        let wants = |role| plan.roles.contains(&role);
        self.runtime.block_on(files.progress.unless_stopped(async {
            Ok(LoadedPlugin {
                metrics,
                transformer: match wants(Role::Transformer) {
                    true => Some(Arc::new(plugin.transformer(&self.metrics).await?)),
                    false => None,
                },
                model: match wants(Role::Model) {
                    true if plugin.info().roles.contains(&Role::StreamingModel) => {
                        Some(ModelPlugin::Streaming(Arc::new(plugin.streaming_model(&self.metrics).await?)))
                    }
                    true => Some(ModelPlugin::Model(Arc::new(plugin.model(&self.metrics).await?))),
                    false => None,
                },
                executor: match wants(Role::Executor) {
                    true => Some(Arc::new(plugin.executor(&self.metrics)?)),
                    false => None,
                },
            })
        }))
    }
}

/// Returns the first model or executor that uses a plugin in a role.
fn user(plan: &Plan, plugin: &Arc<str>, role: Role) -> Option<String> {
    let model = plan.models.iter().find(|(_, model)| match role {
        Role::Transformer => model.transformer.as_ref() == Some(plugin),
        Role::Model | Role::StreamingModel => model.source == SourcePlan::Plugin(Arc::clone(plugin)),
        Role::Executor => false,
    });
    if let Some((name, _)) = model {
        return Some(format!("model \"{name}\""));
    }
    let is_user = |executor: &ExecutorPlan| {
        role == Role::Executor
            && matches!(executor, ExecutorPlan::Custom { plugin: used, .. } if used == plugin)
    };
    let executor = plan.executors.iter().find(|(_, executor)| is_user(executor));
    executor.map(|(name, _)| format!("executor \"{name}\""))
}
