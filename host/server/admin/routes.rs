//! The routes of the admin listener: identifies the caller, applies the cross-site rules, and
//! dispatches to administration and to the page.

use super::administration;
use super::state::Admin;
use crate::access::Verb;
use crate::error::Error;
use crate::server::api::Api;
use crate::server::cross_site::Sensitivity;
use crate::server::http::{self, Reply, RequestBody};
use crate::server::service::Service;
use crate::server::ui::{self, PageEndpoint};
use crate::server::{metrics_page, openapi};
use hyper::Request;

/// What a path of the admin listener names.
enum Endpoint<'a> {
    Health,
    Metrics,
    OpenApi,
    Page(PageEndpoint<'a>),
    /// Everything else: administration, and paths that are not there.
    Administration,
}

impl<'a> Endpoint<'a> {
    fn parse(path: &'a str) -> Self {
        match path {
            "/health" => Endpoint::Health,
            "/metrics" => Endpoint::Metrics,
            openapi::PATH => Endpoint::OpenApi,
            path => PageEndpoint::parse(path).map_or(Endpoint::Administration, Endpoint::Page),
        }
    }

    fn sensitivity(&self) -> Sensitivity {
        match self {
            Endpoint::Health | Endpoint::Metrics | Endpoint::OpenApi => Sensitivity::Open,
            // Links from other sites may lead to the page.
            Endpoint::Page(PageEndpoint::File(_)) => Sensitivity::Reads,
            Endpoint::Page(PageEndpoint::Api(_)) | Endpoint::Administration => Sensitivity::Controls,
        }
    }

    /// Returns what a caller must be allowed to do; `None` if everyone may, or the page identifies
    /// its callers itself.
    fn verb(&self) -> Option<Verb> {
        match self {
            Endpoint::Health | Endpoint::OpenApi | Endpoint::Page(_) => None,
            Endpoint::Metrics => Some(Verb::Metrics),
            Endpoint::Administration => Some(Verb::Admin),
        }
    }
}

impl Service for Admin {
    async fn answer(&self, request: Request<RequestBody>) -> Reply {
        let (mut head, body) = request.into_parts();
        // The endpoint borrows the path, and the head is changed.
        let path = head.uri.path().to_owned();
        let endpoint = Endpoint::parse(&path);
        let refused = |error: &Error| {
            self.public.metrics.requests.errors.with_label_values(&[error.kind().as_str()]).inc();
            Api::of(&path).error_reply(error)
        };
        if let Some(verb) = endpoint.verb()
            && self.callers.must_admit()
            && let Err(error) =
                self.callers.admit(verb, &head.headers, &mut head.extensions, body.connection())
        {
            return refused(&error);
        }
        if let Err(error) = self.cross_site.check(&head, endpoint.sensitivity()) {
            return refused(&error);
        }
        match endpoint {
            Endpoint::Page(endpoint) => Box::pin(ui::answer(self, head, body, endpoint)).await,
            Endpoint::Administration => {
                let _call = body.connection().operator_call();
                Box::pin(administration::answer(self, &head, body.connection(), &path)).await
            }
            _ if !http::is_get(&head.method) => http::method_not_allowed("GET"),
            Endpoint::Health => http::health(),
            Endpoint::Metrics => metrics_page::reply(&self.public.metrics, &self.public.router),
            Endpoint::OpenApi => openapi::reply(&head.headers),
        }
    }
}
