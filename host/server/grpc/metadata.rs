//! Metadata of the server and of models, as messages.

use super::state::Grpc;
use super::text::non_empty;
use crate::access::{Requester, Verb};
use crate::error::Result;
use crate::policy::{Policy, Route, RouteQuery};
use crate::predict::TensorSpec;
use crate::proto::inference::model_metadata_response::TensorMetadata;
use crate::proto::inference::{ModelMetadataResponse, ServerMetadataResponse};
use crate::server::http;
use crate::server::oip::control;
use crate::server::oip::identity::{EXTENSIONS, PLATFORM, SERVER_NAME};
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
pub(super) fn route(
    policy: &Policy,
    requester: &Requester,
    headers: &HeaderMap,
    name: &str,
    version: &str,
) -> Result<Arc<Route>> {
    let id = http::request_id(headers);
    let caller = RouteQuery { request_id: &id, header: &http::header_lookup(headers) };
    control::readable(policy, requester, name, non_empty(version), &caller).cloned()
}

pub(super) fn model(
    grpc: &Grpc,
    requester: &Requester,
    headers: &HeaderMap,
    name: &str,
    version: &str,
) -> Result<ModelMetadataResponse> {
    let policy = grpc.router().policy();
    let route = route(&policy, requester, headers, name, version)?;
    let model = policy.content.models().find(|(name, _)| ***name == *route.name.name);
    let versions = model.into_iter().flat_map(|(_, model)| model.versions.keys());
    let may_read = |version: &&Arc<str>| requester.may(Verb::Read, Some((&route.name.name, Some(version))));
    let versions = versions.filter(may_read);
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
