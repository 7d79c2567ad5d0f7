//! Conditions: small expressions over tensors, parameters and the outcome of steps, in the syntax
//! of CEL.
//!
//! They have comparisons, arithmetic, `&& || !`, indexing and five functions, but no macros, loops
//! or string operations. Types are checked when the policy is loaded. The length of the text and
//! the depth of nesting are limited, and so are the costs of parsing and evaluation.

mod eval;
mod expression;
mod fault;
mod parse;
mod token;
mod typing;

pub use eval::{Environment, evaluate};
pub use expression::{TensorRef, is_reserved};
pub use fault::ConditionFault;
pub use typing::{Scope, check};

use expression::{Expr, Node};
use std::sync::Arc;

/// The most elements that a function reads.
pub const ELEMENTS_MAX: usize = 1024;

/// A parsed condition; its parameters are typed after `check`.
#[derive(Clone, Debug)]
pub struct Condition {
    pub text: Arc<str>,
    root: Node,
}

/// Conditions are equal if their texts are.
impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Condition {
    pub fn parse(text: &str) -> Result<Self, ConditionFault> {
        Ok(Condition { text: text.into(), root: parse::parse(text)? })
    }

    /// Returns the tensors that the condition reads or tests with `has`.
    pub fn tensors(&self) -> Vec<&TensorRef> {
        let mut found = Vec::new();
        self.root.visit(&mut |node| match &node.expr {
            Expr::Tensor { of, .. } | Expr::Has(of) => found.push(of),
            _ => {}
        });
        found
    }

    /// Returns the text as it is written in a manifest.
    pub fn quoted(&self) -> String {
        let quote = if self.text.contains('"') { '\'' } else { '"' };
        format!("{quote}{}{quote}", self.text)
    }

    /// Returns the steps that the condition refers to.
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
