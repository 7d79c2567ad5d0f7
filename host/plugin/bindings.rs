//! Generated from `wit/`: the imports that the host gives and the exports that plugins have.

/// The role `transformer`, and every interface that plugins import.
pub mod transformer {
    wasmtime::component::bindgen!({
        path: "wit",
        world: "hostler:plugin/transformer-plugin",
        imports: { default: trappable },
        exports: { default: async },
        with: {
            "hostler:plugin/types.tensor": crate::predict::Tensor,
            "hostler:plugin/types.request": crate::plugin::host_calls::Request,
        },
    });
}

/// The role `model`.
pub mod model {
    wasmtime::component::bindgen!({
        path: "wit",
        world: "hostler:plugin/model-plugin",
        imports: { default: trappable },
        exports: { default: async },
        with: {
            "hostler:plugin/types": super::types,
            "hostler:plugin/assets": super::transformer::hostler::plugin::assets,
            "wasi:logging/logging": super::transformer::wasi::logging::logging,
            "wasi:config/store": super::transformer::wasi::config::store,
        },
    });
}

pub use transformer::hostler::plugin::{assets, types};
pub use transformer::wasi::{config::store, logging::logging};
