//! Checks which values of a program may be absent. Runs when the policy is loaded.

use super::definition::Gather;
use super::fault::Fault;
use super::program::{Need, Program, ValueRef};

/// By step and output, whether the value may be absent.
struct Absence<'a> {
    program: &'a Program,
    outputs: Vec<Vec<bool>>,
    /// By step, whether it may be skipped or may fail.
    steps: Vec<bool>,
}

pub(super) fn check(program: &Program, order: &[usize]) -> Vec<Fault> {
    let mut absence = Absence {
        program,
        outputs: vec![Vec::new(); program.steps.len()],
        steps: vec![false; program.steps.len()],
    };
    let mut faults = Vec::new();
    for &at in order {
        let step = &program.steps[at];
        let written = &program.graph.steps[at];
        let may_not_run = step.when.is_some()
            || !step.chosen_by.is_empty()
            || step.needs.iter().any(|need| !need.optional && absence.of_need(need));
        let is_absent = may_not_run || written.skips_on_error;
        absence.steps[at] = is_absent;
        absence.outputs[at] = step.may_omit.iter().map(|omitted| *omitted || is_absent).collect();
        for need in &step.needs {
            let name = &step.inputs[need.inputs[0]];
            let place = format!("steps.{}.in.{name}", step.name);
            absence.unused_members(&place, need, &mut faults);
        }
    }
    for output in &program.outputs {
        let place = format!("outputs.{}", output.name);
        let need = Need {
            inputs: vec![0],
            members: output.members.iter().map(|value| vec![value.clone()]).collect(),
            optional: output.optional,
        };
        absence.unused_members(&place, &need, &mut faults);
        let may_be_absent = absence.of_need(&need);
        if may_be_absent && !output.optional {
            let message = format!("the output \"{}\" may be absent: {}", output.name, absence.why(&need));
            let is_gathered = output.members.iter().any(|value| matches!(value, ValueRef::Gathered(_)));
            let hint = if is_gathered {
                "write { from = \"STEP.OUTPUT?\", gather = … } if the answer may lack it"
            } else {
                "write \"STEP.OUTPUT?\" if the answer may lack it, or add a member that is always present"
            };
            faults.push(Fault::new(&place, message).hint(hint));
        } else if may_be_absent && program.graph.each_row {
            let message = format!(
                "the output \"{}\" may be absent for some rows, so rows = \"each\" cannot stack it",
                output.name
            );
            let hint = "add a last member that is always present, such as { const = [[0.0]] }";
            faults.push(Fault::new(&place, message).hint(hint));
        }
    }
    faults
}

impl Absence<'_> {
    fn of(&self, value: &ValueRef) -> bool {
        match value {
            ValueRef::Const(_) => false,
            ValueRef::Input(at) => self.program.metadata.inputs[*at].optional,
            ValueRef::Output(step, output) => self.outputs[*step][*output],
            ValueRef::Gathered(gathered) => gathered.how == Gather::Last || self.steps[gathered.stream],
        }
    }

    /// Returns true if every alternative may be absent.
    fn of_need(&self, need: &Need) -> bool {
        need.members.iter().all(|values| values.iter().any(|value| self.of(value)))
    }

    fn unused_members(&self, place: &str, need: &Need, faults: &mut Vec<Fault>) {
        let always = need.members.iter().position(|values| !values.iter().any(|value| self.of(value)));
        if let Some(at) = always.filter(|at| at + 1 < need.members.len()) {
            let message = format!(
                "{} is always present, so {} after it is never used",
                self.shown(&need.members[at][0]),
                self.shown(&need.members[at + 1][0])
            );
            faults.push(Fault::new(place, message).hint("put it last, or remove the members after it"));
        }
    }

    fn shown(&self, value: &ValueRef) -> String {
        match value {
            ValueRef::Const(_) => "the constant".to_owned(),
            ValueRef::Input(at) => format!("input.{}", self.program.inputs[*at].name),
            ValueRef::Output(step, output) => {
                let step = &self.program.steps[*step];
                format!("{}.{}", step.name, step.outputs[*output].name)
            }
            ValueRef::Gathered(gathered) => self.shown(&ValueRef::Output(gathered.step, gathered.output)),
        }
    }

    /// Explains why the last member may be absent, step by step back to the cause.
    fn why(&self, need: &Need) -> String {
        let Some(value) = need.members.last().and_then(|values| values.iter().find(|value| self.of(value)))
        else {
            return String::new();
        };
        let mut path = vec![self.shown(value)];
        let mut value = value.clone();
        for _ in 0..self.program.steps.len() {
            let step = match &value {
                ValueRef::Output(step, _) => *step,
                ValueRef::Gathered(_) => {
                    path.push("the stream may have no items".to_owned());
                    break;
                }
                ValueRef::Input(_) => {
                    path.push("the caller may leave it out".to_owned());
                    break;
                }
                ValueRef::Const(_) => break,
            };
            let program = &self.program.steps[step];
            let written = &self.program.graph.steps[step];
            let absent = program.needs.iter().find(|need| !need.optional && self.of_need(need));
            let cause = if let Some(when) = &written.when {
                format!("step \"{}\" has when = {}", program.name, when.quoted())
            } else if let Some(router) = program.chosen_by.first() {
                let router = &self.program.steps[*router].name;
                format!("step \"{}\" runs if \"{router}\" chooses it", program.name)
            } else if written.skips_on_error {
                format!("step \"{}\" has on_error = \"skip\"", program.name)
            } else if let Some(absent) = absent {
                let before =
                    absent.members.last().and_then(|values| values.iter().find(|value| self.of(value)));
                let Some(before) = before else { break };
                path.push(self.shown(before));
                value = before.clone();
                continue;
            } else {
                format!("the model of step \"{}\" may omit it", program.name)
            };
            path.push(cause);
            break;
        }
        path.join(" <- ")
    }
}
