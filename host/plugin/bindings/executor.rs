//! Bindings of the role `executor`, and of the interfaces through which it calls models.

wasmtime::component::bindgen!({
    path: "wit",
    world: "hostler:plugin/executor-plugin",
    imports: {
        "hostler:plugin/callables.[method]callable.call": async | trappable,
        "hostler:plugin/callables.[method]callable.call-within": async | trappable,
        "hostler:plugin/callables.[method]invocation.next": async | trappable,
        "hostler:plugin/callables.wait-any": async | trappable,
        "hostler:plugin/callables.answer": async | trappable,
        default: trappable,
    },
    exports: { default: async },
    with: {
        "hostler:plugin/types": super::types,
        "hostler:plugin/assets": super::transformer::hostler::plugin::assets,
        "hostler:plugin/state": super::transformer::hostler::plugin::state,
        "hostler:plugin/metrics": super::transformer::hostler::plugin::metrics,
        "hostler:plugin/callables.callable": crate::plugin::resources::CallableHandle,
        "hostler:plugin/callables.invocation": crate::plugin::resources::Invocation,
        "wasi:logging/logging": super::transformer::wasi::logging::logging,
        "wasi:config/store": super::transformer::wasi::config::store,
    },
});
