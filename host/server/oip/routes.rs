//! Dispatches requests of the Open Inference Protocol to their handlers.

use super::endpoint::{ModelAction, ModelPath, OipEndpoint};
use super::errors::{error_reply, method_not_allowed, no_such_path};
use super::inference::ModelRequest;
use super::metadata::{model_metadata, server_metadata};
use super::preference;
use super::{control, control_http, unsupported};
use crate::access::Verb;
use crate::error::Kind;
use crate::policy::RouteQuery;
use crate::server::http::{self, Reply, RequestBody};
use crate::server::state::Public;
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use std::sync::Arc;

pub(in crate::server) async fn answer(
    public: &Public,
    head: &Parts,
    body: RequestBody,
    endpoint: OipEndpoint<'_>,
) -> Reply {
    let get = http::is_get(&head.method);
    match endpoint {
        OipEndpoint::Server if get => http::json_of(StatusCode::OK, &server_metadata()),
        OipEndpoint::Live if get => http::empty(StatusCode::OK),
        OipEndpoint::Ready if get => {
            let ready = public.readiness.refusal().is_none()
                && public.callers.is_open()
                && public.router.policy().content.unready().is_none();
            http::empty(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE })
        }
        OipEndpoint::Server | OipEndpoint::Live | OipEndpoint::Ready => method_not_allowed("GET"),
        OipEndpoint::Control(endpoint) => control_http::answer(public, head, body, endpoint).await,
        OipEndpoint::Model(path, action) => answer_model(public, head, body, path, action).await,
        OipEndpoint::Unsupported(endpoint) => unsupported::answer(&head.method, endpoint),
        OipEndpoint::Unknown(_) => no_such_path(head.uri.path()),
    }
}

async fn answer_model(
    public: &Public,
    head: &Parts,
    body: RequestBody,
    path: ModelPath<'_>,
    action: ModelAction,
) -> Reply {
    let request = ModelRequest { public, requester: public.requester(head), headers: &head.headers, path };
    let is_post = head.method == Method::POST;
    match action {
        ModelAction::Infer if is_post && preference::is_async(&head.headers) => {
            request.submit(head, body).await
        }
        ModelAction::Infer if is_post => request.infer(body).await,
        ModelAction::Generate if is_post => request.generate(body).await,
        ModelAction::GenerateStream if is_post => request.generate_stream(body).await,
        ModelAction::Infer | ModelAction::Generate | ModelAction::GenerateStream => {
            method_not_allowed("POST")
        }
        ModelAction::Ready | ModelAction::Metadata if !http::is_get(&head.method) => {
            method_not_allowed("GET")
        }
        ModelAction::Ready | ModelAction::Metadata => describe(public, head, path, action),
    }
}

/// Answers whether a model is ready, or what its metadata are.
fn describe(public: &Public, head: &Parts, path: ModelPath<'_>, action: ModelAction) -> Reply {
    let id = http::request_id(&head.headers);
    let policy = public.router.policy();
    let caller = RouteQuery { request_id: &id, header: &http::header_lookup(&head.headers) };
    let requester = public.requester(head);
    let found = path.decode().and_then(|(model, version)| {
        control::readable(&policy, &requester, &model, version.as_deref(), &caller).map(Arc::clone)
    });
    match (found, action) {
        (Ok(_), ModelAction::Ready) if public.readiness.refusal().is_some() => {
            http::empty(StatusCode::SERVICE_UNAVAILABLE)
        }
        (Ok(route), ModelAction::Ready) if route.callable.ready().is_err() => {
            http::empty(StatusCode::SERVICE_UNAVAILABLE)
        }
        (Ok(_), ModelAction::Ready) => http::empty(StatusCode::OK),
        (Err(error), ModelAction::Ready) if error.kind() == Kind::NotFound => {
            http::empty(StatusCode::NOT_FOUND)
        }
        (Ok(route), _) => {
            let versions = policy.content.models().find(|(name, _)| **name == route.name.name);
            let may_read =
                |version: &&Arc<str>| requester.may(Verb::Read, Some((&route.name.name, Some(version))));
            let versions = versions
                .map(|(_, model)| model.versions.keys().filter(may_read).map(ToString::to_string).collect());
            http::json_of(StatusCode::OK, &model_metadata(&route, versions.unwrap_or_default()))
        }
        (Err(error), _) => error_reply(&error),
    }
}
