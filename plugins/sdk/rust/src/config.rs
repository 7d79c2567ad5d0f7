//! The strings that the manifest gives this plugin under `[plugins.<name>.config]`.

use crate::Error;
use crate::bindings::store;

/// The value of `key`, none if the manifest has none.
pub fn get(key: &str) -> Result<Option<String>, Error> {
    store::get(key).map_err(|error| {
        let (store::Error::Upstream(reason) | store::Error::Io(reason)) = error;
        Error::failed(format!("config \"{key}\": {reason}"))
    })
}
