//! What is needed to replay a request that a new version failed: the version before, and the
//! request.
//!
//! These are data only; `replay` runs the requests.

use super::model_name::ModelName;
use crate::executor::{Batching, Callable, Executor};
use crate::metrics::Metrics;
use crate::plugin::Transformer;
use crate::predict::{Models, Parameter, Parameters, Payload};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// The version before, on which the requests of one route can be replayed.
pub(super) struct Evidence {
    pub name: ModelName,
    pub executor: Arc<dyn Executor>,
    pub callable: Arc<dyn Callable>,
    pub transformer: Option<Arc<Transformer>>,
    pub batching: Option<Batching>,
    /// The models that the plugins of the version before may call.
    pub models: Arc<dyn Models>,
    pub replays: Arc<Replays>,
}

/// The limits that all routes of a rollout share.
pub(super) struct Replays {
    pub slots: Arc<Semaphore>,
    pub held_kib: Arc<Semaphore>,
    pub metrics: Arc<Metrics>,
}

/// A request that may be replayed.
pub struct KeptRequest {
    pub(super) evidence: Arc<Evidence>,
    pub(super) input: Payload,
    pub(super) parameters: Parameters,
    pub(super) timeout: Duration,
}

impl Evidence {
    /// Keeps a request until it is answered. The copy shares the request's bytes.
    pub fn keep(
        self: &Arc<Self>,
        input: &Payload,
        parameters: &Parameters,
        timeout: Duration,
    ) -> KeptRequest {
        let (input, parameters) = (input.clone(), parameters.clone());
        KeptRequest { evidence: Arc::clone(self), input, parameters, timeout }
    }
}

impl KeptRequest {
    pub(super) fn bytes(&self) -> usize {
        let input = match &self.input {
            Payload::Json(text) => text.as_bytes().len(),
            Payload::Bytes { data, .. } => data.len(),
            Payload::Tensors(tensors) => tensors.iter().map(|tensor| tensor.data().len()).sum(),
        };
        let text = |(name, value): &(String, Parameter)| {
            name.len() + if let Parameter::Text(text) = value { text.len() } else { 0 }
        };
        input + self.parameters.iter().map(text).sum::<usize>()
    }
}
