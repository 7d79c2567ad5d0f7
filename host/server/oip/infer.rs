//! Runs an inference, as HTTP and gRPC both define it: they decode into its request and encode its
//! responses. What a request may contain is decided in `prepare`, once for both protocols.

use super::prepare::{PreparedRequest, ResponseTemplate, prepare};
use super::request::{InferRequest, InferResponse};
use crate::error::{Error, Result};
use crate::policy::Route;
use crate::predict::Responses;
use crate::router::RequestScope;
use std::sync::Arc;

/// Runs a model that answers once.
pub(in crate::server) async fn infer(
    scope: &mut RequestScope,
    route: &Arc<Route>,
    request: InferRequest,
) -> Result<InferResponse> {
    refuse_streaming(route)?;
    let PreparedRequest { options, input, template } = prepare(route, request)?;
    let response = scope.predict(route, options, input).await?;
    template.response(response)
}

/// Refuses a model with any number of responses, in the words that clients of the protocol know.
pub(super) fn refuse_streaming(route: &Route) -> Result<()> {
    if !route.is_streaming() {
        return Ok(());
    }
    Err(Error::unsupported(format!(
        "model \"{}\" gives any number of responses to a request; ask for it on a stream (ModelStreamInfer over gRPC, \
         generate_stream over HTTP): infer doesn't support models with decoupled transaction policy",
        route.name
    )))
}

/// Begins a call with any number of responses. A model that answers once makes one.
#[expect(
    clippy::result_large_err,
    reason = "both sides hold the request scope, and a box would cost every stream"
)]
pub(in crate::server) fn stream(
    mut scope: RequestScope,
    route: &Arc<Route>,
    request: InferRequest,
) -> Result<InferStream, (RequestScope, Error)> {
    let begun = prepare(route, request).and_then(|PreparedRequest { options, input, template }| {
        Ok((scope.stream(route, options, input)?, template))
    });
    match begun {
        Ok((responses, template)) => Ok(InferStream { scope, responses, template, error: None }),
        Err(error) => Err((scope, error)),
    }
}

/// The responses to one request. Dropping this cancels the work.
pub(in crate::server) struct InferStream {
    scope: RequestScope,
    responses: Responses,
    template: ResponseTemplate,
    error: Option<Error>,
}

impl InferStream {
    /// Returns the next response; `None` after the last, and after an error.
    pub async fn next(&mut self) -> Option<Result<InferResponse>> {
        if self.error.is_some() {
            return None;
        }
        let response = self.scope.next(&self.template.route, &mut self.responses).await?;
        let response = response.and_then(|response| self.template.response(response));
        self.error = response.as_ref().err().cloned();
        Some(response)
    }

    /// Cancels the work. The caller must account for the request.
    pub fn into_scope(self) -> RequestScope {
        self.scope
    }

    pub fn scope(&self) -> &RequestScope {
        &self.scope
    }

    /// Accounts for the stream as a whole. `status_of` maps its end to a status of the protocol.
    pub fn end(self, status_of: impl FnOnce(Option<&Error>) -> u16) {
        let status = status_of(self.error.as_ref());
        self.scope.end(status, self.error.as_ref());
    }
}
