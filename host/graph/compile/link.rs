//! Builds the program: resolves names to indices, and counts the readers of values.

use super::compiler::{Compiler, ROOT};
use crate::graph::condition::{Condition, TensorRef};
use crate::graph::definition::{Gather, Member, Source, Step};
use crate::graph::program::{
    Choice, Gathered, InputProgram, Need, OutputProgram, Program, Reader, StepProgram, ValueRef,
};
use crate::graph::types::with_rows;
use crate::graph::wiring::{Wiring, closure};
use crate::predict::{Metadata, TensorSpec};
use std::sync::Arc;

impl Compiler<'_> {
    pub(super) fn program(&mut self) -> Program {
        let steps: Vec<StepProgram> = (0..self.graph.steps.len()).map(|at| self.step_program(at)).collect();
        let every = |source: &Source| {
            let steps = source.steps().filter_map(|name| self.graph.index(name));
            closure(&self.wiring.waits_for, steps)
        };
        let outputs = self.graph.outputs.iter().map(|(name, source)| {
            let place = format!("outputs.{name}");
            OutputProgram {
                name: Arc::clone(name),
                members: (0..source.members.len()).map(|number| self.value(&place, source, number)).collect(),
                optional: source.optional,
                needs: every(source),
            }
        });
        let outputs: Vec<OutputProgram> = outputs.collect();
        let answers_in = match self.graph.streaming {
            true => outputs
                .iter()
                .flat_map(|output| &output.members)
                .map(|value| self.scope_of_value(value))
                .max(),
            false => None,
        };
        let callers =
            |spec: &TensorSpec| if self.graph.each_row { with_rows(spec, -1) } else { spec.clone() };
        let metadata = Metadata {
            inputs: self.inputs.iter().map(callers).collect(),
            outputs: self.outputs.clone(),
            streaming: self.graph.streaming,
        };
        let inputs = self.inputs.iter().map(|spec| InputProgram { name: Arc::clone(&spec.name), readers: 0 });
        let mut program = Program {
            graph: Arc::clone(self.graph),
            metadata,
            inputs: inputs.collect(),
            steps,
            outputs,
            scopes: std::mem::take(&mut self.scopes),
            answers_in: answers_in.unwrap_or(ROOT),
            is_always: {
                let steps = self.graph.steps.iter().enumerate();
                let roots = steps.filter(|(_, step)| step.always || step.detach).map(|(at, _)| at);
                closure(&self.wiring.waits_for, roots)
            },
            has_detached: self.graph.steps.iter().any(|step| step.detach),
        };
        link(&mut program, self.wiring);
        program
    }

    fn scope_of_value(&self, value: &ValueRef) -> usize {
        match value {
            ValueRef::Output(step, _) => self.scope_of_outputs(*step),
            ValueRef::Gathered(gathered) => self.scope_of[gathered.stream],
            ValueRef::Input(_) | ValueRef::Const(_) => ROOT,
        }
    }

    fn value(&self, place: &str, source: &Source, number: usize) -> ValueRef {
        match &source.members[number] {
            Member::Const(_) => ValueRef::Const(self.constants[&(place.to_owned(), number)].clone()),
            Member::Input(name) => {
                let at = self.inputs.iter().position(|spec| spec.name == *name);
                ValueRef::Input(at.expect("invariant: inputs were checked"))
            }
            Member::Output { step, output } => {
                let step = self.graph.index(step).expect("invariant: steps were checked");
                let known = self.metadata[step].outputs.iter().position(|spec| spec.name == *output);
                let output = known.expect("invariant: outputs were checked");
                match source.gather {
                    None => ValueRef::Output(step, output),
                    Some(how) => {
                        let scope = &self.scopes[self.scope_of_outputs(step)];
                        let stream = scope.stream.expect("invariant: only streams are gathered");
                        ValueRef::Gathered(Gathered { step, output, stream, how })
                    }
                }
            }
        }
    }

    fn step_program(&self, at: usize) -> StepProgram {
        let step = &self.graph.steps[at];
        let outputs = &self.metadata[at].outputs;
        let input = |name: &Arc<str>| step.inputs.iter().position(|(input, _)| input == name);
        let output = |name: &Arc<str>| outputs.iter().position(|spec| spec.name == *name);
        let omitted = |spec: &TensorSpec| {
            step.may_omit.contains(&spec.name) || self.models[at].may_omit.contains(&spec.name)
        };
        StepProgram {
            name: Arc::clone(&step.name),
            scope: self.scope_of[at],
            items: self.items_of[at],
            inputs: step.inputs.iter().map(|(name, _)| Arc::clone(name)).collect(),
            needs: self.needs(step),
            may_omit: outputs.iter().map(omitted).collect(),
            readers: vec![0; outputs.len()],
            outputs: outputs.clone(),
            after: step.after.iter().filter_map(|name| self.graph.index(name)).collect(),
            chosen_by: self.wiring.chosen_by[at].clone(),
            when: self.when[at].clone(),
            asks: self.asks(at),
            again_while: self.again_while[at].clone(),
            choice: step.choose.as_ref().and_then(|choose| {
                let among = choose.among.iter().filter_map(|name| self.graph.index(name)).collect();
                Some(Choice { output: output(&choose.by)?, among })
            }),
            split: step.each.iter().flat_map(|each| &each.split).filter_map(input).collect(),
            dependents: Vec::new(),
            reads: Vec::new(),
            is_detached: !self.wiring.is_needed[at],
            always: step.always
                || self.items_of[at].is_some_and(|items| {
                    let steps = self.graph.steps.iter().enumerate();
                    steps
                        .filter(|(_, step)| step.always)
                        .any(|(step, _)| self.is_within(self.scope_of[step], items))
                }),
        }
    }

    /// Returns the steps that the step's conditions ask about, except streams whose item it belongs
    /// to.
    fn asks(&self, at: usize) -> Vec<usize> {
        let own = &self.graph.steps[at].name;
        let again = self.again_while[at].iter().flat_map(|again| again.steps());
        let steps =
            self.when[at].iter().flat_map(|when| when.steps()).chain(again.filter(|step| *step != own));
        let steps = steps.filter_map(|name| self.graph.index(name));
        let is_of_item =
            |step: &usize| self.items_of[*step].is_some_and(|items| self.is_within(self.scope_of[at], items));
        let mut asks: Vec<usize> = steps.filter(|step| !is_of_item(step)).collect();
        asks.sort_unstable();
        asks.dedup();
        asks
    }

    /// Groups the inputs: those whose alternatives name the same steps in the same order use the
    /// same alternative.
    fn needs(&self, step: &Step) -> Vec<Need> {
        let class = |member: &Member| match member {
            Member::Output { step, .. } => step.to_string(),
            Member::Input(_) => "input".to_owned(),
            Member::Const(_) => "const".to_owned(),
        };
        let mut groups: Vec<(Vec<String>, Need)> = Vec::new();
        for (at, (name, source)) in step.inputs.iter().enumerate() {
            let place = format!("steps.{}.in.{name}", step.name);
            let classes: Vec<String> = source.members.iter().map(class).collect();
            let alone = source.members.len() == 1 || source.optional || source.gather.is_some();
            let known = groups.iter_mut().find(|(known, _)| !alone && *known == classes);
            let values = (0..source.members.len()).map(|number| self.value(&place, source, number));
            match known {
                Some((_, need)) => {
                    need.inputs.push(at);
                    need.members.iter_mut().zip(values).for_each(|(member, value)| member.push(value));
                }
                None => {
                    let members = values.map(|value| vec![value]).collect();
                    let need = Need { inputs: vec![at], members, optional: source.optional };
                    groups.push((if alone { Vec::new() } else { classes }, need));
                }
            }
        }
        groups.into_iter().map(|(_, need)| need).collect()
    }
}

