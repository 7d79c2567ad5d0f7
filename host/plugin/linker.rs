//! The linkers: which host calls the guests of each engine can import.

use super::bindings::{
    self, assets, callables, clock, concurrent_models, logging, metrics, models, sinks, state, store, types,
};
use super::host_calls::streaming_log;
use super::store_data::StoreData;
use wasmtime::component::{HasSelf, Linker};

pub(super) fn linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<StoreData>> {
    let mut linker = common_linker(engine)?;
    callables::add_to_linker::<_, HasSelf<StoreData>>(&mut linker, |state| state)?;
    models::add_to_linker::<_, HasSelf<StoreData>>(&mut linker, |state| state)?;
    bindings::http::add_to_linker::<_, HasSelf<StoreData>>(&mut linker, |state| state)?;
    Ok(linker)
}

pub(super) fn streaming_linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<StoreData>> {
    let mut linker = common_linker(engine)?;
    sinks::add_to_linker::<_, HasSelf<StoreData>>(&mut linker, |state| state)?;
    clock::add_to_linker::<_, HasSelf<StoreData>>(&mut linker, |state| state)?;
    concurrent_models::add_to_linker::<_, HasSelf<StoreData>>(&mut linker, |state| state)?;
    bindings::concurrent_http::add_to_linker::<_, HasSelf<StoreData>>(&mut linker, |state| state)?;
    streaming_log::add_to_linker(&mut linker)?;
    Ok(linker)
}

fn common_linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<StoreData>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    types::add_to_linker::<_, HasSelf<StoreData>>(&mut linker, |state| state)?;
    assets::add_to_linker::<_, HasSelf<StoreData>>(&mut linker, |state| state)?;
    store::add_to_linker::<_, HasSelf<StoreData>>(&mut linker, |state| state)?;
    logging::add_to_linker::<_, HasSelf<StoreData>>(&mut linker, |state| state)?;
    state::add_to_linker::<_, HasSelf<StoreData>>(&mut linker, |state| state)?;
    metrics::add_to_linker::<_, HasSelf<StoreData>>(&mut linker, |state| state)?;
    bindings::http_types::add_to_linker::<_, HasSelf<StoreData>>(&mut linker, |state| state)?;
    Ok(linker)
}
