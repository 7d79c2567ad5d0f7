//! Who the server is, and what its models take and give.

use super::{Grpc, infer};
use crate::error::Result;
use crate::policy::{Policy, Route, RouteQuery};
use crate::predict::TensorSpec;
use crate::proto::inference::model_metadata_response::TensorMetadata;
use crate::proto::inference::{ModelMetadataResponse, ServerMetadataResponse};
use crate::server::{http, oip};
use hyper::HeaderMap;
use std::sync::Arc;

pub(super) fn server() -> ServerMetadataResponse {
    ServerMetadataResponse {
        name: oip::SERVER_NAME.into(),
        version: env!("CARGO_PKG_VERSION").into(),
        extensions: oip::EXTENSIONS.iter().map(ToString::to_string).collect(),
    }
}

/// The route that this caller's requests would take.
pub(super) fn route(policy: &Policy, headers: &HeaderMap, name: &str, version: &str) -> Result<Arc<Route>> {
    let id = http::request_id(headers);
    let caller = RouteQuery { request_id: &id, header: &|name| http::header(headers, name) };
    let found = policy.content.resolve(name, infer::version(version), &caller);
    found.cloned().map_err(|error| oip::infer::unknown_model(error, infer::version(version)))
}

pub(super) fn model(
    grpc: &Grpc,
    headers: &HeaderMap,
    name: &str,
    version: &str,
) -> Result<ModelMetadataResponse> {
    let policy = grpc.router.policy();
    let route = route(&policy, headers, name, version)?;
    let model = policy.content.models().find(|(name, _)| ***name == *route.name.name);
    let versions = model.into_iter().flat_map(|(_, model)| model.versions.keys());
    let metadata = route.metadata();
    Ok(ModelMetadataResponse {
        name: route.name.name.to_string(),
        versions: versions.map(ToString::to_string).collect(),
        platform: oip::PLATFORM.into(),
        inputs: metadata.inputs.iter().map(tensor).collect(),
        outputs: metadata.outputs.iter().map(tensor).collect(),
    })
}

fn tensor(spec: &TensorSpec) -> TensorMetadata {
    TensorMetadata {
        name: spec.name.to_string(),
        datatype: spec.datatype.as_str().into(),
        shape: spec.shape.to_vec(),
    }
}
