//! The interface `http` of `hostler:concurrent`, through which streaming models call servers.

use super::http::nobody;
use super::streaming::caller;
use crate::plugin::bindings::{concurrent_http as http, http_types, types};
use crate::plugin::store_data::StoreData;
use std::sync::Arc;
use wasmtime::component::{Accessor, HasSelf};

impl http::Host for StoreData {}

impl<T: Send + 'static> http::HostWithStore<T> for HasSelf<StoreData> {
    async fn fetch(
        accessor: &Accessor<T, Self>,
        request: http_types::HttpRequest,
    ) -> wasmtime::Result<Result<http_types::HttpResponse, types::Error>> {
        let spec = accessor.with(|mut access| Arc::clone(&access.get().spec));
        let call = caller(accessor).await?;
        let Some(outbound) = &spec.outbound else {
            return Ok(Err(accessor.with(|mut access| access.get().give_error(nobody(&spec)))));
        };
        let request = request.into();
        let answer = match &call {
            Some(call) => {
                let fetch = outbound.fetch(request, Some(&call.context), Some(&call.fetches));
                call.wait(fetch).await.and_then(|answer| answer)
            }
            // In `initialize` and `finalize`.
            None => outbound.fetch(request, None, None).await,
        };
        let give_error = |error| accessor.with(|mut access| access.get().give_error(error));
        Ok(answer.map(Into::into).map_err(give_error))
    }
}
