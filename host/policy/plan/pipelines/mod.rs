//! Checks `[pipelines]` and makes graphs of them.
//!
//! Finds all faults that can be found before the models of the steps are loaded.

mod nesting;
mod read;
mod unused;

pub(in crate::policy) use nesting::inner_pipelines;

use self::nesting::{DEPTH_MAX, cycle, too_deep};
use self::read::Reader;
use super::executor_plan::ExecutorKind;
use super::model_plan::{ModelPlan, SourcePlan};
use super::pipeline_plan::{KeySpans, PipelinePlan, placed};
use super::planner::Planner;
use crate::graph::{Fault, Step, structure};
use crate::policy::manifest::{self, Manifest, Spanned};
use crate::policy::model_name::{ModelName, parse_model_name};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

impl Planner<'_> {
    pub(super) fn pipelines(&mut self, manifest: &Manifest, text: &str) -> BTreeMap<Arc<str>, PipelinePlan> {
        let mut plans = BTreeMap::new();
        let text: Arc<str> = if manifest.pipelines.is_empty() { "".into() } else { text.into() };
        for (key, table) in &manifest.pipelines {
            self.check_name("pipeline", key);
            let name: Arc<str> = key.get_ref().as_str().into();
            let mut reader =
                Reader { planner: self, name: Arc::clone(&name), spans: BTreeMap::new(), faults: Vec::new() };
            reader.spans.insert(String::new(), key.span());
            let graph = reader.graph(table);
            let Reader { spans, mut faults, .. } = reader;
            if faults.is_empty() {
                faults = structure(&graph);
            }
            for fault in faults {
                self.graph_fault(&name, fault, &spans, &text);
            }
            let keys = KeySpans { path: self.path.to_owned(), text: Arc::clone(&text), spans };
            plans.insert(name, PipelinePlan { graph: Arc::new(graph), keys: Arc::new(keys) });
        }
        plans
    }

    /// Returns the graph of a model, if its executor can run it.
    pub(super) fn pipeline_source(
        &mut self,
        what: &str,
        pipeline: &Spanned<String>,
        table: &manifest::Model,
        base: Option<(&str, ExecutorKind)>,
        pipelines: &BTreeMap<Arc<str>, PipelinePlan>,
    ) -> Option<SourcePlan> {
        if let Some((key, span)) = misplaced(table) {
            let message = format!("{what} is a pipeline and cannot have {key}");
            self.hinted(span, message, "a pipeline is made of other models, each with its own keys");
            return None;
        }
        if let Some((executor, kind)) = base.filter(|(_, kind)| *kind != ExecutorKind::Pipeline) {
            let message = format!(
                "{what} is a pipeline, and executor \"{executor}\" of kind {} cannot run it",
                kind.as_str()
            );
            self.hinted(
                pipeline.span(),
                message,
                "name an executor of kind pipeline in [policy], such as \"pipeline\"",
            );
            return None;
        }
        let name = pipeline.get_ref().as_str();
        if let Some((known, _)) = pipelines.get_key_value(name) {
            return Some(SourcePlan::Pipeline(Arc::clone(known)));
        }
        let hint = self.did_you_mean(name, pipelines.keys().map(|name| &**name));
        let message = format!("{what}: no pipeline \"{name}\"{hint}");
        self.hinted(pipeline.span(), message, format!("add a table [pipelines.{name}]"));
        None
    }

    fn graph_fault(
        &mut self,
        pipeline: &str,
        fault: Fault,
        spans: &BTreeMap<String, Range<usize>>,
        text: &str,
    ) {
        let diagnostic = placed(pipeline, fault, spans, text);
        let span = diagnostic.span.clone().unwrap_or(0..0);
        self.fault(span, diagnostic.message).hint = diagnostic.hint;
    }

    /// Checks that each step's model exists, in one version, and that no pipeline calls itself.
    pub(super) fn pipeline_models(
        &mut self,
        manifest: &Manifest,
        pipelines: &BTreeMap<Arc<str>, PipelinePlan>,
        models: &BTreeMap<ModelName, ModelPlan>,
    ) {
        let routed: BTreeSet<&str> = manifest.routing.keys().map(|key| key.get_ref().as_str()).collect();
        for (name, pipeline) in pipelines {
            for step in &pipeline.graph.steps {
                if let Some(fault) = self.step_model(manifest, models, &routed, step) {
                    self.graph_fault(name, fault, &pipeline.keys.spans, &pipeline.keys.text);
                }
            }
        }
        if let Some(path) = cycle(pipelines, models) {
            let message = format!("the pipelines call each other: {}", path.join(" -> "));
            let fault = Fault::new("", message).hint("to run steps again, use a loop");
            let pipeline = &pipelines[path[0].as_str()];
            self.graph_fault(&pipeline.graph.name, fault, &pipeline.keys.spans, &pipeline.keys.text);
        } else if let Some(name) = too_deep(pipelines, models) {
            let message = format!("pipelines are nested more than {DEPTH_MAX} deep");
            let pipeline = &pipelines[&name];
            let fault = Fault::new("", message).hint("combine several pipelines into one");
            self.graph_fault(&name, fault, &pipeline.keys.spans, &pipeline.keys.text);
        }
    }

    fn step_model(
        &mut self,
        manifest: &Manifest,
        models: &BTreeMap<ModelName, ModelPlan>,
        routed: &BTreeSet<&str>,
        step: &Step,
    ) -> Option<Fault> {
        let place = format!("steps.{}.model", step.name);
        let versions: Vec<&ModelName> = models.keys().filter(|known| known.name == step.model).collect();
        if versions.is_empty() {
            let is_written = manifest
                .models
                .keys()
                .any(|key| parse_model_name(key.get_ref()).is_some_and(|known| known.name == step.model));
            // Faults of the model were reported already. An unloaded model makes the pipeline
            // unavailable; it is no fault of the plan.
            if is_written || self.overlay.holds_back(&step.model) {
                return None;
            }
            let hint = self.did_you_mean(&step.model, models.keys().map(|known| &*known.name));
            let fault = Fault::new(place, format!("no model \"{}\"{hint}", step.model));
            return Some(fault.hint(format!("add a table [models.{}]", step.model)));
        }
        let known: Vec<&str> = versions.iter().map(|known| &*known.version).collect();
        let used: Vec<&ModelName> = match &step.version {
            Some(version) => match versions.iter().find(|known| known.version == *version) {
                Some(known) => vec![known],
                None => {
                    let hint = self.did_you_mean(version, known.iter().copied());
                    let message = format!("model \"{}\" has no version \"{version}\"{hint}", step.model);
                    return Some(Fault::new(place, message).hint(format!("versions: {}", known.join(", "))));
                }
            },
            None if versions.len() > 1 && !routed.contains(&*step.model) => {
                let message = format!(
                    "model \"{}\" has {} versions and no rule that chooses one",
                    step.model,
                    known.len()
                );
                let hint = format!("write \"{}:{}\", or add [routing.{}]", step.model, known[0], step.model);
                return Some(Fault::new(place, message).hint(hint));
            }
            None => versions,
        };
        if step.retry.is_some() {
            let repeats = |name: &&ModelName| {
                let plan = &models[*name];
                plan.idempotent || matches!(plan.source, SourcePlan::Onnx { .. })
            };
            if let Some(name) = used.iter().find(|name| !repeats(name)) {
                let message = format!(
                    "model \"{name}\" is not known to give the same answer twice, so it cannot be retried"
                );
                let fault = Fault::new(format!("steps.{}.retry", step.name), message);
                return Some(fault.hint(format!("add idempotent = true to the model \"{}\"", name.name)));
            }
        }
        None
    }
}

/// Returns a key that a model which is a pipeline cannot have.
fn misplaced(table: &manifest::Model) -> Option<(&'static str, Range<usize>)> {
    let keys = [
        ("path", table.path.as_ref().map(Spanned::span)),
        ("plugin", table.plugin.as_ref().map(Spanned::span)),
        ("remote", table.remote.as_ref().map(Spanned::span)),
        ("sha256", table.sha256.as_ref().map(Spanned::span)),
        ("data_sha256", table.data_sha256.values().next().map(Spanned::span)),
        ("max_batch_size", table.max_batch_size.as_ref().map(Spanned::span)),
        ("max_queue_delay_us", table.max_queue_delay_us.as_ref().map(Spanned::span)),
    ];
    keys.into_iter().find_map(|(key, span)| Some((key, span?)))
}
