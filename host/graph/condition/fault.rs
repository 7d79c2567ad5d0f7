//! What is wrong with a condition, and where in its text.

use std::ops::Range;

/// A fault in a condition.
#[derive(Clone, Debug, PartialEq)]
pub struct ConditionFault {
    pub at: Range<usize>,
    pub message: String,
    pub hint: Option<String>,
}

impl ConditionFault {
    pub(super) fn new(at: Range<usize>, message: impl Into<String>) -> Self {
        ConditionFault { at, message: message.into(), hint: None }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
