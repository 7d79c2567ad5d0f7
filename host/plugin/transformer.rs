//! The role `transformer`: a plugin that turns requests into tensors and tensors into answers.

use super::bindings::transformer::{TransformerPlugin, TransformerPluginPre};
use super::bindings::types;
use super::guest_values::{in_plugin, push_inputs, take_tensors};
use super::instance_pool::{Pool, RolePre, RunningInstance};
use super::store_data::StoreData;
use crate::error::{Error, Result};
use crate::predict::{CallContext, JsonText, Metadata, Payload, Tensor};
use bytes::Bytes;
use std::sync::Arc;
use wasmtime::Store;
use wasmtime::component::Resource;

/// The most characters that a message shows of a text that is not JSON.
const TEXT_SHOWN: usize = 80;

pub(super) type TransformerPre = TransformerPluginPre<StoreData>;

impl RolePre for TransformerPre {
    type Exports = TransformerPlugin;

    async fn instantiate(&self, store: &mut Store<StoreData>) -> wasmtime::Result<TransformerPlugin> {
        self.instantiate_async(store).await
    }
}

/// A plugin that preprocesses and postprocesses for models.
pub struct Transformer {
    pub(super) pool: Pool<TransformerPre>,
    pub(super) name: Arc<str>,
    pub(super) metadata: Option<Metadata>,
    pub(super) waits: bool,
}

impl Transformer {
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The inputs and outputs as clients see them; `None` if they are the model's own.
    pub fn metadata(&self) -> Option<&Metadata> {
        self.metadata.as_ref()
    }

    /// Whether its calls may wait for other models or for servers.
    pub fn waits(&self) -> bool {
        self.waits
    }

    /// Starts the use of this transformer by one request.
    pub fn session(self: &Arc<Self>) -> TransformerSession {
        TransformerSession { transformer: Arc::clone(self), held: None }
    }
}

/// One request's use of a transformer. The instance that preprocessed is kept for the
/// postprocessing: this takes half the instances, and requests are isolated just as well. Plugins
/// must not rely on it.
pub struct TransformerSession {
    transformer: Arc<Transformer>,
    held: Option<RunningInstance<TransformerPlugin>>,
}

impl TransformerSession {
    pub fn name(&self) -> &Arc<str> {
        &self.transformer.name
    }

    pub async fn preprocess(&mut self, context: &Arc<CallContext>, input: Payload) -> Result<Vec<Tensor>> {
        let Transformer { pool, .. } = &*self.transformer;
        pool.call("preprocess", &mut self.held, context, async |instance| {
            let payload = lower_payload(instance, input)?;
            let request = Resource::new_own(0);
            let guest = instance.exports.hostler_plugin_transformer();
            let outcome = guest.call_preprocess(&mut instance.store, request, &payload).await?;
            in_plugin(instance, outcome, take_tensors)
        })
        .await?
        .map_err(|error| error.function("preprocess"))
    }

    pub async fn postprocess(&mut self, context: &Arc<CallContext>, outputs: Vec<Tensor>) -> Result<Payload> {
        let Transformer { pool, name, .. } = &*self.transformer;
        let outcome = pool
            .call("postprocess", &mut self.held, context, async |instance| {
                let outputs = push_inputs(instance, outputs)?;
                let request = Resource::new_own(0);
                let guest = instance.exports.hostler_plugin_transformer();
                let outcome = guest.call_postprocess(&mut instance.store, request, &outputs).await?;
                in_plugin(instance, outcome, lift_payload)
            })
            .await?;
        match outcome {
            Ok(Lifted::Payload(payload)) => Ok(payload),
            Ok(Lifted::Json(text)) => {
                let text = Bytes::from(text);
                JsonText::parse(text.clone()).map(Payload::Json).map_err(|error| {
                    let shown: String = String::from_utf8_lossy(&text).chars().take(TEXT_SHOWN).collect();
                    Error::failed(format!("plugin \"{name}\" returned invalid JSON: {error}"))
                        .with_detail(format!("the text begins with: {shown}"))
                        .plugin(&**name)
                        .function("postprocess")
                })
            }
            Err(error) => Err(error.function("postprocess")),
        }
    }
}

impl TransformerSession {
    /// Returns the instance to the pool in the middle of the request. The next call gets another
    /// one, or the same one again.
    pub fn release_instance(&mut self) {
        if let Some(instance) = self.held.take() {
            self.transformer.pool.give_back(instance);
        }
    }

    /// Returns how many sessions of one worker may keep their instance while other sessions run.
    /// Reused instances need not be kept: the instance returned last is the next one taken. Fresh
    /// ones must be made again if they are not kept, but all that `workers` workers keep must leave
    /// most of the host's instances to others.
    pub fn reusable_max(&self, workers: usize) -> usize {
        let Pool { engine, spec, .. } = &self.transformer.pool;
        if spec.limits.reuses() { 0 } else { engine.config.instances as usize / (4 * workers.max(1)) }
    }
}

impl Drop for TransformerSession {
    fn drop(&mut self) {
        self.release_instance();
    }
}

/// A guest's payload, taken out of its instance. JSON is not checked yet.
enum Lifted {
    Json(String),
    Payload(Payload),
}

fn lower_payload<E>(instance: &mut RunningInstance<E>, payload: Payload) -> wasmtime::Result<types::Payload> {
    Ok(match payload {
        Payload::Json(text) => types::Payload::Json(text.as_str().to_owned()),
        Payload::Bytes { content_type, data } => {
            types::Payload::Bytes(types::Blob { content_type, data: data.to_vec() })
        }
        Payload::Tensors(tensors) => types::Payload::Tensors(push_inputs(instance, tensors)?),
    })
}

fn lift_payload<E>(instance: &mut RunningInstance<E>, payload: types::Payload) -> wasmtime::Result<Lifted> {
    Ok(match payload {
        types::Payload::Json(text) => Lifted::Json(text),
        types::Payload::Bytes(blob) => {
            Lifted::Payload(Payload::Bytes { content_type: blob.content_type, data: blob.data.into() })
        }
        types::Payload::Tensors(tensors) => {
            Lifted::Payload(Payload::Tensors(take_tensors(instance, tensors)?))
        }
    })
}
