//! The routes of the public HTTP listener: applies the cross-site rules and calls the handler of a
//! path. Handlers never import this file.

use super::api::Api;
use super::callers::Callers;
use super::cross_site;
use super::endpoint::Endpoint;
use super::http::{self, Reply, RequestBody};
use super::metrics_page;
use super::oip;
use super::openapi;
use super::plain::{info, jobs, predict, stream};
use super::service::Service;
use super::state::Public;
use crate::error::{Error, Result};
use crate::router::Authority;
use hyper::http::request::Parts;
use hyper::{Method, Request};

impl Service for Public {
    async fn answer(&self, request: Request<RequestBody>) -> Reply {
        let (mut head, body) = request.into_parts();
        if self.callers.must_admit()
            && let Err(error) = admit(&self.callers, &mut head, &body)
        {
            return refused(self, &head, &error);
        }
        match Endpoint::parse(head.uri.path()) {
            // Predictions are open to everyone, so other origins matter only if some may read
            // replies.
            Endpoint::Predict(form) if head.method == Method::POST && !self.cross_site.has_origins() => {
                predict::answer(self, &head, body, form).await
            }
            endpoint => Box::pin(checked(self, &head, body, endpoint)).await,
        }
    }
}

/// Notes who sends a request, and refuses those who may not send it to any model. A preflight is
/// sent without a key.
fn admit(callers: &Callers, head: &mut Parts, body: &RequestBody) -> Result<()> {
    let verb = Endpoint::parse(head.uri.path()).verb(&head.headers);
    match verb.filter(|_| head.method != Method::OPTIONS) {
        None => Ok(()),
        Some(verb) => callers.admit(verb, &head.headers, &mut head.extensions, body.connection()),
    }
}

/// Answers a request that the access rules refuse, and accounts for it.
fn refused(public: &Public, head: &Parts, error: &Error) -> Reply {
    let endpoint = Endpoint::parse(head.uri.path());
    let id = http::request_id(&head.headers);
    let protocol = match endpoint.api() {
        Api::Plain => "plain",
        Api::Oip => "oip",
    };
    let scope = public.router.begin(id, protocol, Authority::host(), &http::header_lookup(&head.headers));
    let mut reply = endpoint.api().error_reply_for(error, scope.id());
    http::sign(&mut reply, scope.id(), scope.generation());
    if let Some(reader) = public.cross_site.reader(&head.headers) {
        cross_site::allow_reading(&mut reply, reader);
    }
    scope.end(reply.status().as_u16(), Some(error));
    reply
}

/// Answers a request that a page of another site may have made.
async fn checked(public: &Public, head: &Parts, body: RequestBody, endpoint: Endpoint<'_>) -> Reply {
    if let Err(error) = public.cross_site.check(head, endpoint.sensitivity()) {
        public.metrics.requests.errors.with_label_values(&[error.kind().as_str()]).inc();
        return endpoint.api().error_reply(&error);
    }
    let Some(reader) = public.cross_site.reader(&head.headers) else {
        return routed(public, head, body, endpoint).await;
    };
    let mut reply = match cross_site::preflight(head) {
        Some(reply) => reply,
        None => routed(public, head, body, endpoint).await,
    };
    cross_site::allow_reading(&mut reply, reader);
    reply
}

async fn routed(public: &Public, head: &Parts, body: RequestBody, endpoint: Endpoint<'_>) -> Reply {
    let (get, post) = (http::is_get(&head.method), head.method == Method::POST);
    match endpoint {
        Endpoint::Predict(form) if post => predict::answer(public, head, body, form).await,
        Endpoint::PredictStream if post => stream::answer(public, head, body).await,
        Endpoint::Health if get => http::health(),
        Endpoint::Ready if get => info::ready(public),
        Endpoint::Metrics if get => metrics_page::reply(&public.metrics, &public.router),
        Endpoint::Models if get => info::models(public, head),
        Endpoint::OpenApi if get => openapi::reply(&head.headers),
        Endpoint::Predict(_) | Endpoint::PredictStream => http::method_not_allowed("POST"),
        Endpoint::Health | Endpoint::Ready | Endpoint::Metrics | Endpoint::Models | Endpoint::OpenApi => {
            http::method_not_allowed("GET")
        }
        Endpoint::Jobs(endpoint) => jobs::routes::answer(public, head, body, endpoint).await,
        Endpoint::Oip(endpoint) => oip::routes::answer(public, head, body, endpoint).await,
        Endpoint::Unknown(_) => {
            let path = head.uri.path();
            if path == "*" && head.method == Method::OPTIONS {
                return http::methods("GET, HEAD, POST, DELETE, OPTIONS");
            }
            // A client of the Open Inference Protocol with a base path that this host does not have
            // reads errors in the form of its protocol.
            match path.contains("/v2/") {
                true => oip::errors::no_such_path(path),
                false => http::no_such_path(&head.method, path),
            }
        }
    }
}
