//! The interface `http`, through which guests of the synchronous roles call servers. The guest
//! waits for the response.

use crate::error::Error;
use crate::outbound::{HttpReply, HttpRequest};
use crate::plugin::bindings::{http, http_types, types};
use crate::plugin::spec::PluginSpec;
use crate::plugin::store_data::StoreData;
use std::sync::Arc;
use std::time::Duration;

impl From<http_types::HttpRequest> for HttpRequest {
    fn from(request: http_types::HttpRequest) -> Self {
        let http_types::HttpRequest { method, url, headers, body, timeout_ms } = request;
        HttpRequest { method, url, headers, body, timeout: timeout_ms.map(Duration::from_millis) }
    }
}

impl From<HttpReply> for http_types::HttpResponse {
    fn from(HttpReply { status, headers, body }: HttpReply) -> Self {
        http_types::HttpResponse { status, headers, body }
    }
}

/// Returns the error for a plugin that may not call any server.
pub(super) fn nobody(spec: &PluginSpec) -> Error {
    let name = &spec.name;
    Error::unsupported(format!(
        "plugin \"{name}\" may not call any server; list those that it may call under [plugins.{name}.http] allow_hosts"
    ))
}

impl http_types::Host for StoreData {}

impl http::Host for StoreData {
    async fn fetch(
        &mut self,
        request: http_types::HttpRequest,
    ) -> wasmtime::Result<Result<http_types::HttpResponse, types::Error>> {
        let spec = Arc::clone(&self.spec);
        let Some(outbound) = &spec.outbound else { return Ok(Err(self.give_error(nobody(&spec)))) };
        let call = self.call()?;
        let answer = outbound.fetch(request.into(), Some(&call.context), Some(&call.fetches)).await;
        Ok(answer.map(Into::into).map_err(|error| self.give_error(error)))
    }
}
