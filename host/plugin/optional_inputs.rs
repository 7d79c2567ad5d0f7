//! The interface `optional-inputs`, by which a model declares the inputs that a request may leave
//! out.

use super::bindings::optional_inputs::{OptionalInputsPlugin, OptionalInputsPluginPre};
use super::instance_pool::{Pool, RolePre};
use super::store_data::StoreData;
use crate::error::{Error, Result, did_you_mean};
use crate::predict::{CallContext, Metadata};
use std::sync::Arc;
use wasmtime::Store;

/// More names than any real model has inputs.
const NAMES_MAX: usize = 1000;

impl RolePre for OptionalInputsPluginPre<StoreData> {
    type Exports = OptionalInputsPlugin;

    async fn instantiate(&self, store: &mut Store<StoreData>) -> wasmtime::Result<OptionalInputsPlugin> {
        self.instantiate_async(store).await
    }
}

/// Returns the names that the model exports. Must run within a tokio runtime.
pub(super) async fn read(
    pool: &Pool<OptionalInputsPluginPre<StoreData>>,
    context: &Arc<CallContext>,
) -> Result<Vec<String>> {
    pool.call_once("names", context, async |instance| {
        instance.exports.hostler_plugin_optional_inputs().call_names(&mut instance.store).await
    })
    .await
    .map_err(|error| error.context(format!("plugin \"{}\": optional-inputs", pool.spec.name)))
}

/// Marks the named inputs as optional in the metadata.
pub(super) fn mark(plugin: &str, metadata: &mut Metadata, names: Vec<String>) -> Result<()> {
    if names.len() > NAMES_MAX {
        let message = format!("plugin \"{plugin}\": optional-inputs returns more than {NAMES_MAX} names");
        return Err(Error::invalid(message).plugin(plugin));
    }
    for name in names {
        match metadata.inputs.iter_mut().find(|spec| *spec.name == *name) {
            Some(spec) => spec.optional = true,
            None => {
                let shown: String = name.chars().take(80).collect();
                let hint = did_you_mean(&shown, metadata.inputs.iter().map(|spec| &*spec.name));
                let message = format!(
                    "plugin \"{plugin}\": optional-inputs names \"{shown}\", which its metadata does not have{hint}"
                );
                return Err(Error::invalid(message).plugin(plugin));
            }
        }
    }
    Ok(())
}
