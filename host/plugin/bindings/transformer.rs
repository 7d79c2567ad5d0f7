//! Bindings of the role `transformer`, and of the interfaces that all plugins import.

wasmtime::component::bindgen!({
    path: "wit",
    world: "hostler:plugin/transformer-plugin",
    imports: { default: trappable },
    exports: { default: async },
    with: {
        "hostler:plugin/types.tensor": crate::predict::Tensor,
        "hostler:plugin/types.request": crate::plugin::resources::Request,
        "hostler:plugin/metrics.counter": crate::plugin::resources::Counter,
        "hostler:plugin/metrics.gauge": crate::plugin::resources::Gauge,
        "hostler:plugin/metrics.histogram": crate::plugin::resources::Histogram,
    },
});
