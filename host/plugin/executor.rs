//! Plugins in the role `executor`: guests that decide how a model is called.

use super::bindings::executor::{ExecutorPlugin, ExecutorPluginPre};
use super::bindings::types;
use super::guest_values::{in_plugin, push_inputs, take_tensors};
use super::instance_pool::{Pool, RolePre, RunningInstance};
use super::store_data::StoreData;
use crate::error::{Error, Kind, Result};
use crate::predict::{CallContext, Target, Tensor};
use std::sync::Arc;
use tokio::sync::oneshot;
use wasmtime::Store;
use wasmtime::component::Resource;

pub(super) type ExecutorPre = ExecutorPluginPre<StoreData>;

impl RolePre for ExecutorPre {
    type Exports = ExecutorPlugin;

    async fn instantiate(&self, store: &mut Store<StoreData>) -> wasmtime::Result<ExecutorPlugin> {
        self.instantiate_async(store).await
    }
}

/// A plugin that calls pass through before they reach an executor.
pub struct PluginExecutor {
    pool: Pool<ExecutorPre>,
    name: Arc<str>,
}

/// What a guest answers: outputs, or an error of its own choice.
pub type GuestAnswer = Result<Vec<Tensor>>;

impl PluginExecutor {
    pub(super) fn new(pool: Pool<ExecutorPre>, name: Arc<str>) -> Self {
        PluginExecutor { pool, name }
    }

    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Lets the guest answer one request. The outer error means that the guest could not answer,
    /// because of a trap or an exceeded limit. An answer that it sends before it returns goes to
    /// `early`.
    pub async fn submit(
        &self,
        context: &Arc<CallContext>,
        inputs: Vec<Tensor>,
        target: Arc<dyn Target>,
        early: oneshot::Sender<Vec<Tensor>>,
    ) -> Result<GuestAnswer> {
        self.pool
            .call_once("submit", context, async |instance| {
                let inputs = push_inputs(instance, inputs)?;
                let state = instance.store.data_mut();
                let callable = state.add_target(target)?;
                state.call()?.calls.answer = Some(early);
                let guest = instance.exports.hostler_plugin_executor();
                let request = Resource::new_own(0);
                let outcome = guest.call_submit(&mut instance.store, request, &inputs, callable).await?;
                in_plugin(instance, outcome, take_tensors)
            })
            .await
            .map(|answer| answer.map_err(|error| error.function("submit")))
    }

    /// Lets the guest answer several requests together. Returns `None` if the guest wants to
    /// receive them one by one.
    pub async fn submit_batch(
        &self,
        context: &Arc<CallContext>,
        members: Vec<Arc<CallContext>>,
        inputs: Vec<Vec<Tensor>>,
        target: Arc<dyn Target>,
    ) -> Result<Option<Vec<GuestAnswer>>> {
        let count = members.len();
        let outcome = self
            .pool
            .call_once("submit_batch", context, async |instance| {
                let pushed = inputs.into_iter().map(|inputs| push_inputs(instance, inputs));
                let inputs = pushed.collect::<wasmtime::Result<Vec<_>>>()?;
                let requests: Vec<_> = (0..count as u32).map(Resource::new_own).collect();
                let state = instance.store.data_mut();
                let callable = state.add_target(target)?;
                state.call()?.calls.batch = members;
                let guest = instance.exports.hostler_plugin_executor();
                let outcome =
                    guest.call_submit_batch(&mut instance.store, &requests, &inputs, callable).await?;
                in_plugin(instance, outcome, take_each)
            })
            .await?;
        match outcome {
            Ok(outcomes) if outcomes.len() == count => Ok(Some(outcomes)),
            Ok(outcomes) => Err(Error::failed(format!(
                "plugin \"{}\" returned {} outcomes for a batch of {count}",
                self.name,
                outcomes.len()
            ))
            .plugin(&*self.name)),
            Err(error) if error.kind() == Kind::Unsupported => Ok(None),
            // The guest has answered with an error: every request gets the same.
            Err(error) => Ok(Some(vec![Err(error); count])),
        }
    }
}

fn take_each<E>(
    instance: &mut RunningInstance<E>,
    outcomes: Vec<Result<Vec<Resource<Tensor>>, types::Error>>,
) -> wasmtime::Result<Vec<GuestAnswer>> {
    outcomes.into_iter().map(|outcome| in_plugin(instance, outcome, take_tensors)).collect()
}
