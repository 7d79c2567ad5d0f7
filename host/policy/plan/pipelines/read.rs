//! Reads the tables of a pipeline into a graph, with every default filled in.

use crate::error::Kind;
use crate::graph::condition::Condition;
use crate::graph::{Choose, Each, Fault, Gather, Graph, InputSpec, Loop, Member, Retry, Source, Step};
use crate::policy::manifest::{Spanned, pipelines as written};
use crate::policy::milliseconds::MS_MAX;
use crate::policy::model_name::is_name;
use crate::policy::plan::bounds::CALLS_MAX;
use crate::policy::plan::planner::Planner;
use crate::predict::{Datatype, MAX_RANK, Parameter, Shape, ShapeSpec};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// Errors that may not occur again.
const RETRIED: [Kind; 4] = [Kind::Overloaded, Kind::Unavailable, Kind::Deadline, Kind::Failed];

const VISITS: u32 = 10_000;
const VISITS_MAX: u32 = 100_000_000;
const MB: usize = 256;
const MB_MAX: usize = 1 << 20;
const WINDOW: usize = 16;
const WINDOW_MAX: usize = 4096;
const ATTEMPTS_MAX: u32 = 100;
const ROUNDS_MAX: u32 = 1_000_000;

/// Reads one pipeline, and collects where its keys are and their faults.
pub(super) struct Reader<'p, 'a> {
    pub planner: &'p mut Planner<'a>,
    pub name: Arc<str>,
    pub spans: BTreeMap<String, Range<usize>>,
    pub faults: Vec<Fault>,
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

    pub fn graph(&mut self, table: &written::Pipeline) -> Graph {
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
            Some((value, rows)) => {
                self.note("rows", rows);
                if value != "each" {
                    self.fault(
                        "rows",
                        format!("rows = \"{value}\" is not known"),
                        "write rows = \"each\", or leave it out",
                    );
                }
                true
            }
        };
        let keeps_steps = self.keeps_steps(table);
        Graph {
            name: Arc::clone(&self.name),
            inputs,
            outputs,
            each_row,
            streaming: table.streaming,
            keeps_steps,
            max_visits: self.number("max_visits", table.max_visits.as_ref(), VISITS, 1..=VISITS_MAX),
            max_bytes: self.number("max_mb", table.max_mb.as_ref(), MB, 1..=MB_MAX) << 20,
            parallel: self.number("parallel", table.parallel.as_ref(), 0, 0..=WINDOW_MAX),
            window: self.number("window", table.window.as_ref(), WINDOW, 1..=WINDOW_MAX),
            steps: table.steps.iter().map(|(key, step)| self.step(key, step)).collect(),
        }
    }

    fn keeps_steps(&mut self, table: &written::Pipeline) -> bool {
        let Some(keep) = &table.keep else { return false };
        self.note("keep", keep);
        if keep.get_ref() != "steps" {
            let message = format!("keep = \"{}\" is not known", keep.get_ref());
            self.fault("keep", message, "write keep = \"steps\", or leave it out");
        }
        if table.streaming {
            let message = "keep is for jobs, and a streaming pipeline cannot run as a job";
            self.fault("keep", message, "leave out keep or streaming");
        }
        true
    }

    /// Parses an input such as `FP32[-1,18]?`.
    fn input(&mut self, name: &str, written: &Spanned<String>) -> Option<InputSpec> {
        let place = format!("inputs.{name}");
        self.note(&place, written);
        let text = written.get_ref().as_str();
        let (spec, optional) = text.strip_suffix('?').map_or((text, false), |spec| (spec, true));
        let parsed = spec.split_once('[').and_then(|(datatype, shape)| {
            let shape = shape.strip_suffix(']')?.trim();
            let dimension = |text: &str| text.trim().parse::<i64>().ok().filter(|dimension| *dimension >= -1);
            let shape = match shape {
                "..." => Some(ShapeSpec::AnyRank),
                "" => Some(Shape::new().into()),
                dimensions => {
                    let shape: Option<Shape> = dimensions.split(',').map(dimension).collect();
                    shape.filter(|shape| shape.len() <= MAX_RANK).map(ShapeSpec::Ranked)
                }
            };
            Some((Datatype::parse(datatype.trim())?, shape?))
        });
        let Some((datatype, shape)) = parsed else {
            let known = Datatype::ALL.map(Datatype::as_str).join(", ");
            let message = format!("\"{text}\" is not a datatype with a shape");
            self.fault(
                place,
                message,
                format!("write one such as \"FP32[-1,18]\", or \"FP32[...]\" for any number of dimensions, with ? if it may be absent; datatypes: {known}"),
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
                Duration::from_millis(self.number(&at("timeout_ms"), Some(ms), 1, 1..=MS_MAX))
            }),
            skips_on_error,
            retry: table.retry.as_ref().map(|retry| self.retry(&step_place, retry)),
            max_in_flight: table
                .max_in_flight
                .as_ref()
                .map(|most| self.number(&at("max_in_flight"), Some(most), 1, 1..=CALLS_MAX)),
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

    /// Returns the index of a value in the list of known ones. The first is the default.
    fn one_of<const N: usize>(
        &mut self,
        place: String,
        value: Option<&Spanned<String>>,
        known: [&str; N],
    ) -> usize {
        let Some(value) = value else { return 0 };
        self.note(place.as_str(), value);
        let at = known.iter().position(|known| *known == value.get_ref().as_str());
        at.unwrap_or_else(|| {
            let message = format!("\"{}\" is not known", value.get_ref());
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
            let written = kind.get_ref().as_str();
            match Kind::ALL.iter().find(|known| known.as_str() == written) {
                Some(kind) if RETRIED.contains(kind) => on.push(*kind),
                _ => {
                    let known = RETRIED.map(Kind::as_str);
                    let hint = self.planner.did_you_mean(written, known);
                    self.fault(
                        at("on"),
                        format!("\"{written}\" is not an error that can be retried{hint}"),
                        format!("write some of {}", known.join(", ")),
                    );
                }
            }
        }
        match &table.on {
            None => on = vec![Kind::Overloaded, Kind::Unavailable, Kind::Deadline],
            Some(kinds) if kinds.is_empty() => {
                let message = "no error is retried, so retry does nothing";
                self.fault(at("on"), message, "write on = [\"overloaded\"], or leave on out");
            }
            Some(_) => {}
        }
        let ms = |ms: u64| Duration::from_millis(ms);
        Retry {
            attempts: self.number(&at("attempts"), Some(&table.attempts), 1, 1..=ATTEMPTS_MAX),
            interval: ms(self.number(&at("interval_ms"), table.interval_ms.as_ref(), 10, 0..=MS_MAX)),
            factor: self.number(&at("factor"), table.factor.as_ref(), 2.0, 1.0..=100.0),
            max_interval: ms(self.number(
                &at("max_interval_ms"),
                table.max_interval_ms.as_ref(),
                1000,
                0..=MS_MAX,
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
        let gather = gather.and_then(|gather| match gather {
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
                            source.members.push(Member::Input(name.into()));
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
