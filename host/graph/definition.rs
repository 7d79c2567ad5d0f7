//! A graph as the manifest defines it: its inputs, steps and outputs.

use super::condition::Condition;
use crate::error::Kind;
use crate::predict::{Datatype, Metadata, Parameter, ShapeSpec};
use std::sync::Arc;
use std::time::Duration;

/// `[pipelines.<name>]`, with all defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Graph {
    pub name: Arc<str>,
    /// `None` if the inputs are inferred from what the steps read.
    pub inputs: Option<Vec<InputSpec>>,
    pub outputs: Vec<(Arc<str>, Source)>,
    /// Every row of a request runs through the graph separately.
    pub each_row: bool,
    pub streaming: bool,
    /// A job keeps the outputs of steps that have ended, for its next attempt.
    pub keeps_steps: bool,
    /// The most step runs in one request.
    pub max_visits: u32,
    /// The most bytes of tensors that one request may hold.
    pub max_bytes: usize,
    /// The most concurrent step runs in one request; 0 is unlimited.
    pub parallel: usize,
    /// The most items of a stream that are in flight at once.
    pub window: usize,
    pub steps: Vec<Step>,
}

/// `FP32[-1,18]?`
#[derive(Clone, Debug, PartialEq)]
pub struct InputSpec {
    pub name: Arc<str>,
    pub datatype: Datatype,
    pub shape: ShapeSpec,
    pub optional: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    pub name: Arc<str>,
    pub model: Arc<str>,
    pub version: Option<Arc<str>>,
    pub inputs: Vec<(Arc<str>, Source)>,
    pub after: Vec<Arc<str>>,
    pub when: Option<Condition>,
    pub choose: Option<Choose>,
    pub each: Option<Each>,
    pub looped: Option<Loop>,
    /// The timeout of all attempts, rounds and parts together.
    pub timeout: Option<Duration>,
    /// If the step fails, its outputs are absent; the request does not fail.
    pub skips_on_error: bool,
    pub retry: Option<Retry>,
    pub max_in_flight: Option<usize>,
    pub max_per_s: Option<f64>,
    pub params: Vec<(String, Parameter)>,
    pub may_omit: Vec<Arc<str>>,
    pub always: bool,
    pub detach: bool,
}

/// Where a tensor comes from: the first of these members that is present.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    pub members: Vec<Member>,
    /// The tensor may be absent.
    pub optional: bool,
    /// Combines the items of a stream into one tensor.
    pub gather: Option<Gather>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Member {
    Input(Arc<str>),
    Output {
        step: Arc<str>,
        output: Arc<str>,
    },
    /// Nested lists, as JSON.
    Const(Arc<str>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gather {
    Stack,
    Last,
}

/// An output of the step selects which of its successors run.
#[derive(Clone, Debug, PartialEq)]
pub struct Choose {
    pub by: Arc<str>,
    pub among: Vec<Arc<str>>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Each {
    pub split: Vec<Arc<str>>,
    pub rows: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Loop {
    pub again_while: Condition,
    pub max: u32,
    /// At the limit, the step goes on with its latest outputs instead of failing.
    pub goes_on_at_max: bool,
    /// Pairs of an input and the output that it takes in the next round.
    pub carry: Vec<(Arc<str>, Arc<str>)>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// Includes the first attempt.
    pub attempts: u32,
    pub interval: Duration,
    pub factor: f64,
    pub max_interval: Duration,
    pub on: Vec<Kind>,
}

/// The metadata of a step's model, for each version that the step may use.
pub struct StepModel {
    pub versions: Vec<(Arc<str>, Metadata)>,
    /// Outputs that the model itself declares as optional.
    pub may_omit: Vec<Arc<str>>,
}

impl Graph {
    pub fn index(&self, step: &str) -> Option<usize> {
        self.steps.iter().position(|known| *known.name == *step)
    }
}

impl Source {
    /// A single required member.
    pub fn of(member: Member) -> Self {
        Source { members: vec![member], optional: false, gather: None }
    }

    /// Returns the steps that the source reads, in its order.
    pub fn steps(&self) -> impl Iterator<Item = &Arc<str>> {
        self.members.iter().filter_map(|member| match member {
            Member::Output { step, .. } => Some(step),
            Member::Input(_) | Member::Const(_) => None,
        })
    }
}

/// The longest constant, in bytes, that is shown in full.
const CONST_SHOWN: usize = 60;

impl std::fmt::Display for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Member::Input(name) => write!(f, "input.{name}"),
            Member::Output { step, output } => write!(f, "{step}.{output}"),
            // A long table of numbers is not readable in one line.
            Member::Const(json) if json.len() > CONST_SHOWN => write!(f, "const of {} bytes", json.len()),
            Member::Const(json) => write!(f, "const {json}"),
        }
    }
}
