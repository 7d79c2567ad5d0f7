//! Inference over HTTP: `infer` with JSON and binary tensors, packed or not; `generate` in `generate`.

use super::binary::{self, Tail};
use super::infer::{self, InferRequest};
use super::json::{self, Form};
use super::{error_reply, names};
use crate::error::{Error, Result};
use crate::offload;
use crate::policy::Route;
use crate::predict::Allocation;
use crate::router::RequestScope;
use crate::server::compression;
use crate::server::http::{self, Reply};
use crate::server::plain::Public;
use bytes::Bytes;
use hyper::HeaderMap;
use hyper::body::Incoming;
use std::sync::Arc;

/// Which model is asked, and with which headers.
pub(super) struct ModelRequest<'a> {
    pub public: &'a Public,
    pub headers: &'a HeaderMap,
    pub model: &'a str,
    pub version: Option<&'a str>,
}

impl ModelRequest<'_> {
    pub fn begin(&self) -> RequestScope {
        let header = |name: &str| http::header(self.headers, name);
        self.public.router.begin(http::request_id(self.headers), "oip", &header)
    }

    pub fn resolve(&self, scope: &mut RequestScope) -> Result<Arc<Route>> {
        let (model, version) = names(self.model, self.version)?;
        let header = |name: &str| http::header(self.headers, name);
        let resolved = scope.resolve(&model, version.as_deref(), &header);
        resolved.map_err(|error| infer::unknown_model(error, version.as_deref()))
    }

    pub async fn read(&self, body: Incoming) -> Result<Bytes> {
        compression::read_body(self.headers, body, &self.public.transfers).await
    }

    /// `POST …/infer`
    pub async fn infer(&self, body: Incoming) -> Reply {
        let mut scope = self.begin();
        let answer = match self.read(body).await {
            Ok(body) => self.infer_body(&mut scope, body).await,
            Err(error) => Err(error),
        };
        self.end(scope, answer).await
    }

    async fn infer_body(&self, scope: &mut RequestScope, body: Bytes) -> Result<Reply> {
        let route = self.resolve(scope)?;
        let (head, tail) = binary::split(self.headers, &body)?;
        let (budget, metadata_route) = (self.public.router.budget(), Arc::clone(&route));
        let whole = Allocation::of(&body);
        let decoded = offload::run(body.len(), move || {
            // Not held by this connection while its parts are read.
            drop(body);
            if head.is_empty() && !tail.is_empty() {
                // A transformer or a model that runs each request alone has no rows; see `config`.
                let rows = metadata_route.batching.is_some();
                return Ok((
                    binary::whole(&metadata_route.name.name, metadata_route.metadata(), rows, tail)?,
                    Form::binary(),
                ));
            }
            json::decode(&head, Tail::new(tail, whole), budget)
        });
        let (request, form): (InferRequest, Form) = decoded.await?;
        let response = infer::infer(scope, &route, request).await?;
        let encoded =
            offload::run(json::text_bytes(&response, &form), move || json::encode(&response, &form));
        let (head, tail) = encoded.await?;
        Ok(binary::reply(head, tail))
    }

    /// Signs an answer or an error, packs it if the caller likes that, and accounts for it.
    pub async fn end(&self, scope: RequestScope, answer: Result<Reply>) -> Reply {
        let (mut reply, error): (Reply, Option<Error>) = match answer {
            Ok(reply) => (compression::pack(reply, compression::accepted(self.headers)).await, None),
            // The clients of the field do not unpack errors.
            Err(error) => (error_reply(&error), Some(error)),
        };
        http::sign(&mut reply, scope.id(), scope.generation());
        scope.end(reply.status().as_u16(), error.as_ref());
        reply
    }
}
