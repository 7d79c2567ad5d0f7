//! Calling models from inside a request: what the layers above give to a plugin.

use super::{CallContext, Payload, Response, Responses, Tensor};
use crate::error::{Error, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

pub type Outputs<'a> = Pin<Box<dyn Future<Output = Result<Vec<Tensor>>> + Send + 'a>>;

/// A model that a plugin can call: tensors in, tensors out, on the executor that it has there.
pub trait Target: Send + Sync {
    fn model(&self) -> &str;

    fn version(&self) -> &str;

    /// Whether it has 0..n responses, not exactly one.
    fn is_streaming(&self) -> bool;

    /// Admits one call on behalf of `caller`, or refuses it, at once. It has the caller's deadline at the
    /// latest, and ends when the responses are dropped.
    fn start(&self, caller: &CallContext, inputs: Vec<Tensor>) -> Result<Responses>;

    /// One call and its answer. The caller waits for nothing else, so it may run where the caller does; it stops
    /// waiting at `until`, and such a call is stopped then.
    fn call<'a>(&'a self, caller: &'a CallContext, inputs: Vec<Tensor>, _until: Instant) -> Outputs<'a> {
        Box::pin(async move { self.start(caller, inputs)?.one().await.and_then(Response::tensors) })
    }
}

impl Response {
    /// What a model without a transformer answers.
    pub fn tensors(self) -> Result<Vec<Tensor>> {
        match self.payload {
            Payload::Tensors(tensors) => Ok(tensors),
            _ => Err(Error::failed("the model answered with something else than tensors")),
        }
    }
}

/// All models of the policy that a request uses.
pub trait Models: Send + Sync {
    /// Without a version the only one, or what the routing rule gives this caller.
    fn target(&self, model: &str, version: Option<&str>, caller: &CallContext) -> Result<Arc<dyn Target>>;
}
