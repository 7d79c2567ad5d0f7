//! Bindings of HTTP for the role `streaming-model`.

wasmtime::component::bindgen!({
    path: ["wit", "wit/async"],
    world: "hostler:concurrent/outbound",
    imports: { default: trappable },
    with: {
        "hostler:plugin/types": super::types,
        "hostler:plugin/http-types": super::http_types,
    },
});
