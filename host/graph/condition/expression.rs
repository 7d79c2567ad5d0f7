//! The syntax tree of a condition.

use std::ops::Range;
use std::sync::Arc;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TensorRef {
    /// `input.NAME`
    Input(Arc<str>),
    /// `STEP.NAME`, `STEP["NAME"]`
    Output { step: Arc<str>, output: Arc<str> },
    /// `self.NAME`: the latest output of the step itself, in the condition of its loop.
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
pub(super) struct Node {
    pub expr: Expr,
    pub at: Range<usize>,
}

/// Chains of operators of one precedence are lists, so a tree is only as deep as its parentheses.
#[derive(Clone, Debug)]
pub(super) enum Expr {
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(Arc<str>),
    Null,
    Param {
        name: Arc<str>,
        /// The type that the parameter is compared with, once that was checked.
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
pub(super) enum Wanted {
    Boolean,
    Number,
    Text,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Any,
    All,
    Min,
    Max,
    Size,
}

impl Function {
    pub const ALL: [(&'static str, Function); 5] = [
        ("any", Function::Any),
        ("all", Function::All),
        ("min", Function::Min),
        ("max", Function::Max),
        ("size", Function::Size),
    ];

    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, function)| *function == self).map_or("", |(name, _)| name)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

impl Node {
    pub fn visit<'a>(&'a self, see: &mut impl FnMut(&'a Node)) {
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

/// Returns true for words that are not valid names of steps.
pub fn is_reserved(name: &str) -> bool {
    const WORDS: [&str; 9] = ["input", "params", "self", "request", "true", "false", "null", "has", "in"];
    WORDS.contains(&name) || Function::ALL.iter().any(|(word, _)| *word == name)
}
