//! `[pipelines]`: from the manifest to graphs, and what is wrong with them as far as no model need be loaded for that.

mod read;

use self::read::Reader;
use super::{ExecutorKind, ModelName, ModelPlan, Planner, SourcePlan};
use crate::error::Error;
use crate::graph::{Fault, Graph, Step, structure};
use crate::policy::diagnostic::{Diagnostic, Diagnostics};
use crate::policy::manifest::{self, Manifest, Spanned};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// A graph, and where it stands in the manifest.
#[derive(Clone, Debug)]
pub struct PipelinePlan {
    pub graph: Arc<Graph>,
    places: Arc<Places>,
}

/// Where the keys of a pipeline stand, for faults that show only once its models are there.
#[derive(Debug)]
struct Places {
    path: PathBuf,
    text: Arc<str>,
    /// By key, such as `steps.big.in.x`.
    spans: BTreeMap<String, Range<usize>>,
}

impl PipelinePlan {
    /// Faults as an error, with the lines of the manifest.
    pub fn refusal(&self, faults: Vec<Fault>) -> Error {
        let shown = self.diagnostics(faults).to_string();
        Error::invalid(shown.strip_prefix("error: ").unwrap_or(&shown).trim_end())
    }

    fn diagnostics(&self, faults: Vec<Fault>) -> Diagnostics {
        let Places { path, text, spans } = &*self.places;
        let faults = faults.into_iter().map(|fault| placed(&self.graph.name, fault, spans, text)).collect();
        Diagnostics::new(path, text, faults)
    }
}

/// With its path in the message, at the nearest key that is written.
fn placed(pipeline: &str, fault: Fault, spans: &BTreeMap<String, Range<usize>>, text: &str) -> Diagnostic {
    let Fault { place, message, hint, within } = fault;
    let mut key = place.as_str();
    let span = loop {
        if let Some(span) = spans.get(key) {
            break Some(span.clone());
        }
        if key.is_empty() {
            break None;
        }
        key = key.rsplit_once('.').map_or("", |(before, _)| before);
    };
    let span = span.map(|span| match within {
        // Where the text stands as it is, a part of it can be shown.
        Some(part)
            if key == place
                && text.get(span.clone()).is_some_and(|text| {
                    text.starts_with('"') && !text.starts_with("\"\"\"") && !text.contains('\\')
                }) =>
        {
            let start = (span.start + 1 + part.start).min(span.end.saturating_sub(1));
            start..(span.start + 1 + part.end).clamp(start + 1, span.end.max(start + 1))
        }
        _ => span,
    });
    let place = if place.is_empty() { String::new() } else { format!(": {place}") };
    let mut diagnostic = Diagnostic::new(format!("pipeline \"{pipeline}\"{place}: {message}"));
    diagnostic.span = span;
    diagnostic.hint = hint;
    diagnostic
}

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
            let places = Places { path: self.path.to_owned(), text: Arc::clone(&text), spans };
            plans.insert(name, PipelinePlan { graph: Arc::new(graph), places: Arc::new(places) });
        }
        plans
    }

    /// The graph of a model, on an executor that can run it.
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

    /// What the steps say about models: each is there, in one version, and none leads back to its pipeline.
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
                    self.graph_fault(name, fault, &pipeline.places.spans, &pipeline.places.text);
                }
            }
        }
        if let Some(way) = circle(pipelines, models) {
            let message = format!("the pipelines call each other: {}", way.join(" -> "));
            let fault = Fault::new("", message).hint("to run steps again, use a loop");
            let pipeline = &pipelines[way[0].as_str()];
            self.graph_fault(&pipeline.graph.name, fault, &pipeline.places.spans, &pipeline.places.text);
        } else if let Some(name) = too_deep(pipelines, models) {
            let message = format!("pipelines are more than {DEPTH_MAX} deep within one another");
            let pipeline = &pipelines[&name];
            let fault = Fault::new("", message).hint("make one pipeline of several");
            self.graph_fault(&name, fault, &pipeline.places.spans, &pipeline.places.text);
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
            let is_written = manifest.models.keys().any(|key| {
                super::parse_model_name(key.get_ref()).is_some_and(|known| known.name == step.model)
            });
            // What is wrong with it was said; what was unloaded makes the pipeline unavailable, not the plan wrong.
            if is_written || self.overlay.unloaded.contains_key(&*step.model) {
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

impl super::Plan {
    /// What the steps of pipelines do not use of their models, a line each.
    pub fn unused_by_steps(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for (name, pipeline) in &self.pipelines {
            let is_served =
                |model: &ModelPlan| matches!(&model.source, SourcePlan::Pipeline(served) if served == name);
            if !self.models.values().any(is_served) {
                notes.push(format!(
                    "note: no model is the pipeline \"{name}\", so it was not held against its models"
                ));
            }
            for step in &pipeline.graph.steps {
                let models = self.models.iter().filter(|(name, _)| {
                    name.name == step.model
                        && step.version.as_ref().is_none_or(|version| *version == name.version)
                });
                for (name, model) in models {
                    let unused =
                        [("transformer", model.transformer.is_some()), ("labels", !model.labels.is_empty())];
                    for (what, _) in unused.into_iter().filter(|(_, is_there)| *is_there) {
                        let pipeline = &pipeline.graph.name;
                        notes.push(format!(
                            "note: pipeline \"{pipeline}\": step \"{}\" sees tensors; the {what} of model \"{name}\" is not used",
                            step.name
                        ));
                    }
                }
            }
        }
        notes
    }
}

/// Pipelines within one another.
const DEPTH_MAX: usize = 256;

/// By pipeline, those that its steps call.
fn calls<'a>(
    pipelines: &'a BTreeMap<Arc<str>, PipelinePlan>,
    models: &BTreeMap<ModelName, ModelPlan>,
) -> BTreeMap<&'a Arc<str>, Vec<Arc<str>>> {
    pipelines.iter().map(|(name, pipeline)| (name, inner_pipelines(pipeline, models))).collect()
}

