//! Checks `[models]` and `[policy]`: what each model is made of, and where it runs.

use super::executor_plan::{ExecutorKind, ExecutorPlan, base};
use super::model_plan::{CheckPlan, ModelPlan, SourcePlan};
use super::pipeline_plan::PipelinePlan;
use super::planner::Planner;
use super::plugin_plan::PluginPlan;
use crate::input_file::FileKind;
use crate::plugin::Role;
use crate::policy::files::File;
use crate::policy::manifest::{self, Manifest, Spanned};
use crate::policy::model_name::{ModelName, parse_model_name};
use crate::policy::overlay::ON_REQUEST;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

impl Planner<'_> {
    /// Returns the executor of models that `[policy]` does not name.
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
        if self.has_many_faults() {
            self.more += 1;
            return None;
        }
        let known = || executors.keys().map(|name| &**name);
        let hint = self.did_you_mean(name.get_ref(), known());
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
        pipelines: &BTreeMap<Arc<str>, PipelinePlan>,
    ) -> BTreeMap<ModelName, ModelPlan> {
        let mut plans = BTreeMap::new();
        let mut wanted = BTreeMap::new();
        for (route, executor) in &manifest.policy {
            if let Some(name) = parse_model_name(route.get_ref()) {
                // A model that is given twice is a fault, which `policy_names` reports. The first
                // one counts.
                wanted.entry(name).or_insert(executor);
            }
        }
        for (key, table) in &manifest.models {
            let Some(name) = self.model_name(key) else { continue };
            let what = format!("model \"{name}\"");
            let transformer = table
                .transformer
                .as_ref()
                .and_then(|name| self.want_role(&what, name, Role::Transformer, plugins));
            let executor = match (wanted.get(&name), default.filter(|_| table.pipeline.is_none())) {
                (Some(executor), _) => self.executor_named(executor, &what, executors),
                (None, Some(default)) => Some(Arc::clone(default)),
                (None, None) => self.own_executor(&what, table, executors),
            };
            let base = executor.as_ref().and_then(|name| Some((&**name, base(executors, name)?.1.kind())));
            let source = self.source(&what, key, table, base, plugins, pipelines);
            self.check_load(&what, &name, table, manifest);
            let timeout = self.ms(&format!("{what}: "), "timeout_ms", table.timeout_ms.as_ref());
            let batching = self.batching(&what, table);
            let labels = self.labels(&what, table);
            let checks = table
                .checks
                .iter()
                .filter_map(|check| {
                    let file = self.file(&format!("{what}: check"), &check.file, FileKind::Check)?;
                    let tolerance = check.tolerance.as_ref();
                    let of = format!("{what}: check: ");
                    // NaN is out of this range. It would let every answer pass.
                    let tolerance = self.number(&of, "tolerance", tolerance, 0.0, 0.0..=f64::MAX);
                    Some(CheckPlan { file, tolerance })
                })
                .collect();
            if plans.contains_key(&name) {
                self.fault(
                    key.span(),
                    format!("{what} is given twice: a name without a version is version 1"),
                );
            }
            if let (Some(source), Some(executor)) = (source, executor) {
                let idempotent = table.idempotent;
                let plan = ModelPlan {
                    source,
                    executor,
                    transformer,
                    timeout,
                    batching,
                    labels,
                    idempotent,
                    checks,
                };
                plans.insert(name, plan);
            }
        }
        plans
    }

    /// Checks `load` of a model that is served. Models that wait for a client are not checked.
    fn check_load(&mut self, what: &str, name: &ModelName, table: &manifest::Model, manifest: &Manifest) {
        let Some(load) = &table.load else { return };
        match load.get_ref().as_str() {
            "at-start" => {}
            ON_REQUEST if !manifest.server.is_explicit() => {
                let message = format!("{what}: load = \"{ON_REQUEST}\", and clients cannot load models");
                self.hinted(load.span(), message, "add model_control = \"explicit\" under [server]");
            }
            ON_REQUEST if self.overlay.loaded.contains(&*name.name) => {}
            ON_REQUEST => {
                let message = format!("{what}: other versions of \"{}\" are loaded at start", name.name);
                let hint = format!(
                    "clients load all versions of a model together: write load = \"{ON_REQUEST}\" for each"
                );
                self.hinted(load.span(), message, hint);
            }
            other => {
                let hint = self.did_you_mean(other, ["at-start", ON_REQUEST]);
                let message = format!("{what}: load = \"{other}\" is not known{hint}");
                self.hinted(load.span(), message, format!("write \"at-start\" or \"{ON_REQUEST}\""));
            }
        }
    }

    /// Returns the executor for a kind of model if `[policy]` has no default.
    fn own_executor(
        &mut self,
        what: &str,
        table: &manifest::Model,
        executors: &BTreeMap<Arc<str>, ExecutorPlan>,
    ) -> Option<Arc<str>> {
        match (&table.path, &table.remote) {
            _ if table.pipeline.is_some() => Some("pipeline".into()),
            (Some(_), _) => Some("onnx".into()),
            (None, Some(remote)) if table.plugin.is_none() => self.only_triton(what, remote, executors),
            _ => Some("cpu".into()),
        }
    }

    fn labels(&mut self, what: &str, table: &manifest::Model) -> BTreeMap<Arc<str>, File> {
        let files = table.labels.iter().filter_map(|(output, path)| {
            let file = self.file(&format!("{what}: labels of \"{output}\""), path, FileKind::Labels)?;
            Some((output.as_str().into(), file))
        });
        files.collect()
    }

    /// Reads what a model is made of. `base` is its executor, with the kind of the executor that
    /// runs the model in the end.
    fn source(
        &mut self,
        what: &str,
        key: &Spanned<String>,
        table: &manifest::Model,
        base: Option<(&str, ExecutorKind)>,
        plugins: &mut BTreeMap<Arc<str>, PluginPlan>,
        pipelines: &BTreeMap<Arc<str>, PipelinePlan>,
    ) -> Option<SourcePlan> {
        if let Some(pipeline) = &table.pipeline {
            return self.pipeline_source(what, pipeline, table, base, pipelines);
        }
        if let Some((executor, ExecutorKind::Pipeline)) = base {
            let message =
                format!("{what} is not a pipeline, and executor \"{executor}\" runs pipelines only");
            self.hinted(key.span(), message, "name an executor of another kind, such as \"cpu\" or \"onnx\"");
            return None;
        }
        if let Some((executor, ExecutorKind::Triton)) = base {
            return self.remote_source(what, key, table, executor);
        }
        if let (Some(remote), Some(plugin)) = (&table.remote, &table.plugin) {
            self.plugin_and_remote(what, plugin, remote);
            return None;
        }
        if let (Some(remote), None) = (&table.remote, &table.path) {
            self.remote_elsewhere(what, remote, base);
            return None;
        }
        match (&table.path, &table.plugin) {
            (Some(path), None) => {
                let (file, external) = self.onnx_file(what, table, path)?;
                Some(SourcePlan::Onnx { file, external })
            }
            (None, Some(plugin)) => {
                if let Some(pin) = &table.sha256 {
                    let hint = format!("a plugin is pinned by sha256 under [plugins.{}]", plugin.get_ref());
                    self.hinted(pin.span(), format!("{what} has sha256 and no file of its own"), hint);
                }
                if let Some(pin) = table.data_sha256.values().next() {
                    self.fault(pin.span(), format!("{what} has data_sha256 and no file of its own"));
                }
                self.want_role(what, plugin, Role::Model, plugins).map(SourcePlan::Plugin)
            }
            (Some(_), Some(plugin)) => {
                self.fault(plugin.span(), format!("{what} has both a path and a plugin; it can have one"));
                None
            }
            (None, None) => {
                let hint = "add path = \"<file>.onnx\", plugin = \"<name>\", remote = { name = \"<name>\" } or \
                            pipeline = \"<name>\"";
                self.hinted(key.span(), format!("{what} has neither a path nor a plugin"), hint);
                None
            }
        }
    }

    /// Returns the model's file, and the files of its external data.
    pub(super) fn onnx_file(
        &mut self,
        what: &str,
        table: &manifest::Model,
        path: &Spanned<PathBuf>,
    ) -> Option<(File, Vec<File>)> {
        let full = self.folder.join(path.get_ref());
        match self.files.model(&full, &self.limits) {
            Ok((file, external)) => {
                // Until the model has its pinned digest, it may be an old file that has other data.
                if self.pinned(what, &file, table.sha256.as_ref()) {
                    self.data_pinned(what, table, &file, &external);
                }
                Some((file, external))
            }
            Err(error) => {
                self.unreadable(what, path, &error);
                None
            }
        }
    }

    /// Checks the pins of external data. If the model is pinned, each file of its data must be
    /// pinned.
    fn data_pinned(&mut self, what: &str, table: &manifest::Model, file: &File, external: &[File]) {
        let names: Vec<String> =
            external.iter().map(|data| data.beside(file).to_string_lossy().into_owned()).collect();
        let all = || {
            let pins = names.iter().zip(external).take(100);
            let pins = pins.map(|(name, data)| format!("{name:?} = {:?}", data.sha256));
            format!("data_sha256 = {{ {} }}", pins.collect::<Vec<_>>().join(", "))
        };
        let known: BTreeSet<&String> = names.iter().collect();
        // One fault is enough, because each hint compares the name with all others.
        if let Some((name, pin)) = table.data_sha256.iter().find(|(name, _)| !known.contains(name)) {
            let hint = self.did_you_mean(name, names.iter().map(String::as_str));
            let message =
                format!("{what}: data_sha256 has \"{name}\", which is not external data of the model{hint}");
            self.hinted(pin.span(), message, format!("the pins of its data are now {}", all()));
        }
        for (name, data) in names.iter().zip(external) {
            match (table.data_sha256.get(name), &table.sha256) {
                (Some(pin), _) => drop(self.pinned(what, data, Some(pin))),
                (None, Some(pin)) => {
                    let message = format!("{what} is pinned, and its external data \"{name}\" is not");
                    self.hinted(pin.span(), message, format!("add {}", all()));
                    return;
                }
                (None, None) => {}
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
        let Some(known) = plugins.get_key_value(name).map(|(known, _)| Arc::clone(known)) else {
            if self.unreadable.contains(name) {
                return None;
            }
            let hint = self.did_you_mean(name, plugins.keys().map(|name| &**name));
            let message = format!("{what}: no plugin \"{name}\"{hint}");
            self.hinted(plugin.span(), message, format!("add a table [plugins.{name}] with its path"));
            return None;
        };
        plugins.get_mut(&known)?.roles.insert(role);
        Some(known)
    }

    /// Checks that every key of `[policy]` is `default` or a model, and names each model once.
    pub(super) fn policy_names(&mut self, manifest: &Manifest, models: &BTreeMap<ModelName, ModelPlan>) {
        let mut seen = BTreeSet::new();
        let known: BTreeSet<_> =
            manifest.models.keys().filter_map(|key| parse_model_name(key.get_ref())).collect();
        for (route, _) in manifest.policy.iter().filter(|(route, _)| route.get_ref() != "default") {
            let written = route.get_ref();
            let name = parse_model_name(written);
            let Some(name) = name.filter(|name| known.contains(name)) else {
                // With or without a version, like the key itself.
                let known = models.keys().take_while(|_| !self.has_many_faults());
                let known = known.map(|known| match written.contains(':') {
                    true => known.to_string(),
                    false => known.name.to_string(),
                });
                let known: Vec<String> = known.collect();
                let hint = self.did_you_mean(written, known.iter().map(String::as_str));
                self.fault(route.span(), format!("[policy]: no model \"{written}\"{hint}"));
                continue;
            };
            if !seen.insert(name) {
                let message =
                    format!("[policy]: \"{written}\" is given twice: a name without a version is version 1");
                self.fault(route.span(), message);
            }
        }
    }
}