/// Finds the readers and dependents of every value and step.
fn link(program: &mut Program, wiring: &Wiring) {
    let mut dependents: Vec<Vec<Reader>> = vec![Vec::new(); program.steps.len()];
    let mut readers: Vec<(Reader, ValueRef)> = Vec::new();
    for at in 0..program.steps.len() {
        let step = &program.steps[at];
        let mut reads: Vec<ValueRef> = Vec::new();
        reads.extend(step.needs.iter().flat_map(|need| need.members.iter().flatten()).cloned());
        reads.extend(step.when.iter().flat_map(|when| condition_values(program, when)));
        readers.extend(reads.iter().map(|value| (Reader::Step(at), value.clone())));
        // Values that a loop's condition reads are kept to the end.
        let kept: Vec<ValueRef> =
            step.again_while.iter().flat_map(|again| condition_values(program, again)).collect();
        kept.into_iter().for_each(|value| keep(program, &value));
        for &before in &wiring.waits_for[at] {
            dependents[before].push(Reader::Step(at));
        }
        for value in &reads {
            if let ValueRef::Gathered(gathered) = value {
                dependents[gathered.stream].push(Reader::Step(at));
            }
        }
        program.steps[at].reads = reads;
    }
    for (at, output) in program.outputs.iter().enumerate() {
        for value in &output.members {
            readers.push((Reader::Output(at), value.clone()));
            match value {
                ValueRef::Output(step, _) => dependents[*step].push(Reader::Output(at)),
                ValueRef::Gathered(gathered) => dependents[gathered.stream].push(Reader::Output(at)),
                ValueRef::Input(_) | ValueRef::Const(_) => {}
            }
        }
    }
    for (reader, value) in readers {
        let reads_in = match reader {
            Reader::Step(step) => program.steps[step].scope,
            Reader::Output(_) => program.answers_in,
        };
        match value {
            ValueRef::Output(step, output) if program.scope_of_outputs(step) == reads_in => {
                let count = &mut program.steps[step].readers[output];
                *count = count.saturating_add(1);
            }
            ValueRef::Input(input) if reads_in == ROOT => {
                let count = &mut program.inputs[input].readers;
                *count = count.saturating_add(1);
            }
            other => keep(program, &other),
        }
    }
    for (step, mut readers) in program.steps.iter_mut().zip(dependents) {
        readers.sort_unstable();
        readers.dedup();
        step.dependents = readers;
    }
}

