//! The interface `optional-inputs`: a model says which of its inputs a request may leave out.

use super::bindings::optional_inputs::{OptionalInputsPlugin, OptionalInputsPluginPre};
use super::instance_pool::RolePre;
use super::store_data::StoreData;
use super::{Plugin, Role};
use crate::error::{Error, Result, did_you_mean};
use crate::metrics::Metrics;
use crate::predict::Metadata;
use wasmtime::Store;

/// More names than a model has inputs that anybody counts.
const NAMES_MAX: usize = 1000;

impl RolePre for OptionalInputsPluginPre<StoreData> {
    type Exports = OptionalInputsPlugin;

    async fn instantiate(&self, store: &mut Store<StoreData>) -> wasmtime::Result<OptionalInputsPlugin> {
        self.instantiate_async(store).await
    }
}

impl Plugin {
    /// Asks a model that exports the interface. Needs a tokio runtime around it.
    pub(super) async fn optional_inputs(&self, metrics: &Metrics) -> Result<Vec<String>> {
        let pool = self.pool(Role::Model, metrics, OptionalInputsPluginPre::new)?;
        pool.call_once(&self.load_context(), async |instance| {
            instance.exports.hostler_plugin_optional_inputs().call_names(&mut instance.store).await
        })
        .await
        .map_err(|error| error.context(format!("plugin \"{}\": optional-inputs", self.spec.name)))
    }
}

/// Notes in the metadata what may be left out.
pub(super) fn mark(plugin: &str, metadata: &mut Metadata, names: Vec<String>) -> Result<()> {
    if names.len() > NAMES_MAX {
        let message = format!("plugin \"{plugin}\": optional-inputs gives more than {NAMES_MAX} names");
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
