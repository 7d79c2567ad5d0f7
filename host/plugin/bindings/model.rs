//! Bindings of the role `model`.

wasmtime::component::bindgen!({
    path: "wit",
    world: "hostler:plugin/model-plugin",
    imports: { default: trappable },
    exports: { default: async },
    with: {
        "hostler:plugin/types": super::types,
        "hostler:plugin/assets": super::transformer::hostler::plugin::assets,
        "hostler:plugin/state": super::transformer::hostler::plugin::state,
        "hostler:plugin/metrics": super::transformer::hostler::plugin::metrics,
        "wasi:logging/logging": super::transformer::wasi::logging::logging,
        "wasi:config/store": super::transformer::wasi::config::store,
    },
});
