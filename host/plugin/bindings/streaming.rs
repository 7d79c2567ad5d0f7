//! Bindings of the role `streaming-model`, and of the interfaces through which it waits.

wasmtime::component::bindgen!({
    path: ["wit", "wit/async"],
    world: "hostler:concurrent/streaming-model-plugin",
    imports: { "hostler:concurrent/models.get": store | trappable, default: trappable },
    exports: { default: async | store },
    with: {
        "hostler:plugin/types": super::types,
        "hostler:plugin/assets": super::transformer::hostler::plugin::assets,
        "hostler:plugin/state": super::transformer::hostler::plugin::state,
        "hostler:plugin/metrics": super::transformer::hostler::plugin::metrics,
        "hostler:concurrent/sinks.sink": crate::plugin::resources::Sink,
        "hostler:concurrent/models.callable": crate::plugin::streaming::model_handles::CallableHandle,
        "hostler:concurrent/models.invocation": crate::plugin::streaming::model_handles::Invocation,
        "wasi:logging/logging": super::transformer::wasi::logging::logging,
        "wasi:config/store": super::transformer::wasi::config::store,
    },
});
