//! What the condition of a loop sees.

use crate::error::Kind;
use crate::graph::condition::{Environment, TensorRef};
use crate::predict::{CallContext, Parameter, Tensor};
use std::sync::Arc;

/// The latest outputs of a loop, and what is around it.
pub(super) struct Own<'a> {
    pub outputs: &'a [Tensor],
    pub outside: Option<&'a Snapshot>,
}

/// What a condition may ask about, as it was when its step began.
pub(super) struct Snapshot {
    pub context: Arc<CallContext>,
    pub tensors: Vec<(TensorRef, Tensor)>,
    pub steps: Vec<(Arc<str>, bool, Option<Kind>)>,
    pub bucket: u8,
}

impl Environment for Snapshot {
    fn tensor(&self, of: &TensorRef) -> Option<&Tensor> {
        self.tensors.iter().find(|(known, _)| known == of).map(|(_, tensor)| tensor)
    }

    fn parameter(&self, name: &str) -> Option<&Parameter> {
        self.context.parameter(name)
    }

    fn ran(&self, step: &str) -> bool {
        self.steps.iter().any(|(known, ran, _)| **known == *step && *ran)
    }

    fn error(&self, step: &str) -> Option<Kind> {
        self.steps.iter().find(|(known, ..)| **known == *step).and_then(|(.., error)| *error)
    }

    fn bucket(&self) -> i64 {
        self.bucket.into()
    }
}

impl Environment for Own<'_> {
    fn tensor(&self, of: &TensorRef) -> Option<&Tensor> {
        match of {
            TensorRef::Own(name) => self.outputs.iter().find(|tensor| *tensor.name() == **name),
            _ => self.outside?.tensor(of),
        }
    }

    fn parameter(&self, name: &str) -> Option<&Parameter> {
        self.outside?.parameter(name)
    }

    fn ran(&self, step: &str) -> bool {
        self.outside.is_some_and(|outside| outside.ran(step))
    }

    fn error(&self, step: &str) -> Option<Kind> {
        self.outside?.error(step)
    }

    fn bucket(&self) -> i64 {
        self.outside.map_or(0, |outside| outside.bucket())
    }
}
