//! `[pipelines]`: from the manifest to graphs, and what is wrong with them as far as no model need be loaded for that.

use super::{ExecutorKind, ModelName, ModelPlan, Planner, SourcePlan, is_name};
use crate::error::{Error, Kind};
use crate::graph::condition::Condition;
use crate::graph::{
    Choose, Each, Fault, Gather, Graph, InputSpec, Loop, Member, Retry, Source, Step, structure,
};
use crate::policy::diagnostic::{Diagnostic, Diagnostics};
use crate::policy::manifest::{self, Manifest, Spanned, pipelines as written};
use crate::predict::{Datatype, MAX_RANK, Parameter, Shape};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

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

const VISITS: u32 = 10_000;
const VISITS_MAX: u32 = 100_000_000;
const MB: usize = 256;
const MB_MAX: usize = 1 << 20;
const WINDOW: usize = 16;
const WINDOW_MAX: usize = 4096;
const ATTEMPTS_MAX: u32 = 100;
const ROUNDS_MAX: u32 = 1_000_000;

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
                && text
                    .get(span.clone())
                    .is_some_and(|text| text.starts_with('"') && !text.contains('\\')) =>
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

/// Where the keys of one pipeline stand, and what is wrong with them.
struct Reader<'p, 'a> {
    planner: &'p mut Planner<'a>,
    name: Arc<str>,
    spans: BTreeMap<String, Range<usize>>,
    faults: Vec<Fault>,
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
        for (name, pipeline) in pipelines {
            if let Some(way) = leads_back(name, pipelines, models) {
                let message = format!("the pipelines call each other: {}", way.join(" -> "));
                let fault = Fault::new("", message).hint("to run steps again, use a loop");
                self.graph_fault(name, fault, &pipeline.places.spans, &pipeline.places.text);
            }
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
                return Some(fault.hint(format!("set idempotent = true under [models.\"{name}\"]")));
            }
        }
        None
    }
}

