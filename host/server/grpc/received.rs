//! An inference request between its bytes and its tensors: counted before it is built, and built elsewhere than on the
//! threads that serve connections where that takes long.

use super::message::{self, ModelInferRequest, Names};
use super::{contents, infer, status};
use crate::error::{Error, Result};
use crate::offload::{self, INLINE_BYTES_MAX};
use crate::predict::{Allocation, MemoryBudget};
use crate::server::oip::infer::InferRequest;
use bytes::Bytes;
use prost::Message as _;
use std::time::Duration;

/// Fields of a large message that are looked at for its names, before it is left to another thread.
const FIELDS_LOOKED_AT: usize = 1024;

/// One request as it has come.
pub(super) struct Message {
    content: MessageContent,
    /// The bytes of the message, which raw contents are a part of.
    whole: Allocation,
    budget: MemoryBudget,
}

enum MessageContent {
    Built(ModelInferRequest),
    /// Large, and named: its model is looked up before it is built.
    Named {
        model: String,
        version: String,
        id: String,
        bytes: Bytes,
    },
}

impl Message {
    /// Reads a message at least as far as its names.
    pub async fn read(bytes: Bytes, mut budget: MemoryBudget) -> Result<Self> {
        let (whole, length) = (Allocation::of(&bytes), bytes.len());
        // The raw contents of tensors stay where they are, so a large message can be little work.
        let names = Names::of(&bytes, FIELDS_LOOKED_AT, length > INLINE_BYTES_MAX);
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
                let (message, left) = built.await?;
                budget = left;
                MessageContent::Built(message)
            }
        };
        Ok(Message { content, whole, budget })
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

    /// Bytes that it holds: as they came, and what has been built of them.
    pub fn held_bytes(&self) -> usize {
        self.whole.bytes + (self.budget.max() - self.budget.left())
    }

    /// What the caller wants; `left` gives what remains of the call's own deadline, once the message is read.
    pub async fn decode(self, left: impl FnOnce() -> Option<Duration>) -> Result<InferRequest> {
        let Message { content, whole, mut budget } = self;
        let request = match content {
            MessageContent::Built(message) => {
                let work = contents::work_bytes(&message.inputs, &message.raw_input_contents);
                offload::run(work, move || infer::decode(message, &mut budget)).await
            }
            MessageContent::Named { bytes, .. } => {
                let decode = move || infer::decode(build(bytes, &mut budget)?, &mut budget);
                offload::run(whole.bytes, decode).await
            }
        };
        let mut request = request?;
        request.inputs = request.inputs.into_iter().map(|input| input.part_of(whole)).collect();
        if let Some(left) = left() {
            infer::limit(&mut request.parameters, left)?;
        }
        Ok(request)
    }
}

/// Builds a message, if the budget allows what it becomes.
fn build(bytes: Bytes, budget: &mut MemoryBudget) -> Result<ModelInferRequest> {
    const WHAT: &str = "inputs, outputs and parameters";
    let growth = message::growth(&bytes, budget.left()).map_err(|_| budget.exceeded(WHAT))?;
    budget.charge(growth, WHAT)?;
    ModelInferRequest::decode(bytes)
        .map_err(|error| status::unreadable("is not a ModelInferRequest", &error.to_string()))
}
