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
            "hostler:plugin/metrics.counter": crate::plugin::plugin_metrics::Counter,
            "hostler:plugin/metrics.gauge": crate::plugin::plugin_metrics::Gauge,
            "hostler:plugin/metrics.histogram": crate::plugin::plugin_metrics::Histogram,
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
            "hostler:plugin/state": super::transformer::hostler::plugin::state,
            "hostler:plugin/metrics": super::transformer::hostler::plugin::metrics,
            "wasi:logging/logging": super::transformer::wasi::logging::logging,
            "wasi:config/store": super::transformer::wasi::config::store,
        },
    });
}

/// What a model may export beside its role.
pub mod optional_inputs {
    wasmtime::component::bindgen!({
        path: "wit",
        world: "hostler:plugin/optional-inputs-plugin",
        exports: { default: async },
    });
}

/// The role `executor`, and how it calls models.
pub mod executor {
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
            "hostler:plugin/callables.callable": crate::plugin::invocations::CallableHandle,
            "hostler:plugin/callables.invocation": crate::plugin::invocations::Invocation,
            "wasi:logging/logging": super::transformer::wasi::logging::logging,
            "wasi:config/store": super::transformer::wasi::config::store,
        },
    });
}

/// The role `streaming-model`, and what it waits with.
pub mod concurrent {
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
            "hostler:concurrent/sinks.sink": crate::plugin::streaming::Sink,
            "hostler:concurrent/models.callable": crate::plugin::streaming::CallableHandle,
            "hostler:concurrent/models.invocation": crate::plugin::streaming::Invocation,
            "wasi:logging/logging": super::transformer::wasi::logging::logging,
            "wasi:config/store": super::transformer::wasi::config::store,
        },
    });
}

/// HTTP for the synchronous roles.
pub mod outbound {
    wasmtime::component::bindgen!({
        path: "wit",
        world: "hostler:plugin/outbound",
        imports: { default: async | trappable },
        with: { "hostler:plugin/types": super::types },
    });
}

/// HTTP for the role `streaming-model`.
pub mod concurrent_outbound {
    wasmtime::component::bindgen!({
        path: ["wit", "wit/async"],
        world: "hostler:concurrent/outbound",
        imports: { default: trappable },
        with: {
            "hostler:plugin/types": super::types,
            "hostler:plugin/http-types": super::http_types,
        },
    });
}

pub use self::{
    concurrent_outbound::hostler::concurrent::http as concurrent_http,
    outbound::hostler::plugin::{http, http_types},
};
pub use concurrent::hostler::concurrent::{clock, models as concurrent_models, sinks};
pub use executor::hostler::plugin::{callables, models};
pub use transformer::hostler::plugin::{assets, metrics, state, types};
pub use transformer::wasi::{config::store, logging::logging};
