//! Calling models from inside a request: what the layers above give to a plugin.

use super::{Context, Responses, Tensor};
use crate::error::Result;
use std::sync::Arc;

/// A model that a plugin can call: tensors in, tensors out, on the executor that it has there.
pub trait Target: Send + Sync {
    fn model(&self) -> &str;

    fn version(&self) -> &str;

    /// Admits one call on behalf of `caller`, or refuses it, at once. It has the caller's deadline at the
    /// latest, and ends when the responses are dropped.
    fn start(&self, caller: &Context, inputs: Vec<Tensor>) -> Result<Responses>;
}

/// All models of the policy that a request uses.
pub trait Models: Send + Sync {
    /// Without a version the only one, or what the routing rule gives this caller.
    fn target(&self, model: &str, version: Option<&str>, caller: &Context) -> Result<Arc<dyn Target>>;
}
