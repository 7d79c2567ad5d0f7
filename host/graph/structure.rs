//! The checks of a graph that need no models: names, edges and keys.

use super::condition::{self, TensorRef};
use super::definition::{Graph, Member, Source, Step};
use super::fault::Fault;
use super::wiring::{Wiring, closure, sorted};
use crate::error::did_you_mean;
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// The most steps, inputs or outputs of a graph.
const STEPS_MAX: usize = 1000;
/// The most names of steps and tensors in the steps and outputs of a graph.
const NAMES_MAX: usize = 20_000;
/// The most faults of one kind that are reported: a "did you mean" takes time.
const FAULTS_MAX: usize = 40;

/// Checks the names, the edges and the keys of a graph.
pub fn structure(graph: &Graph) -> Vec<Fault> {
    wire(graph).err().unwrap_or_default()
}

/// Refuses a graph that is too large to be checked quickly.
fn too_many(graph: &Graph) -> Option<Fault> {
    let of_steps = graph.steps.iter().map(|step| {
        let members: usize = step.inputs.iter().map(|(_, source)| source.members.len().max(1)).sum();
        let chosen = step.choose.as_ref().map_or(0, |choose| choose.among.len());
        members + chosen + step.after.len() + step.may_omit.len()
    });
    let of_outputs = graph.outputs.iter().map(|(_, source)| source.members.len());
    let names: usize = of_steps.chain(of_outputs).sum();
    let inputs = graph.inputs.as_ref().map_or(0, Vec::len);
    for (what, count, most) in [
        ("inputs", inputs, STEPS_MAX),
        ("outputs", graph.outputs.len(), STEPS_MAX),
        ("names in its steps and outputs", names, NAMES_MAX),
    ] {
        if count > most {
            let message = format!("the pipeline has {count} {what}; at most {most} are allowed");
            return Some(Fault::new("", message).hint("move a part of it into a pipeline of its own"));
        }
    }
    None
}

pub(super) fn wire(graph: &Graph) -> Result<Wiring, Vec<Fault>> {
    let mut faults = Vec::new();
    if let Some(fault) = too_many(graph) {
        return Err(vec![fault]);
    }
    if graph.steps.len() > STEPS_MAX {
        let message =
            format!("the pipeline has {} steps; at most {STEPS_MAX} are allowed", graph.steps.len());
        return Err(vec![Fault::new("steps", message).hint("move a part of it into a pipeline of its own")]);
    }
    if graph.steps.is_empty() {
        faults.push(Fault::new("", "the pipeline has no steps").hint("add [pipelines.NAME.steps.STEP]"));
    }
    if graph.outputs.is_empty() {
        faults.push(
            Fault::new("", "the pipeline has no outputs").hint("add outputs = { NAME = \"STEP.OUTPUT\" }"),
        );
    }
    let names =
        Names { graph, index: graph.steps.iter().enumerate().map(|(at, step)| (&*step.name, at)).collect() };
    for step in &graph.steps {
        names.step(step, &mut faults);
    }
    for (name, source) in &graph.outputs {
        names.source(&format!("outputs.{name}"), source, None, &mut faults);
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let (waits_for, chosen_by) = names.edges();
    let order = match sorted(graph, &waits_for) {
        Ok(order) => order,
        Err(fault) => return Err(vec![fault]),
    };
    let roots = |wanted: fn(&Step) -> bool| {
        graph.steps.iter().enumerate().filter(move |(_, step)| wanted(step)).map(|(at, _)| at)
    };
    let read = graph.outputs.iter().flat_map(|(_, source)| source.steps());
    let outputs: Vec<usize> = read.map(|step| names.index[&**step]).collect();
    let outputs = outputs.into_iter();
    let is_needed = closure(&waits_for, outputs.clone().chain(roots(|step| step.always)));
    let is_used = closure(&waits_for, outputs.chain(roots(|step| step.always || step.detach)));
    for (step, used) in graph.steps.iter().zip(&is_used) {
        if !used {
            let message = format!("step \"{}\" is unreachable: no output needs it", step.name);
            let hint = "read it in outputs or in a step that an output needs, or set always = true";
            faults.push(Fault::new(format!("steps.{}", step.name), message).hint(hint));
        }
    }
    names.unread_inputs(&mut faults);
    if faults.is_empty() { Ok(Wiring { order, waits_for, chosen_by, is_needed }) } else { Err(faults) }
}

struct Names<'a> {
    graph: &'a Graph,
    index: BTreeMap<&'a str, usize>,
}