fn keep(program: &mut Program, value: &ValueRef) {
    match value {
        ValueRef::Output(step, output) => program.steps[*step].readers[*output] = Reader::KEPT,
        ValueRef::Input(input) => program.inputs[*input].readers = Reader::KEPT,
        ValueRef::Gathered(Gathered { step, output, how, .. }) => {
            program.steps[*step].readers[*output] = Reader::KEPT;
            let scope = program.scope_of_outputs(*step);
            let gathers = &mut program.scopes[scope].gathers;
            let stacks = *how == Gather::Stack;
            match gathers.iter_mut().find(|(of, place, _)| (*of, *place) == (*step, *output)) {
                Some((.., known)) => *known |= stacks,
                None => gathers.push((*step, *output, stacks)),
            }
        }
        ValueRef::Const(_) => {}
    }
}

fn condition_values(program: &Program, condition: &Condition) -> Vec<ValueRef> {
    let value = |of: &TensorRef| match of {
        TensorRef::Input(name) => {
            program.inputs.iter().position(|input| input.name == *name).map(ValueRef::Input)
        }
        TensorRef::Output { step, output } => {
            let step = program.graph.index(step)?;
            let output = program.steps[step].outputs.iter().position(|spec| spec.name == *output)?;
            Some(ValueRef::Output(step, output))
        }
        TensorRef::Own(_) => None,
    };
    condition.tensors().into_iter().filter_map(value).collect()
}
