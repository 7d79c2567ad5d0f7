//! What is wrong with a graph, and where in its definition.

use std::ops::Range;

/// A fault in a graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// The keys that lead to it, such as `steps.big.in.x`.
    pub place: String,
    pub message: String,
    pub hint: Option<String>,
    /// A range in the text of a condition, in bytes.
    pub within: Option<Range<usize>>,
}

impl Fault {
    pub fn new(place: impl Into<String>, message: impl Into<String>) -> Self {
        Fault { place: place.into(), message: message.into(), hint: None, within: None }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn within(mut self, range: Range<usize>) -> Self {
        self.within = Some(range);
        self
    }
}
