//! Bindings of HTTP for the synchronous roles.

wasmtime::component::bindgen!({
    path: "wit",
    world: "hostler:plugin/outbound",
    imports: { default: async | trappable },
    with: { "hostler:plugin/types": super::types },
});
