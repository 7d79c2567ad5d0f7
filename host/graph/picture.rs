//! A graph as text for a terminal, and as source for Mermaid and Graphviz.

use super::definition::{Graph, Member, Source, Step};
use crate::output::one_line;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

/// Describes a step in one line: what it calls, what it reads, and its options.
fn line(step: &Step) -> String {
    let version = step.version.as_ref().map_or_else(String::new, |version| format!(":{version}"));
    let inputs: Vec<String> =
        step.inputs.iter().map(|(name, source)| format!("{name} = {}", sources(source))).collect();
    let call = format!("{}{version} ({})", step.model, inputs.join(", "));
    std::iter::once(call).chain(notes(step)).collect::<Vec<_>>().join("; ")
}

impl Graph {
    /// Returns the graph as texts by key. Two graphs that differ have different entries.
    pub fn entries(&self) -> BTreeMap<String, String> {
        let Graph {
            name: _,
            inputs,
            outputs,
            each_row,
            streaming,
            keeps_steps,
            max_visits,
            max_bytes,
            parallel,
            window,
            steps,
        } = self;
        let mut entries: BTreeMap<String, String> = BTreeMap::new();
        for input in inputs.iter().flatten() {
            let optional = if input.optional { "?" } else { "" };
            let spec = format!("{}{}{optional}", input.datatype.as_str(), input.shape);
            entries.insert(format!("inputs.{}", input.name), spec);
        }
        entries.extend(outputs.iter().map(|(name, source)| (format!("outputs.{name}"), sources(source))));
        entries.insert("rows".into(), if *each_row { "each" } else { "together" }.into());
        entries.insert("streaming".into(), streaming.to_string());
        if *keeps_steps {
            entries.insert("keep".into(), "steps".into());
        }
        entries.insert("max_visits".into(), max_visits.to_string());
        entries.insert("max_mb".into(), (max_bytes >> 20).to_string());
        entries.insert("parallel".into(), parallel.to_string());
        entries.insert("window".into(), window.to_string());
        for step in steps {
            // The line does not contain everything about a step, so a digest is appended.
            let digest = Sha256::digest(format!("{step:?}"));
            let digest: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
            entries.insert(format!("steps.{}", step.name), format!("{} [{digest}]", line(step)));
        }
        entries
    }
}

/// Returns one line for each step, with what it reads and its options.
pub fn text(graph: &Graph) -> String {
    let mut shown = format!("pipeline \"{}\"\n", graph.name);
    let width = graph.steps.iter().map(|step| step.name.len()).max().unwrap_or(0);
    for step in &graph.steps {
        let _ = writeln!(shown, "  {:width$}  {}", step.name, one_line(&line(step)));
    }
    for (name, source) in &graph.outputs {
        let _ = writeln!(shown, "  -> {} = {}", one_line(name), one_line(&sources(source)));
    }
    shown
}

fn sources(source: &Source) -> String {
    let members: Vec<String> = source.members.iter().map(Member::to_string).collect();
    let optional = if source.optional { "?" } else { "" };
    let gather = source.gather.map_or_else(String::new, |gather| format!(" ({gather:?})").to_lowercase());
    format!("{}{optional}{gather}", members.join(" or "))
}

/// Returns the options of a step, each as a few words.
pub(super) fn notes(step: &Step) -> Vec<String> {
    let mut notes = Vec::new();
    notes.extend(step.when.as_ref().map(|when| format!("when {}", when.text)));
    notes.extend(step.choose.as_ref().map(|choose| format!("chooses among {}", choose.among.join(", "))));
    notes.extend(
        step.each.as_ref().map(|each| format!("each {} rows of {}", each.rows, each.split.join(", "))),
    );
    notes.extend(
        step.looped.as_ref().map(|l| format!("again while {}, up to {} times", l.again_while.text, l.max)),
    );
    notes.extend(step.looped.as_ref().filter(|l| l.goes_on_at_max).map(|_| "then goes on".to_owned()));
    let carried = step.looped.iter().flat_map(|looped| &looped.carry);
    notes.extend(carried.map(|(input, output)| format!("carries {output} into {input}")));
    notes.extend(step.timeout.map(|timeout| format!("within {} ms", timeout.as_millis())));
    notes.extend(step.skips_on_error.then(|| "skipped on error".to_owned()));
    notes.extend(step.retry.as_ref().map(|retry| {
        let on: Vec<&str> = retry.on.iter().map(|kind| kind.as_str()).collect();
        format!("up to {} attempts on {}", retry.attempts, on.join(", "))
    }));
    let params: Vec<&str> = step.params.iter().map(|(name, _)| &**name).collect();
    notes.extend((!params.is_empty()).then(|| format!("sets {}", params.join(", "))));
    notes.extend((!step.may_omit.is_empty()).then(|| format!("may omit {}", step.may_omit.join(", "))));
    notes.extend(step.max_in_flight.map(|most| format!("{most} in flight")));
    notes.extend(step.max_per_s.map(|most| format!("{most} per second")));
    notes.extend((!step.after.is_empty()).then(|| format!("after {}", step.after.join(", "))));
    notes.extend(step.always.then(|| "always".to_owned()));
    notes.extend(step.detach.then(|| "detached".to_owned()));
    notes
}

