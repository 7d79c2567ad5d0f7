//! A model on its executor, as a plugin may call it.

use super::{Batching, Call, Callable, Executor, Runs};
use crate::error::{Error, Result};
use crate::predict::{Context, Payload, Responses, Target, Tensor, check_inputs};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub struct ModelTarget {
    pub model: Arc<str>,
    pub version: Arc<str>,
    pub executor: Arc<dyn Executor>,
    pub callable: Arc<dyn Callable>,
    pub batching: Option<Batching>,
    /// Where its runs are counted.
    pub runs: Option<Arc<Runs>>,
    /// The model's own, if it has one.
    pub timeout: Option<Duration>,
}

impl Target for ModelTarget {
    fn model(&self) -> &str {
        &self.model
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn is_streaming(&self) -> bool {
        self.callable.metadata().streaming
    }

    fn start(&self, caller: &Context, inputs: Vec<Tensor>) -> Result<Responses> {
        let call = Call {
            context: Arc::new(self.admit(caller, &inputs)?),
            input: Payload::Tensors(inputs),
            transformer: None,
            callable: Arc::clone(&self.callable),
            batching: self.batching,
            runs: self.runs.clone(),
        };
        self.executor.submit(call).map_err(|error| self.named(error))
    }
}

impl ModelTarget {
    /// The context of a call with these inputs, if there can be one.
    pub(super) fn admit(&self, caller: &Context, inputs: &[Tensor]) -> Result<Context> {
        caller.check()?;
        check_inputs(self.callable.metadata(), inputs).map_err(|error| self.named(error))?;
        let own = self.timeout.map(|timeout| Instant::now() + timeout);
        let deadline = caller.deadline.into_iter().chain(own).min();
        caller.child(Arc::clone(&self.model), Arc::clone(&self.version), deadline)
    }

    pub(super) fn named(&self, error: Error) -> Error {
        error.model(format!("{}:{}", self.model, self.version))
    }
}