impl super::Plan {
    /// What the steps of pipelines do not use of their models, a line each.
    pub fn unused_by_steps(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for pipeline in self.pipelines.values() {
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

/// The way from a pipeline back to it through the pipelines of its steps.
fn leads_back(
    from: &Arc<str>,
    pipelines: &BTreeMap<Arc<str>, PipelinePlan>,
    models: &BTreeMap<ModelName, ModelPlan>,
) -> Option<Vec<String>> {
    let mut seen = BTreeSet::new();
    let mut open = vec![(Arc::clone(from), vec![from.to_string()])];
    while let Some((name, way)) = open.pop() {
        for next in inner_pipelines(pipelines.get(&name)?, models) {
            let mut way = way.clone();
            way.push(next.to_string());
            if next == *from {
                return Some(way);
            }
            if seen.insert(Arc::clone(&next)) {
                open.push((next, way));
            }
        }
    }
    None
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

impl Reader<'_, '_> {
    fn note<T>(&mut self, place: impl Into<String>, value: &Spanned<T>) {
        self.spans.insert(place.into(), value.span());
    }

    fn fault(&mut self, place: impl Into<String>, message: impl Into<String>, hint: impl Into<String>) {
        self.faults.push(Fault::new(place, message).hint(hint));
    }

    fn number<N: Copy + std::fmt::Display + PartialOrd>(
        &mut self,
        place: &str,
        written: Option<&Spanned<N>>,
        default: N,
        bounds: std::ops::RangeInclusive<N>,
    ) -> N {
        let table = format!("pipeline \"{}\": ", self.name);
        self.planner.number(&table, place, written, default, bounds)
    }

    fn graph(&mut self, table: &written::Pipeline) -> Graph {
        let inputs = table.inputs.as_ref().map(|inputs| {
            inputs.iter().filter_map(|(name, written)| self.input(name, written)).collect::<Vec<_>>()
        });
        let outputs = table.outputs.iter().map(|(name, source)| {
            let place = format!("outputs.{name}");
            (Arc::from(name.as_str()), self.source(&place, source))
        });
        let outputs = outputs.collect();
        let each_row = match table.rows.as_ref().map(|rows| (rows.get_ref().as_str(), rows)) {
            None => false,
            Some((word, rows)) => {
                self.note("rows", rows);
                if word != "each" {
                    self.fault(
                        "rows",
                        format!("rows = \"{word}\" is not known"),
                        "write rows = \"each\", or leave it out",
                    );
                }
                true
            }
        };
        Graph {
            name: Arc::clone(&self.name),
            inputs,
            outputs,
            each_row,
            streaming: table.streaming,
            max_visits: self.number("max_visits", table.max_visits.as_ref(), VISITS, 1..=VISITS_MAX),
            max_bytes: self.number("max_mb", table.max_mb.as_ref(), MB, 1..=MB_MAX) << 20,
            parallel: self.number("parallel", table.parallel.as_ref(), 0, 0..=WINDOW_MAX),
            window: self.number("window", table.window.as_ref(), WINDOW, 1..=WINDOW_MAX),
            steps: table.steps.iter().map(|(key, step)| self.step(key, step)).collect(),
        }
    }

    /// `FP32[-1,18]?`
    fn input(&mut self, name: &str, written: &Spanned<String>) -> Option<InputSpec> {
        let place = format!("inputs.{name}");
        self.note(&place, written);
        let text = written.get_ref().as_str();
        let (spec, optional) = text.strip_suffix('?').map_or((text, false), |spec| (spec, true));
        let parsed = spec.split_once('[').and_then(|(datatype, shape)| {
            let shape = shape.strip_suffix(']')?.trim();
            let dimension = |text: &str| text.trim().parse::<i64>().ok().filter(|dimension| *dimension >= -1);
            let shape: Option<Shape> =
                if shape.is_empty() { Some(Shape::new()) } else { shape.split(',').map(dimension).collect() };
            Some((Datatype::parse(datatype.trim())?, shape.filter(|shape| shape.len() <= MAX_RANK)?))
        });
        let Some((datatype, shape)) = parsed else {
            let known = Datatype::ALL.map(Datatype::as_str).join(", ");
            let message = format!("\"{text}\" is not a datatype with a shape");
            self.fault(
                place,
                message,
                format!("write one such as \"FP32[-1,18]\", with ? if it may be absent; datatypes: {known}"),
            );
            return None;
        };
        Some(InputSpec { name: name.into(), datatype, shape, optional })
    }

    fn step(&mut self, key: &Spanned<String>, table: &written::Step) -> Step {
        let name: Arc<str> = key.get_ref().as_str().into();
        let place = format!("steps.{name}");
        let at = |key: &str| format!("{place}.{key}");
        self.note(place.as_str(), key);
        self.note(at("model"), &table.model);
        let model = table.model.get_ref().as_str();
        let (model, version) =
            model.split_once(':').map_or((model, None), |(model, version)| (model, Some(version)));
        if !is_name(model) || version.is_some_and(|version| !is_name(version)) {
            self.fault(
                at("model"),
                format!("\"{}\" is not a model's name", table.model.get_ref()),
                "write \"name\" or \"name:version\"",
            );
        }
        let inputs = table.inputs.iter().map(|(input, source)| {
            let place = at(&format!("in.{input}"));
            (Arc::from(input.as_str()), self.source(&place, source))
        });
        let inputs = inputs.collect();
        let skips_on_error = self.one_of(at("on_error"), table.on_error.as_ref(), ["fail", "skip"]) == 1;
        let step_place = place.clone();
        Step {
            inputs,
            after: self.names(at("after"), &table.after),
            when: table.when.as_ref().and_then(|when| self.condition(at("when"), when)),
            choose: table.choose.as_ref().map(|choose| {
                self.note(at("choose.by"), &choose.by);
                let by = choose.by.get_ref().as_str().into();
                Choose { by, among: self.names(at("choose.among"), &choose.among) }
            }),
            each: table.each.as_ref().map(|each| Each {
                split: self.names(at("each.split"), &each.split),
                rows: self.number(&at("each.rows"), each.rows.as_ref(), 1, 1..=1 << 20),
            }),
            looped: table.looped.as_ref().and_then(|looped| self.looped(&step_place, looped)),
            timeout: table.timeout_ms.as_ref().map(|ms| {
                self.note(at("timeout_ms"), ms);
                Duration::from_millis(self.number(&at("timeout_ms"), Some(ms), 1, 1..=super::MS_MAX))
            }),
            skips_on_error,
            retry: table.retry.as_ref().map(|retry| self.retry(&step_place, retry)),
            max_in_flight: table
                .max_in_flight
                .as_ref()
                .map(|most| self.number(&at("max_in_flight"), Some(most), 1, 1..=super::bounds::CALLS_MAX)),
            max_per_s: table
                .max_per_s
                .as_ref()
                .map(|most| self.number(&at("max_per_s"), Some(most), 1.0, 0.001..=1e6)),
            params: self.params(&step_place, &table.params),
            may_omit: self.names(at("may_omit"), &table.may_omit),
            always: table.always,
            detach: table.detach,
            name,
            model: model.into(),
            version: version.map(Into::into),
        }
    }

    fn names(&mut self, place: String, names: &[Spanned<String>]) -> Vec<Arc<str>> {
        if let (Some(first), Some(last)) = (names.first(), names.last()) {
            self.spans.insert(place, first.span().start..last.span().end);
        }
        names.iter().map(|name| name.get_ref().as_str().into()).collect()
    }

    /// The place of a word in its list; the first is the default.
    fn one_of<const N: usize>(
        &mut self,
        place: String,
        word: Option<&Spanned<String>>,
        known: [&str; N],
    ) -> usize {
        let Some(word) = word else { return 0 };
        self.note(place.as_str(), word);
        let at = known.iter().position(|known| *known == word.get_ref().as_str());
        at.unwrap_or_else(|| {
            let message = format!("\"{}\" is not known", word.get_ref());
            self.fault(place, message, format!("write one of \"{}\"", known.join("\", \"")));
            0
        })
    }

    fn condition(&mut self, place: String, text: &Spanned<String>) -> Option<Condition> {
        self.note(place.as_str(), text);
        match Condition::parse(text.get_ref()) {
            Ok(condition) => Some(condition),
            Err(fault) => {
                let mut shown = Fault::new(place, fault.message).within(fault.at);
                shown.hint = fault.hint;
                self.faults.push(shown);
                None
            }
        }
    }

    fn looped(&mut self, step: &str, table: &written::Loop) -> Option<Loop> {
        let at = |key: &str| format!("{step}.loop.{key}");
        let again_while = self.condition(at("while"), &table.again_while);
        let goes_on = self.one_of(at("at_max"), table.at_max.as_ref(), ["fail", "go-on"]) == 1;
        self.note(at("max"), &table.max);
        let max = self.number(&at("max"), Some(&table.max), 1, 1..=ROUNDS_MAX);
        let carry = table.carry.iter().map(|(input, output)| {
            self.note(at("carry"), output);
            (Arc::from(input.as_str()), Arc::from(output.get_ref().as_str()))
        });
        let carry = carry.collect();
        Some(Loop { again_while: again_while?, max, goes_on_at_max: goes_on, carry })
    }

    fn retry(&mut self, step: &str, table: &written::Retry) -> Retry {
        let at = |key: &str| format!("{step}.retry.{key}");
        self.note(format!("{step}.retry"), &table.attempts);
        let mut on = Vec::new();
        for kind in table.on.iter().flatten() {
            self.note(at("on"), kind);
            let word = kind.get_ref().as_str();
            match Kind::ALL.iter().find(|known| known.as_str() == word) {
                Some(Kind::Cancelled) | None => {
                    let known = ["overloaded", "unavailable", "deadline", "failed"];
                    let hint = self.planner.did_you_mean(word, known);
                    self.fault(
                        at("on"),
                        format!("\"{word}\" is not an error that can be retried{hint}"),
                        format!("write some of {}", known.join(", ")),
                    );
                }
                Some(kind) => on.push(*kind),
            }
        }
        if table.on.is_none() {
            on = vec![Kind::Overloaded, Kind::Unavailable, Kind::Deadline];
        }
        let ms = |ms: u64| Duration::from_millis(ms);
        Retry {
            attempts: self.number(&at("attempts"), Some(&table.attempts), 1, 1..=ATTEMPTS_MAX),
            interval: ms(self.number(&at("interval_ms"), table.interval_ms.as_ref(), 10, 0..=super::MS_MAX)),
            factor: self.number(&at("factor"), table.factor.as_ref(), 2.0, 1.0..=100.0),
            max_interval: ms(self.number(
                &at("max_interval_ms"),
                table.max_interval_ms.as_ref(),
                1000,
                0..=super::MS_MAX,
            )),
            on,
        }
    }

    fn params(
        &mut self,
        step: &str,
        table: &BTreeMap<String, Spanned<toml::Value>>,
    ) -> Vec<(String, Parameter)> {
        let mut params = Vec::new();
        for (name, value) in table {
            let place = format!("{step}.params.{name}");
            self.note(place.as_str(), value);
            match value.get_ref() {
                toml::Value::Boolean(value) => params.push((name.clone(), Parameter::Boolean(*value))),
                toml::Value::Integer(value) => params.push((name.clone(), Parameter::Integer(*value))),
                toml::Value::Float(value) => params.push((name.clone(), Parameter::Number(*value))),
                toml::Value::String(value) => params.push((name.clone(), Parameter::Text(value.clone()))),
                other => {
                    let message =
                        format!("a parameter cannot be {} {}", article(other.type_str()), other.type_str());
                    self.fault(place, message, "write a boolean, a number or a string");
                }
            }
        }
        params
    }

    fn source(&mut self, place: &str, written: &Spanned<written::Source>) -> Source {
        self.note(place, written);
        let (members, gather) = match written.get_ref() {
            written::Source::One(member) => (std::slice::from_ref(member), None),
            written::Source::List(members) => (&members[..], None),
            written::Source::Gathered { from, gather } => (&from[..], Some(gather.as_str())),
        };
        let gather = gather.and_then(|word| match word {
            "stack" => Some(Gather::Stack),
            "last" => Some(Gather::Last),
            other => {
                self.fault(
                    place,
                    format!("gather = \"{other}\" is not known"),
                    "write \"stack\" or \"last\"",
                );
                None
            }
        });
        let mut source = Source { members: Vec::new(), optional: false, gather };
        for member in members {
            match member {
                written::Member::Const(value) => match serde_json::to_string(value) {
                    Ok(json) => source.members.push(Member::Const(json.into())),
                    Err(error) => self.fault(
                        place,
                        format!("the constant cannot be read: {error}"),
                        "write nested lists of numbers, booleans or strings",
                    ),
                },
                written::Member::Text(text) => {
                    let (text, optional) =
                        text.strip_suffix('?').map_or((text.as_str(), false), |text| (text, true));
                    source.optional |= optional;
                    match text.split_once('.') {
                        Some(("input", name)) if !name.is_empty() => {
                            source.members.push(Member::Input(name.into()))
                        }
                        Some((step, output)) if !step.is_empty() && !output.is_empty() => {
                            source.members.push(Member::Output { step: step.into(), output: output.into() });
                        }
                        _ => self.fault(
                            place,
                            format!("\"{text}\" names no tensor"),
                            "write \"STEP.OUTPUT\" or \"input.NAME\"",
                        ),
                    }
                }
            }
        }
        source
    }
}

fn article(word: &str) -> &'static str {
    if word.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" }
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