/// The ends of the graph. These are not valid names of steps.
pub(super) const INPUT: &str = "(input)";
pub(super) const OUTPUT: &str = "(output)";

/// An edge, and how it is drawn.
pub(super) struct Edge {
    pub from: String,
    pub to: String,
    pub label: String,
    pub is_choice: bool,
}

pub(super) fn edges(graph: &Graph) -> Vec<Edge> {
    let mut edges: Vec<Edge> = Vec::new();
    let mut known: HashMap<(String, String, bool), usize> = HashMap::new();
    let mut add = |from: String, to: String, label: String, is_choice: bool| {
        let next = edges.len();
        match *known.entry((from.clone(), to.clone(), is_choice)).or_insert(next) {
            at if at == next => edges.push(Edge { from, to, label, is_choice }),
            at if edges[at].label == label || label.is_empty() => {}
            at => edges[at].label.extend([", ", &label]),
        }
    };
    let mut read = |source: &Source, to: &str| {
        for member in &source.members {
            match member {
                Member::Input(name) => add(INPUT.to_owned(), to.to_owned(), name.to_string(), false),
                Member::Output { step, output } => {
                    add(step.to_string(), to.to_owned(), output.to_string(), false);
                }
                Member::Const(_) => {}
            }
        }
    };
    for step in &graph.steps {
        step.inputs.iter().for_each(|(_, source)| read(source, &step.name));
    }
    graph.outputs.iter().for_each(|(_, source)| read(source, OUTPUT));
    for step in &graph.steps {
        for name in step.choose.iter().flat_map(|choose| &choose.among) {
            add(step.name.to_string(), name.to_string(), "may choose".to_owned(), true);
        }
        let referenced = step.when.iter().flat_map(|when| when.steps());
        for name in step.after.iter().chain(referenced) {
            add(name.to_string(), step.name.to_string(), String::new(), true);
        }
    }
    edges
}

/// Replaces the quotes, which would end a label, and escapes line breaks.
fn quoted(text: &str) -> String {
    one_line(text).replace('"', "'")
}

pub fn mermaid(graph: &Graph) -> String {
    let mut shown =
        format!("%% pipeline \"{}\"\nflowchart LR\n  input([input])\n  output([output])\n", graph.name);
    for step in &graph.steps {
        let lines = std::iter::once(format!("{}: {}", step.name, step.model)).chain(notes(step));
        let label = lines.map(|line| quoted(&line)).collect::<Vec<_>>().join("<br/>");
        let (open, close) = if step.choose.is_some() { ("{", "}") } else { ("[", "]") };
        let _ = writeln!(shown, "  step_{}{open}\"{label}\"{close}", step.name);
    }
    let id = |name: &str| {
        if matches!(name, INPUT | OUTPUT) {
            name.trim_matches(['(', ')']).to_owned()
        } else {
            format!("step_{name}")
        }
    };
    for edge in edges(graph) {
        let arrow = if edge.is_choice { "-.->" } else { "-->" };
        let label =
            if edge.label.is_empty() { String::new() } else { format!("|\"{}\"|", quoted(&edge.label)) };
        let _ = writeln!(shown, "  {} {arrow}{label} {}", id(&edge.from), id(&edge.to));
    }
    shown
}

pub fn dot(graph: &Graph) -> String {
    let mut shown = format!("digraph \"{}\" {{\n  rankdir=LR;\n", quoted(&graph.name));
    shown.push_str("  \"(input)\" [shape=oval, label=input];\n  \"(output)\" [shape=oval, label=output];\n");
    for step in &graph.steps {
        let lines = std::iter::once(format!("{}: {}", step.name, step.model)).chain(notes(step));
        let label = lines.map(|line| quoted(&line).replace('\\', "\\\\")).collect::<Vec<_>>().join("\\n");
        let shape = if step.choose.is_some() { "diamond" } else { "box" };
        let _ = writeln!(shown, "  \"{}\" [shape={shape}, label=\"{label}\"];", step.name);
    }
    for edge in edges(graph) {
        let style = if edge.is_choice { ", style=dashed" } else { "" };
        let label = quoted(&edge.label);
        let _ = writeln!(shown, "  \"{}\" -> \"{}\" [label=\"{label}\"{style}];", edge.from, edge.to);
    }
    shown.push_str("}\n");
    shown
}
