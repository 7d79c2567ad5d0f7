//! Metadata of the server and of models, as messages.

use super::state::Grpc;
use super::text::non_empty;
use crate::error::Result;
use crate::policy::{Policy, Route, RouteQuery};
use crate::predict::TensorSpec;
use crate::proto::inference::model_metadata_response::TensorMetadata;
use crate::proto::inference::{ModelMetadataResponse, ServerMetadataResponse};
use crate::server::http;
use crate::server::oip::identity::{EXTENSIONS, PLATFORM, SERVER_NAME};
use crate::server::oip::phrases::unknown_model;
use hyper::HeaderMap;
use std::sync::Arc;

pub(super) fn server() -> ServerMetadataResponse {
    ServerMetadataResponse {
        name: SERVER_NAME.into(),
        version: env!("CARGO_PKG_VERSION").into(),
        extensions: EXTENSIONS.iter().map(ToString::to_string).collect(),
    }
}

/// Returns the route that requests of this client would take.
pub(super) fn route(policy: &Policy, headers: &HeaderMap, name: &str, version: &str) -> Result<Arc<Route>> {
    let id = http::request_id(headers);
    let caller = RouteQuery { request_id: &id, header: &http::header_lookup(headers) };
    let version = non_empty(version);
    let found = policy.content.resolve(name, version, &caller);
    found.cloned().map_err(|error| unknown_model(error, name, version))
}

pub(super) fn model(
    grpc: &Grpc,
    headers: &HeaderMap,
    name: &str,
    version: &str,
) -> Result<ModelMetadataResponse> {
    let policy = grpc.router().policy();
    let route = route(&policy, headers, name, version)?;
    let model = policy.content.models().find(|(name, _)| ***name == *route.name.name);
    let versions = model.into_iter().flat_map(|(_, model)| model.versions.keys());
    let metadata = route.metadata();
    Ok(ModelMetadataResponse {
        name: route.name.name.to_string(),
        versions: versions.map(ToString::to_string).collect(),
        platform: PLATFORM.into(),
        inputs: metadata.inputs.iter().map(tensor).collect(),
        outputs: metadata.outputs.iter().map(tensor).collect(),
    })
}

fn tensor(spec: &TensorSpec) -> TensorMetadata {
    TensorMetadata {
        name: spec.name.to_string(),
        datatype: spec.datatype.as_str().into(),
        shape: spec.shape.on_wire().to_vec(),
    }
}
