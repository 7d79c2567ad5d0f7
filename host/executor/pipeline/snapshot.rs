//! The values that the condition of a loop is evaluated with.

use crate::error::Kind;
use crate::graph::condition::{Environment, TensorRef};
use crate::predict::{CallContext, Parameter, Tensor};
use std::sync::Arc;

/// The values that a condition refers to, as they were when its step started.
pub(super) struct Snapshot {
    pub context: Arc<CallContext>,
    pub tensors: Vec<(TensorRef, Tensor)>,
    pub steps: Vec<(Arc<str>, bool, Option<Kind>)>,
    pub bucket: u8,
}

/// The outputs of the latest round of a loop, and the values outside of it.
pub(super) struct LoopView<'a> {
    pub outputs: &'a [Tensor],
    pub snapshot: Option<&'a Snapshot>,
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

impl Environment for LoopView<'_> {
    fn tensor(&self, of: &TensorRef) -> Option<&Tensor> {
        match of {
            TensorRef::Own(name) => self.outputs.iter().find(|tensor| *tensor.name() == **name),
            _ => self.snapshot?.tensor(of),
        }
    }

    fn parameter(&self, name: &str) -> Option<&Parameter> {
        self.snapshot?.parameter(name)
    }

    fn ran(&self, step: &str) -> bool {
        self.snapshot.is_some_and(|snapshot| snapshot.ran(step))
    }

    fn error(&self, step: &str) -> Option<Kind> {
        self.snapshot?.error(step)
    }

    fn bucket(&self) -> i64 {
        self.snapshot.map_or(0, Environment::bucket)
    }
}
