//! Bindings of `optional-inputs`, which a model may export in addition to its role.

wasmtime::component::bindgen!({
    path: "wit",
    world: "hostler:plugin/optional-inputs-plugin",
    exports: { default: async },
});
