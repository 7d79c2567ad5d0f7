//! The role `model`: a plugin that computes outputs from inputs.

use super::bindings::model::{ModelPlugin, ModelPluginPre};
use super::guest_values::{in_plugin, push_inputs, take_tensors};
use super::instance_pool::{Pool, RolePre};
use super::store_data::StoreData;
use crate::error::Result;
use crate::predict::{CallContext, Metadata, Tensor};
use std::sync::Arc;
use wasmtime::Store;
use wasmtime::component::Resource;

pub(super) type ModelPre = ModelPluginPre<StoreData>;

impl RolePre for ModelPre {
    type Exports = ModelPlugin;

    async fn instantiate(&self, store: &mut Store<StoreData>) -> wasmtime::Result<ModelPlugin> {
        self.instantiate_async(store).await
    }
}

/// A plugin that is a model.
pub struct PluginModel {
    pub(super) pool: Pool<ModelPre>,
    pub(super) name: Arc<str>,
    pub(super) metadata: Metadata,
    pub(super) waits: bool,
}

impl PluginModel {
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Whether its calls may wait for other models or for servers.
    pub fn waits(&self) -> bool {
        self.waits
    }

    pub async fn predict(&self, context: &Arc<CallContext>, inputs: Vec<Tensor>) -> Result<Vec<Tensor>> {
        self.pool
            .call_once("predict", context, async |instance| {
                let inputs = push_inputs(instance, inputs)?;
                let request = Resource::new_own(0);
                let guest = instance.exports.hostler_plugin_model();
                let outcome = guest.call_predict(&mut instance.store, request, &inputs).await?;
                in_plugin(instance, outcome, take_tensors)
            })
            .await?
            .map_err(|error| error.function("predict"))
    }
}