impl Names<'_> {
    fn step(&self, step: &Step, faults: &mut Vec<Fault>) {
        let place = format!("steps.{}", step.name);
        let at = |key: &str| format!("{place}.{key}");
        if !is_step_name(&step.name) {
            let message = format!("\"{}\" is not a valid step name", step.name);
            let hint = "use a small letter, then small letters, digits and '_', up to 64; not a reserved word of conditions";
            faults.push(Fault::new(&place, message).hint(hint));
        }
        for (input, source) in &step.inputs {
            self.source(&at(&format!("in.{input}")), source, Some(step), faults);
        }
        for name in &step.after {
            self.known(&at("after"), name, faults);
        }
        if let Some(choose) = &step.choose {
            choose.among.iter().for_each(|name| self.known(&at("choose.among"), name, faults));
            if choose.among.is_empty() {
                faults.push(Fault::new(
                    at("choose.among"),
                    "choose.among is empty; list the steps that the router chooses among",
                ));
            }
            let mut seen = HashSet::new();
            for name in &choose.among {
                if !seen.insert(name) && faults.len() < FAULTS_MAX {
                    faults.push(Fault::new(at("choose.among"), format!("\"{name}\" is listed twice")));
                }
            }
            if step.each.is_some() || step.looped.is_some() {
                faults.push(Fault::new(at("choose"), "a router cannot have each or loop"));
            }
        }
        for (key, condition) in step
            .when
            .iter()
            .map(|when| ("when", when))
            .chain(step.looped.iter().map(|l| ("loop.while", &l.again_while)))
        {
            self.condition(&at(key), key == "when", condition, faults);
            if key == "loop.while" && condition.steps().iter().any(|name| **name == step.name) {
                let message = format!("the condition reads \"{}\" itself", step.name);
                faults.push(Fault::new(at(key), message).hint("write self.OUTPUT for its latest output"));
            }
            if !step.detach {
                condition.steps().iter().for_each(|name| self.not_detached(&at(key), name, faults));
            }
        }
        if !step.detach {
            step.after.iter().for_each(|name| self.not_detached(&at("after"), name, faults));
        }
        if step.detach && self.graph.each_row {
            let fault =
                Fault::new(at("detach"), "a step of a pipeline with rows = \"each\" cannot be detached");
            faults.push(fault.hint("set always = true; the answer then waits for it"));
        }
        let has_input = |name: &str| step.inputs.iter().any(|(input, _)| **input == *name);
        if let Some(each) = &step.each {
            if each.split.is_empty() {
                faults.push(
                    Fault::new(at("each.split"), "each splits no input").hint("name one that is in `in`"),
                );
            }
            for name in each.split.iter().filter(|name| !has_input(name)) {
                let known = step.inputs.iter().map(|(input, _)| &**input);
                let message =
                    format!("each splits \"{name}\", which is not in `in`{}", did_you_mean(name, known));
                faults.push(Fault::new(at("each.split"), message));
            }
            if step.looped.is_some() {
                let fault = Fault::new(at("each"), "a step cannot have both each and loop");
                faults.push(fault.hint("put the loop into a pipeline of its own, and call that with each"));
            }
        }
        for (input, _) in step.looped.iter().flat_map(|looped| &looped.carry) {
            if !has_input(input) {
                let message = format!("loop carries into \"{input}\", which is not in `in`");
                faults.push(Fault::new(at("loop.carry"), message).hint("its first value comes from there"));
            }
        }
        if step.detach && step.always {
            faults.push(Fault::new(at("detach"), "a step cannot have both always and detach"));
        }
        if step.detach && step.choose.is_some() {
            faults.push(Fault::new(
                at("choose"),
                "a detached step cannot choose: the answer does not wait for it",
            ));
        }
    }

    fn source(&self, place: &str, source: &Source, of: Option<&Step>, faults: &mut Vec<Fault>) {
        if source.members.is_empty() {
            faults.push(Fault::new(place, "the list is empty"));
        }
        for (at, member) in source.members.iter().enumerate() {
            let is_last = at + 1 == source.members.len();
            match member {
                Member::Output { step, .. } => {
                    self.known(place, step, faults);
                    if of.is_none_or(|of| !of.detach) {
                        self.not_detached(place, step, faults);
                    }
                }
                Member::Input(name) => self.known_input(place, name, faults),
                Member::Const(_) if !is_last => {
                    let message = "a constant is always present, so the members after it are never used";
                    faults.push(Fault::new(place, message));
                }
                Member::Const(_) if source.gather.is_some() => {
                    faults.push(Fault::new(place, "a constant is not a stream, so it cannot be gathered"));
                }
                Member::Const(_) => {}
            }
        }
    }

    fn not_detached(&self, place: &str, step: &str, faults: &mut Vec<Fault>) {
        if self.index.get(step).is_some_and(|&at| self.graph.steps[at].detach) {
            let message = format!(
                "step \"{step}\" is detached, so no step or output that the answer needs can wait for it"
            );
            faults.push(Fault::new(place, message));
        }
    }

    fn known(&self, place: &str, name: &str, faults: &mut Vec<Fault>) {
        if !self.index.contains_key(name) && faults.len() < FAULTS_MAX {
            let message = format!(
                "no step \"{name}\"{}",
                did_you_mean(name, self.index.keys().copied().chain(["input"]))
            );
            let known: Vec<&str> = self.index.keys().copied().take(20).collect();
            faults.push(Fault::new(place, message).hint(format!("steps: {}", known.join(", "))));
        }
    }

    fn known_input(&self, place: &str, name: &str, faults: &mut Vec<Fault>) {
        let Some(inputs) = &self.graph.inputs else { return };
        if !inputs.iter().any(|input| *input.name == *name) {
            let hint = did_you_mean(name, inputs.iter().map(|input| &*input.name));
            faults.push(Fault::new(place, format!("the pipeline has no input \"{name}\"{hint}")));
        }
    }

    fn condition(
        &self,
        place: &str,
        is_when: bool,
        condition: &condition::Condition,
        faults: &mut Vec<Fault>,
    ) {
        condition.steps().into_iter().for_each(|step| self.known(place, step, faults));
        for tensor in condition.tensors() {
            match tensor {
                TensorRef::Input(name) => self.known_input(place, name, faults),
                TensorRef::Own(_) if is_when => {
                    let fault = Fault::new(
                        place,
                        "self is the step's own output, which does not exist yet in `when`",
                    );
                    faults.push(fault.hint("self belongs to loop.while"));
                }
                _ => {}
            }
        }
    }

    /// Returns, by step, the steps that it waits for and the routers that may choose it.
    fn edges(&self) -> (Vec<BTreeSet<usize>>, Vec<Vec<usize>>) {
        let mut waits_for = vec![BTreeSet::new(); self.graph.steps.len()];
        let mut chosen_by = vec![Vec::new(); self.graph.steps.len()];
        for (at, step) in self.graph.steps.iter().enumerate() {
            let read = step.inputs.iter().flat_map(|(_, source)| source.steps());
            let referenced = step.when.iter().flat_map(|when| when.steps());
            let again = step.looped.iter().flat_map(|looped| looped.again_while.steps());
            let before =
                read.chain(&step.after).chain(referenced).chain(again.filter(|name| **name != step.name));
            waits_for[at].extend(before.map(|name| self.index[&**name]));
            for name in step.choose.iter().flat_map(|choose| &choose.among) {
                let chosen = self.index[&**name];
                waits_for[chosen].insert(at);
                if !chosen_by[chosen].contains(&at) {
                    chosen_by[chosen].push(at);
                }
            }
        }
        (waits_for, chosen_by)
    }

    fn unread_inputs(&self, faults: &mut Vec<Fault>) {
        let Some(inputs) = &self.graph.inputs else { return };
        let sources = self.graph.steps.iter().flat_map(|step| step.inputs.iter().map(|(_, source)| source));
        let members =
            sources.chain(self.graph.outputs.iter().map(|(_, source)| source)).flat_map(|s| &s.members);
        let mut read: BTreeSet<&str> = members
            .filter_map(|member| if let Member::Input(name) = member { Some(&**name) } else { None })
            .collect();
        for step in &self.graph.steps {
            let conditions = step.when.iter().chain(step.looped.iter().map(|looped| &looped.again_while));
            for tensor in conditions.flat_map(|condition| condition.tensors()) {
                if let TensorRef::Input(name) = tensor {
                    read.insert(name);
                }
            }
        }
        for input in inputs.iter().filter(|input| !read.contains(&*input.name)) {
            let message = format!("nothing reads the input \"{}\"", input.name);
            let hint = "read it with \"input.NAME\", or remove it";
            faults.push(Fault::new(format!("inputs.{}", input.name), message).hint(hint));
        }
    }
}

pub(super) fn is_step_name(name: &str) -> bool {
    let well_formed = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.len() <= 64
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    well_formed && !condition::is_reserved(name)
}
