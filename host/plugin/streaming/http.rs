//! How plugins whose calls wait side by side ask servers: the interface `http` of `hostler:concurrent`.

use super::host_calls::caller;
use crate::plugin::bindings::{concurrent_http as http, http_types, types};
use crate::plugin::outbound::nobody;
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
            return Ok(Err(accessor.with(|mut access| access.get().hand(nobody(&spec)))));
        };
        let question = request.into();
        let answer = match &call {
            Some(call) => {
                let asking = outbound.fetch(question, Some(&call.context), Some(&call.fetches));
                call.wait(asking).await.and_then(|answer| answer)
            }
            // In `initialize` and `finalize`.
            None => outbound.fetch(question, None, None).await,
        };
        let hand = |error| accessor.with(|mut access| access.get().hand(error));
        Ok(answer.map(Into::into).map_err(hand))
    }
}
