//! Code generated from `wit/`: the imports once, and one module for each role that a component can
//! export.

mod imports {
    wit_bindgen::generate!({
        path: "wit",
        world: "imports",
        generate_all,
    });
}

pub use imports::hostler::plugin::{assets, metrics, state, types};
pub use imports::wasi::{config::store, logging::logging};

mod outbound {
    wit_bindgen::generate!({
        path: "wit",
        world: "hostler:plugin/outbound",
        with: { "hostler:plugin/types@0.1.0": super::types },
        generate_all,
    });
}

mod concurrent_outbound {
    wit_bindgen::generate!({
        path: ["wit", "wit/async"],
        world: "hostler:concurrent/outbound",
        with: {
            "hostler:plugin/types@0.1.0": super::types,
            "hostler:plugin/http-types@0.1.0": super::http_types,
        },
        generate_all,
    });
}

pub use concurrent_outbound::hostler::concurrent::http as concurrent_http;
pub use outbound::hostler::plugin::{http, http_types};

/// Generates the world of a role. The imports that all roles share are reused from above.
macro_rules! role {
    ($world:literal, $export:literal) => {
        wit_bindgen::generate!({
            path: ["wit", "wit/async"],
            world: $world,
            with: {
                "hostler:plugin/types@0.1.0": super::types,
                "hostler:plugin/assets@0.1.0": super::assets,
                "hostler:plugin/state@0.1.0": super::state,
                "hostler:plugin/metrics@0.1.0": super::metrics,
                "wasi:logging/logging@0.1.0-draft": super::logging,
                "wasi:config/store@0.2.0-rc.1": super::store,
            },
            generate_all,
            pub_export_macro: true,
            export_macro_name: $export,
        });
    };
}

pub mod transformer {
    role!("hostler:plugin/transformer-plugin", "export_transformer");

    pub use exports::hostler::plugin::transformer::Guest;
}

pub mod model {
    role!("hostler:plugin/model-plugin", "export_model");

    pub use exports::hostler::plugin::model::Guest;
}

pub mod optional_inputs {
    wit_bindgen::generate!({
        path: "wit",
        world: "hostler:plugin/optional-inputs-plugin",
        generate_all,
        pub_export_macro: true,
        export_macro_name: "export_optional_inputs",
    });

    pub use exports::hostler::plugin::optional_inputs::Guest;
}

pub mod executor {
    role!("hostler:plugin/executor-plugin", "export_executor");

    pub use exports::hostler::plugin::executor::Guest;
    pub use hostler::plugin::{callables, models};
}

pub mod streaming_model {
    role!("hostler:concurrent/streaming-model-plugin", "export_streaming_model");

    pub use exports::hostler::concurrent::streaming_model::{Guest, StreamingMetadata};
    pub use hostler::concurrent::{clock, models, sinks};
}
