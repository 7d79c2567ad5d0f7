//! Metadata of the server and of models, as JSON.

use super::identity::{EXTENSIONS, PLATFORM, SERVER_NAME};
use crate::policy::Route;
use crate::predict::Metadata;
use crate::server::http;
use serde_json::{Value, json};

pub(super) fn server_metadata() -> Value {
    json!({"name": SERVER_NAME, "version": env!("CARGO_PKG_VERSION"), "extensions": EXTENSIONS})
}

/// `versions` are all versions of the model.
pub(super) fn model_metadata(route: &Route, versions: Vec<String>) -> Value {
    let Metadata { inputs, outputs, .. } = route.metadata();
    json!({
        "name": &*route.name.name,
        "versions": versions,
        "platform": PLATFORM,
        "inputs": http::tensor_specs(inputs),
        "outputs": http::tensor_specs(outputs),
    })
}
