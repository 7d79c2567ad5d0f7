//! Conditions: small expressions over tensors, parameters and what became of steps, in the spelling of CEL.
//!
//! Comparison, arithmetic, `&& || !`, indexing and five functions; no macros, loops or strings that grow. Types are
//! checked when the policy is loaded. The length of a text and the depth of its nesting are bounded, so parsing and
//! evaluating are, too.

mod eval;
mod parse;
mod typing;

pub use eval::{Environment, evaluate};
pub use typing::{Scope, check};

use crate::predict::Datatype;
use std::ops::Range;
use std::sync::Arc;

/// Bytes of a condition.
pub const TEXT_BYTES_MAX: usize = 1024;

/// Parentheses and operators inside of each other.
const NESTING_MAX: usize = 32;

/// Elements that a function looks at.
pub const ELEMENTS_MAX: usize = 1024;

/// A condition that was parsed, and typed once `check` has seen it.
#[derive(Clone, Debug)]
pub struct Condition {
    pub text: Arc<str>,
    root: Node,
}

/// Two conditions are the same if their texts are.
impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Condition {
    pub fn parse(text: &str) -> Result<Self, ConditionFault> {
        Ok(Condition { text: text.into(), root: parse::parse(text)? })
    }

    /// The tensors that it looks at, or asks whether they are there.
    pub fn tensors(&self) -> Vec<&TensorRef> {
        let mut found = Vec::new();
        self.root.visit(&mut |node| match &node.expr {
            Expr::Tensor { of, .. } | Expr::Has(of) => found.push(of),
            _ => {}
        });
        found
    }

    /// As it stands in a manifest.
    pub fn quoted(&self) -> String {
        let quote = if self.text.contains('"') { '\'' } else { '"' };
        format!("{quote}{}{quote}", self.text)
    }

    /// The steps that it asks about, in any way.
    pub fn steps(&self) -> Vec<&Arc<str>> {
        let mut found = Vec::new();
        self.root.visit(&mut |node| match &node.expr {
            Expr::Tensor { of: TensorRef::Output { step, .. }, .. }
            | Expr::Has(TensorRef::Output { step, .. })
            | Expr::Ran(step)
            | Expr::ErrorOf(step) => found.push(step),
            _ => {}
        });
        found
    }
}

/// What is wrong with a condition, and where in its text.
#[derive(Clone, Debug, PartialEq)]
pub struct ConditionFault {
    pub at: Range<usize>,
    pub message: String,
    pub hint: Option<String>,
}

impl ConditionFault {
    fn new(at: Range<usize>, message: impl Into<String>) -> Self {
        ConditionFault { at, message: message.into(), hint: None }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TensorRef {
    /// `input.NAME`
    Input(Arc<str>),
    /// `STEP.NAME`, `STEP["NAME"]`
    Output { step: Arc<str>, output: Arc<str> },
    /// `self.NAME`: the step's own latest output, in the condition of its loop.
    Own(Arc<str>),
}

impl std::fmt::Display for TensorRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            TensorRef::Input(name) => write!(f, "input.{name}"),
            TensorRef::Output { step, output } => write!(f, "{step}.{output}"),
            TensorRef::Own(name) => write!(f, "self.{name}"),
        }
    }
}

#[derive(Clone, Debug)]
struct Node {
    expr: Expr,
    at: Range<usize>,
}

/// Chains of one precedence are lists, so that the depth of a tree is that of its parentheses.
#[derive(Clone, Debug)]
enum Expr {
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(Arc<str>),
    Null,
    Param {
        name: Arc<str>,
        /// What it is compared with, once that was checked.
        wanted: Option<Wanted>,
    },
    /// `request.bucket`
    Bucket,
    Ran(Arc<str>),
    ErrorOf(Arc<str>),
    Tensor {
        of: TensorRef,
        index: Vec<u64>,
    },
    Has(TensorRef),
    Call(Function, Box<Node>),
    Not(Box<Node>),
    Negate(Box<Node>),
    Or(Vec<Node>),
    And(Vec<Node>),
    Compare(Comparison, Box<Node>, Box<Node>),
    Sum(Box<Node>, Vec<(Arithmetic, Node)>),
    Product(Box<Node>, Vec<(Arithmetic, Node)>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Boolean,
    Number,
    Text,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Function {
    Any,
    All,
    Min,
    Max,
    Size,
}

impl Function {
    const ALL: [(&'static str, Function); 5] = [
        ("any", Function::Any),
        ("all", Function::All),
        ("min", Function::Min),
        ("max", Function::Max),
        ("size", Function::Size),
    ];

    fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, function)| *function == self).map_or("", |(name, _)| name)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

impl Node {
    fn visit<'a>(&'a self, see: &mut impl FnMut(&'a Node)) {
        see(self);
        match &self.expr {
            Expr::Call(_, inner) | Expr::Not(inner) | Expr::Negate(inner) => inner.visit(see),
            Expr::Or(parts) | Expr::And(parts) => parts.iter().for_each(|part| part.visit(see)),
            Expr::Compare(_, left, right) => {
                left.visit(see);
                right.visit(see);
            }
            Expr::Sum(first, rest) | Expr::Product(first, rest) => {
                first.visit(see);
                rest.iter().for_each(|(_, part)| part.visit(see));
            }
            Expr::Bool(_)
            | Expr::Int(_)
            | Expr::Float(_)
            | Expr::Text(_)
            | Expr::Null
            | Expr::Param { .. }
            | Expr::Bucket
            | Expr::Ran(_)
            | Expr::ErrorOf(_)
            | Expr::Tensor { .. }
            | Expr::Has(_) => {}
        }
    }
}

/// Words that are no names of steps.
pub fn is_reserved(name: &str) -> bool {
    const WORDS: [&str; 9] = ["input", "params", "self", "request", "true", "false", "null", "has", "in"];
    WORDS.contains(&name) || Function::ALL.iter().any(|(word, _)| *word == name)
}

/// The value that a datatype makes of a number, so that a literal can be compared with an element.
fn rounded(value: f64, datatype: Datatype) -> f64 {
    match datatype {
        Datatype::Fp16 => half::f16::from_f64(value).to_f64(),
        Datatype::Bf16 => half::bf16::from_f64(value).to_f64(),
        Datatype::Fp32 => f64::from(value as f32),
        _ => value,
    }
}
