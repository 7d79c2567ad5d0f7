//! The interfaces `sinks` and `clock`, which streaming models may call.
//!
//! Such a call is made on behalf of a request, which is identified by the guest task that makes the
//! call or by the handle that the call is made on. The call fails if the client has disconnected or
//! the request has ended. Once the request's call was abandoned, it never returns, so that the
//! guest stops where it is.

use crate::error::{Error, Result};
use crate::plugin::bindings::{clock, sinks, types};
use crate::plugin::resources::Sink;
use crate::plugin::store_data::StoreData;
use crate::plugin::streaming::{ActiveCall, CallerState};
use crate::predict::Tensor;
use std::sync::Arc;
use std::time::Duration;
use wasmtime::AsContextMut;
use wasmtime::component::{Access, Accessor, HasSelf, Resource};

type Trappable<T> = wasmtime::Result<T>;

/// Returns the call that the current guest task works for. `None` outside of a call: in
/// `initialize` and `finalize`. Never returns if the call was abandoned.
pub(super) async fn caller<T: Send + 'static>(
    accessor: &Accessor<T, HasSelf<StoreData>>,
) -> Trappable<Option<Arc<ActiveCall>>> {
    match accessor.with(|mut access| current(&mut access))? {
        CallerState::Active(call) => Ok(Some(call)),
        CallerState::Unknown => Ok(None),
        CallerState::Abandoned(_) => std::future::pending().await,
    }
}

/// Returns on whose behalf the current guest task calls the host.
pub(super) fn current<T: Send + 'static>(
    access: &mut Access<'_, T, HasSelf<StoreData>>,
) -> Trappable<CallerState> {
    let Some(registry) = access.get().registry.clone() else { return Ok(CallerState::Unknown) };
    let stack: Vec<_> = access.as_context_mut().async_call_stack()?.collect();
    Ok(registry.by_task(stack))
}

async fn waited<T: Send + 'static, R>(
    accessor: &Accessor<T, HasSelf<StoreData>>,
    work: impl Future<Output = R>,
) -> Trappable<Result<R>> {
    Ok(match caller(accessor).await? {
        Some(call) => call.wait(work).await,
        None => Ok(work.await),
    })
}

impl clock::Host for StoreData {}

impl<T: Send + 'static> clock::HostWithStore<T> for HasSelf<StoreData> {
    async fn sleep(
        accessor: &Accessor<T, Self>,
        time_us: u64,
    ) -> Trappable<std::result::Result<(), types::Error>> {
        let slept = waited(accessor, tokio::time::sleep(Duration::from_micros(time_us))).await?;
        Ok(slept.map_err(|error| accessor.with(|mut access| access.get().give_error(error))))
    }
}

impl sinks::Host for StoreData {}

impl sinks::HostSink for StoreData {
    fn drop(&mut self, _: Resource<Sink>) -> Trappable<()> {
        Ok(())
    }
}

impl<T: Send + 'static> sinks::HostSinkWithStore<T> for HasSelf<StoreData> {
    async fn send(
        accessor: &Accessor<T, Self>,
        sink: Resource<Sink>,
        outputs: Vec<Resource<Tensor>>,
    ) -> Trappable<std::result::Result<(), types::Error>> {
        let (call, outputs) = accessor.with(|mut access| -> Trappable<_> {
            let state = access.get();
            let outputs = state.handles.take_all(outputs)?;
            let registry = state.registry.as_ref();
            Ok((registry.map_or(CallerState::Unknown, |registry| registry.by_key(sink.rep())), outputs))
        })?;
        match call {
            CallerState::Active(call) => {
                Ok(call.respond(outputs).await.map_err(|error| call.record_error(error)))
            }
            CallerState::Unknown => {
                let error = Error::unsupported("the responses ended when execute returned");
                Ok(Err(accessor.with(|mut access| access.get().give_error(error))))
            }
            CallerState::Abandoned(_) => std::future::pending().await,
        }
    }
}
