//! Host calls with which streaming models write to the log: `wasi:logging`, and writes to streams
//! of `wasi:io`.
//!
//! The calls in a shared instance write to the same stdout and stderr, and WASI does not say which
//! of them writes. The host knows which guest task makes a host call, and so which request it works
//! for. These functions record that before they do what wasmtime's own functions do.

use crate::plugin::bindings::logging;
use crate::plugin::store_data::StoreData;
use wasmtime::component::{Linker, Resource};
use wasmtime::{AsContextMut, StoreContextMut};
use wasmtime_wasi::WasiView;
use wasmtime_wasi::p2::bindings::io::streams::{self, Host as _, HostOutputStream as Streams};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, StreamResult};

/// The interfaces as wasmtime names them, whose functions are replaced.
const STREAMS: &str = "wasi:io/streams@0.2.12";
const LOGGING: &str = "wasi:logging/logging@0.1.0-draft";

type Output = Resource<DynOutputStream>;
type Input = Resource<DynInputStream>;
type Outcome<T> = (Result<T, streams::StreamError>,);

/// Replaces the functions that write. All other functions must be in the linker already.
pub(in crate::plugin) fn add_to_linker(linker: &mut Linker<StoreData>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    linker.instance(LOGGING)?.func_wrap(
        "log",
        |mut store: StoreContextMut<'_, StoreData>, (level, context, message): (_, String, String)| {
            set_writer(&mut store)?;
            logging::Host::log(store.data_mut(), level, context, message)
        },
    )?;
    let mut streams = linker.instance(STREAMS)?;
    streams.func_wrap(
        "[method]output-stream.write",
        |mut store: StoreContextMut<'_, StoreData>, (output, bytes): (Output, Vec<u8>)| {
            set_writer(&mut store)?;
            let table = store.data_mut().ctx().table;
            let written = Streams::write(table, output, bytes);
            outcome(&mut store, written)
        },
    )?;
    streams.func_wrap(
        "[method]output-stream.write-zeroes",
        |mut store: StoreContextMut<'_, StoreData>, (output, length): (Output, u64)| {
            set_writer(&mut store)?;
            let table = store.data_mut().ctx().table;
            let written = Streams::write_zeroes(table, output, length);
            outcome(&mut store, written)
        },
    )?;
    streams.func_wrap(
        "[method]output-stream.splice",
        |mut store: StoreContextMut<'_, StoreData>, (output, input, length): (Output, Input, u64)| {
            set_writer(&mut store)?;
            let table = store.data_mut().ctx().table;
            let spliced = Streams::splice(table, output, input, length);
            outcome(&mut store, spliced)
        },
    )?;
    streams.func_wrap_async(
        "[method]output-stream.blocking-write-and-flush",
        |mut store: StoreContextMut<'_, StoreData>, (output, bytes): (Output, Vec<u8>)| {
            Box::new(async move {
                set_writer(&mut store)?;
                let table = store.data_mut().ctx().table;
                let written = Streams::blocking_write_and_flush(table, output, bytes).await;
                outcome(&mut store, written)
            })
        },
    )?;
    streams.func_wrap_async(
        "[method]output-stream.blocking-write-zeroes-and-flush",
        |mut store: StoreContextMut<'_, StoreData>, (output, length): (Output, u64)| {
            Box::new(async move {
                set_writer(&mut store)?;
                let table = store.data_mut().ctx().table;
                let written = Streams::blocking_write_zeroes_and_flush(table, output, length).await;
                outcome(&mut store, written)
            })
        },
    )?;
    streams.func_wrap_async(
        "[method]output-stream.blocking-splice",
        |mut store: StoreContextMut<'_, StoreData>, (output, input, length): (Output, Input, u64)| {
            Box::new(async move {
                set_writer(&mut store)?;
                let table = store.data_mut().ctx().table;
                let spliced = Streams::blocking_splice(table, output, input, length).await;
                outcome(&mut store, spliced)
            })
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

/// Records which call the guest task works for that is about to write.
fn set_writer(store: &mut StoreContextMut<'_, StoreData>) -> wasmtime::Result<()> {
    let Some(registry) = store.data().registry.clone() else { return Ok(()) };
    let stack: Vec<_> = store.as_context_mut().async_call_stack()?.collect();
    let is_host = registry.is_host_call(&stack);
    let log = &store.data().log;
    match registry.by_task(stack).call() {
        Some(call) => log.set_writer(Some(call.log()), None),
        None if is_host => log.set_writer(None, None),
        None => log.set_writer(None, registry.requests()),
    }
    Ok(())
}

/// Converts what a function of wasmtime returns for the guest.
fn outcome<T>(
    store: &mut StoreContextMut<'_, StoreData>,
    result: StreamResult<T>,
) -> wasmtime::Result<Outcome<T>> {
    let table = store.data_mut().ctx().table;
    Ok((match result {
        Ok(value) => Ok(value),
        Err(error) => Err(table.convert_stream_error(error)?),
    },))
}
