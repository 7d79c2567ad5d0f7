//! A received inference request, between its bytes and its tensors. Its memory is charged before it
//! is built, and a large one is built on the threads of `offload`.

use super::decode::{decode, limit_timeout};
use super::message::{self, ModelInferRequest, Names};
use super::{contents, status};
use crate::error::{Error, Result};
use crate::offload::{self, INLINE_BYTES_MAX};
use crate::predict::{Allocation, MemoryBudget};
use crate::server::oip::request::InferRequest;
use bytes::Bytes;
use prost::Message as _;
use std::time::Duration;

/// The most fields of a large message that are scanned for its names. A message with more is built
/// on another thread first.
const SCANNED_FIELDS_MAX: usize = 1024;

/// One received request.
pub(super) struct Message {
    content: MessageContent,
    /// The bytes of the message, of which raw contents are slices.
    whole: Allocation,
    budget: MemoryBudget,
}

enum MessageContent {
    Built(ModelInferRequest),
    /// A large message whose names were scanned: its model is looked up before it is built.
    Named {
        model: String,
        version: String,
        id: String,
        bytes: Bytes,
    },
}

impl Message {
    /// Parses a message at least as far as its names.
    pub async fn read(bytes: Bytes, mut budget: MemoryBudget) -> Result<Self> {
        let (whole, length) = (Allocation::of(&bytes), bytes.len());
        // Raw contents of tensors are not copied, so a large message can be little work.
        let names = Names::of(&bytes, SCANNED_FIELDS_MAX, length > INLINE_BYTES_MAX);
        let content = match names {
            Some(names) if names.built_bytes > INLINE_BYTES_MAX => {
                let [model, version, id] = [names.model, names.version, names.id].map(str::to_owned);
                MessageContent::Named { model, version, id, bytes }
            }
            Some(_) => MessageContent::Built(build(bytes, &mut budget)?),
            None => {
                let built = offload::run(length, move || {
                    let message = build(bytes, &mut budget)?;
                    Ok::<_, Error>((message, budget))
                });
                let (message, charged) = built.await?;
                budget = charged;
                MessageContent::Built(message)
            }
        };
        Ok(Message { content, whole, budget })
    }

    /// Returns the bytes of the message.
    pub fn bytes(&self) -> usize {
        self.whole.bytes
    }

    pub fn model(&self) -> &str {
        match &self.content {
            MessageContent::Built(message) => &message.model_name,
            MessageContent::Named { model, .. } => model,
        }
    }

    pub fn version(&self) -> &str {
        match &self.content {
            MessageContent::Built(message) => &message.model_version,
            MessageContent::Named { version, .. } => version,
        }
    }

    pub fn id(&self) -> &str {
        match &self.content {
            MessageContent::Built(message) => &message.id,
            MessageContent::Named { id, .. } => id,
        }
    }

    /// Returns the bytes that it holds: the message, and what was built of it.
    pub fn held_bytes(&self) -> usize {
        self.whole.bytes + (self.budget.max() - self.budget.left())
    }

    /// Decodes the request. `limit` is the time from its start to the call's own deadline.
    pub async fn decode(self, limit: Option<Duration>) -> Result<InferRequest> {
        let Message { content, whole, mut budget } = self;
        let request = match content {
            MessageContent::Built(message) => {
                let work = contents::work_bytes(&message.inputs, &message.raw_input_contents);
                offload::run(work, move || decode(message, &mut budget)).await
            }
            MessageContent::Named { bytes, .. } => {
                let build_and_decode = move || decode(build(bytes, &mut budget)?, &mut budget);
                offload::run(whole.bytes, build_and_decode).await
            }
        };
        let mut request = request?;
        request.inputs = request.inputs.into_iter().map(|input| input.part_of(whole)).collect();
        if let Some(limit) = limit {
            limit_timeout(&mut request.parameters, limit);
        }
        Ok(request)
    }
}

/// Builds a message, and charges the memory that it takes.
fn build(bytes: Bytes, budget: &mut MemoryBudget) -> Result<ModelInferRequest> {
    const WHAT: &str = "inputs, outputs and parameters";
    let growth = message::growth(&bytes, budget.left()).map_err(|_| budget.exceeded(WHAT))?;
    budget.charge(growth, WHAT)?;
    ModelInferRequest::decode(bytes)
        .map_err(|error| status::unreadable("is not a ModelInferRequest", &error.to_string()))
}
