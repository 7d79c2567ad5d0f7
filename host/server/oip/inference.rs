//! `POST …/infer` over HTTP, with JSON and binary tensors, compressed or not; and what it shares
//! with `generate`.

use super::binary::{self, Tail};
use super::endpoint::ModelPath;
use super::errors::error_reply;
use super::infer;
use super::json::{self, BinaryOutputs};
use super::phrases::unknown_model;
use super::request::InferRequest;
use crate::access::{Requester, Verb};
use crate::error::{Error, Result};
use crate::offload;
use crate::policy::Route;
use crate::predict::Allocation;
use crate::router::{Authority, RequestScope};
use crate::server::http::{self, Reply, RequestBody, compression};
use crate::server::state::Public;
use bytes::Bytes;
use hyper::HeaderMap;
use std::sync::Arc;

/// A request to run a model, without its body.
pub(super) struct ModelRequest<'a> {
    pub public: &'a Public,
    pub requester: Requester,
    pub headers: &'a HeaderMap,
    pub path: ModelPath<'a>,
}

impl ModelRequest<'_> {
    pub fn begin(&self, verb: Verb) -> RequestScope {
        let id = http::request_id(self.headers);
        let authority = Authority::new(self.requester.clone(), verb);
        self.public.router.begin(id, "oip", authority, &http::header_lookup(self.headers))
    }

    pub fn resolve(&self, scope: &mut RequestScope) -> Result<Arc<Route>> {
        let (model, version) = self.path.decode()?;
        let resolved = scope.resolve(&model, version.as_deref(), &http::header_lookup(self.headers));
        resolved.map_err(|error| unknown_model(error, &model, version.as_deref()))
    }

    /// Reads the body of a request that the limits of its tenant admit.
    pub async fn read(&self, scope: &mut RequestScope, body: RequestBody) -> Result<Bytes> {
        scope.admit()?;
        let tensors = binary::tensors_at(self.headers);
        http::read_body(self.headers, body, tensors, &self.public.transfers, scope.guard()).await
    }

    /// `POST …/infer`
    pub async fn infer(&self, body: RequestBody) -> Reply {
        let mut scope = self.begin(Verb::Predict);
        let answer = match self.read(&mut scope, body).await {
            Ok(body) => self.infer_body(&mut scope, body).await,
            Err(error) => Err(error),
        };
        self.end(scope, answer).await
    }

    async fn infer_body(&self, scope: &mut RequestScope, body: Bytes) -> Result<Reply> {
        let route = self.resolve(scope)?;
        let (request, binary_outputs) = self.decode(&route, body).await?;
        let response = infer::infer(scope, &route, request).await?;
        let encoded = offload::run(json::text_bytes(&response, &binary_outputs), move || {
            json::encode(&response, &binary_outputs)
        });
        let (head, tail) = encoded.await?;
        Ok(binary::reply(head, tail))
    }

    /// Decodes a body: JSON, JSON and binary tensors, or the bytes of one tensor.
    pub async fn decode(&self, route: &Arc<Route>, body: Bytes) -> Result<(InferRequest, BinaryOutputs)> {
        let (head, tail) = binary::split(self.headers, &body)?;
        let (budget, metadata_route) = (self.public.router.budget(), Arc::clone(route));
        let whole = Allocation::of(&body);
        let decoded = offload::run(body.len(), move || {
            // Dropped early: `head` and `tail` hold the parts that are still needed.
            drop(body);
            if head.is_empty() && !tail.is_empty() {
                // Without batching, for example with a transformer, the first dimension is not one
                // of rows; see `config`.
                let rows = metadata_route.batching.is_some();
                return Ok((
                    binary::whole(&metadata_route.name.name, metadata_route.metadata(), rows, tail)?,
                    BinaryOutputs::all(),
                ));
            }
            json::decode(&metadata_route.name.name, &head, Tail::new(tail, whole), budget)
        });
        decoded.await
    }

    /// Signs the reply, compresses it if the client accepts that, and accounts for the request.
    pub async fn end(&self, scope: RequestScope, answer: Result<Reply>) -> Reply {
        let (mut reply, error): (Reply, Option<Error>) = match answer {
            Ok(reply) => (compression::pack(reply, compression::accepted(self.headers)).await, None),
            // Clients of the protocol do not decompress errors.
            Err(error) => (error_reply(&error), Some(error)),
        };
        http::sign(&mut reply, scope.id(), scope.generation());
        scope.end(reply.status().as_u16(), error.as_ref());
        reply
    }
}
