//! Graphs of models: what a pipeline is made of, checked and made ready to run.
//!
//! A [`Graph`] is what the manifest says, without places in files. [`structure`] checks what can be said without the
//! models, [`compile`] the rest, and makes the [`Program`] that `executor::pipeline` runs. All of it is pure: no I/O,
//! no clocks, no threads.

mod absence;
mod compile;
pub mod condition;
mod picture;
mod program;
mod structure;
mod types;

pub use compile::compile;
pub use picture::{dot, mermaid, text};
pub use program::{
    Choice, Gathered, InputProgram, Need, OutputProgram, Program, Reader, Scope, StepProgram, ValueRef,
};
pub use structure::structure;

use crate::error::Kind;
use crate::predict::{Datatype, Metadata, Parameter, Shape};
use condition::Condition;
use std::sync::Arc;
use std::time::Duration;

/// `[pipelines.<name>]`, with every default filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Graph {
    pub name: Arc<str>,
    /// None if they are what the steps read.
    pub inputs: Option<Vec<InputSpec>>,
    pub outputs: Vec<(Arc<str>, Source)>,
    /// Every row of a request walks the graph alone.
    pub each_row: bool,
    pub streaming: bool,
    /// Step runs of one request.
    pub max_visits: u32,
    /// Bytes of tensors that one request may hold.
    pub max_bytes: usize,
    /// Step runs of one request at once; 0 is no bound.
    pub parallel: usize,
    /// Items of a stream that are under way at once.
    pub window: usize,
    pub steps: Vec<Step>,
}

/// `FP32[-1,18]?`
#[derive(Clone, Debug, PartialEq)]
pub struct InputSpec {
    pub name: Arc<str>,
    pub datatype: Datatype,
    pub shape: Shape,
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
    /// Covers all attempts, rounds and parts.
    pub timeout: Option<Duration>,
    /// An error of the step leaves its outputs absent instead of failing the request.
    pub skips_on_error: bool,
    pub retry: Option<Retry>,
    pub max_in_flight: Option<usize>,
    pub max_per_s: Option<f64>,
    pub params: Vec<(String, Parameter)>,
    pub may_omit: Vec<Arc<str>>,
    pub always: bool,
    pub detach: bool,
}

/// Where a tensor comes from: the first member, in this order, that is there.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    pub members: Vec<Member>,
    /// It may be missing.
    pub optional: bool,
    /// Makes one tensor of the items of a stream.
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

/// An output of the step names which of its successors run.
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
    /// At the bound the step goes on with what it has, instead of failing.
    pub goes_on_at_max: bool,
    /// Input to output.
    pub carry: Vec<(Arc<str>, Arc<str>)>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// The first counts.
    pub attempts: u32,
    pub interval: Duration,
    pub factor: f64,
    pub max_interval: Duration,
    pub on: Vec<Kind>,
}

/// What a step's model is, for each version that the step may use.
pub struct StepModel {
    pub versions: Vec<(Arc<str>, Metadata)>,
    /// Outputs that the model itself says may be missing.
    pub may_omit: Vec<Arc<str>>,
}

/// Something wrong with a graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// The keys that lead there, such as `steps.big.in.x`.
    pub place: String,
    pub message: String,
    pub hint: Option<String>,
    /// The part of a condition, in bytes of its text.
    pub within: Option<std::ops::Range<usize>>,
}

impl Fault {
    pub fn new(place: impl Into<String>, message: impl Into<String>) -> Self {
        Fault { place: place.into(), message: message.into(), hint: None, within: None }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn within(mut self, range: std::ops::Range<usize>) -> Self {
        self.within = Some(range);
        self
    }
}

impl Graph {
    pub fn index(&self, step: &str) -> Option<usize> {
        self.steps.iter().position(|known| *known.name == *step)
    }
}

impl Source {
    /// One member, which must be there.
    pub fn of(member: Member) -> Self {
        Source { members: vec![member], optional: false, gather: None }
    }

    /// Steps that it reads, in its order.
    pub fn steps(&self) -> impl Iterator<Item = &Arc<str>> {
        self.members.iter().filter_map(|member| match member {
            Member::Output { step, .. } => Some(step),
            Member::Input(_) | Member::Const(_) => None,
        })
    }
}

/// Bytes of a constant that is shown.
const CONST_SHOWN: usize = 60;

impl std::fmt::Display for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Member::Input(name) => write!(f, "input.{name}"),
            Member::Output { step, output } => write!(f, "{step}.{output}"),
            // A table of numbers says nothing in a line.
            Member::Const(json) if json.len() > CONST_SHOWN => write!(f, "const of {} bytes", json.len()),
            Member::Const(json) => write!(f, "const {json}"),
        }
    }
}