/// A way from a pipeline back to it.
fn circle(
    pipelines: &BTreeMap<Arc<str>, PipelinePlan>,
    models: &BTreeMap<ModelName, ModelPlan>,
) -> Option<Vec<String>> {
    let calls = calls(pipelines, models);
    // Those of which nothing leads back.
    let mut done: BTreeSet<&Arc<str>> = BTreeSet::new();
    for root in calls.keys() {
        // Without recursion: they may be as deep as there are.
        let mut way: Vec<(&Arc<str>, usize)> = vec![(root, 0)];
        while let Some((name, next)) = way.last_mut() {
            let name = *name;
            let Some(inner) = calls.get(name).and_then(|calls| calls.get(*next)) else {
                done.insert(name);
                way.pop();
                continue;
            };
            *next += 1;
            if let Some(start) = way.iter().position(|(known, _)| *known == inner) {
                let names = way[start..].iter().map(|(name, _)| name.to_string());
                return Some(names.chain([inner.to_string()]).collect());
            }
            if let Some((inner, _)) = calls.get_key_value(inner).filter(|(inner, _)| !done.contains(*inner)) {
                way.push((inner, 0));
            }
        }
    }
    None
}

/// A pipeline that has too many within it, each in the one before. There is no circle.
fn too_deep(
    pipelines: &BTreeMap<Arc<str>, PipelinePlan>,
    models: &BTreeMap<ModelName, ModelPlan>,
) -> Option<Arc<str>> {
    let calls = calls(pipelines, models);
    let mut level: BTreeSet<Arc<str>> = calls.keys().map(|name| Arc::clone(name)).collect();
    for _ in 0..DEPTH_MAX {
        level = level.iter().flat_map(|name| calls.get(name).into_iter().flatten()).cloned().collect();
    }
    level.into_iter().next()
}

/// The pipelines that are models of a pipeline's steps.
pub(in crate::policy) fn inner_pipelines(
    pipeline: &PipelinePlan,
    models: &BTreeMap<ModelName, ModelPlan>,
) -> Vec<Arc<str>> {
    let mut inner = Vec::new();
    for step in &pipeline.graph.steps {
        for (name, plan) in models.iter().filter(|(name, _)| name.name == step.model) {
            let is_used = step.version.as_ref().is_none_or(|version| *version == name.version);
            if let (true, SourcePlan::Pipeline(pipeline)) = (is_used, &plan.source) {
                inner.push(Arc::clone(pipeline));
            }
        }
    }
    inner
}

/// A model that is a pipeline has none of these keys.
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
