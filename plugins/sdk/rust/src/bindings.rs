//! Generated from `wit/`: the imports once, and one module for each role that a component can export.
//! Nothing here is for authors to name; `lib.rs` re-exports what they need.

mod imports {
    wit_bindgen::generate!({
        path: "../../../wit",
        world: "imports",
        generate_all,
    });
}

pub use imports::hostler::plugin::{assets, metrics, state, types};
pub use imports::wasi::{config::store, logging::logging};

pub mod transformer {
    wit_bindgen::generate!({
        path: "../../../wit",
        world: "transformer-plugin",
        with: {
            "hostler:plugin/types@0.1.0": super::types,
            "hostler:plugin/assets@0.1.0": super::assets,
            "hostler:plugin/state@0.1.0": super::state,
            "hostler:plugin/metrics@0.1.0": super::metrics,
            "wasi:logging/logging@0.1.0-draft": super::logging,
            "wasi:config/store@0.2.0-rc.1": super::store,
        },
        pub_export_macro: true,
        export_macro_name: "export_transformer",
    });

    pub use exports::hostler::plugin::transformer::Guest;
}

pub mod model {
    wit_bindgen::generate!({
        path: "../../../wit",
        world: "model-plugin",
        with: {
            "hostler:plugin/types@0.1.0": super::types,
            "hostler:plugin/assets@0.1.0": super::assets,
            "hostler:plugin/state@0.1.0": super::state,
            "hostler:plugin/metrics@0.1.0": super::metrics,
            "wasi:logging/logging@0.1.0-draft": super::logging,
            "wasi:config/store@0.2.0-rc.1": super::store,
        },
        pub_export_macro: true,
        export_macro_name: "export_model",
    });

    pub use exports::hostler::plugin::model::Guest;
}

pub mod executor {
    wit_bindgen::generate!({
        path: "../../../wit",
        world: "executor-plugin",
        with: {
            "hostler:plugin/types@0.1.0": super::types,
            "hostler:plugin/assets@0.1.0": super::assets,
            "hostler:plugin/state@0.1.0": super::state,
            "hostler:plugin/metrics@0.1.0": super::metrics,
            "wasi:logging/logging@0.1.0-draft": super::logging,
            "wasi:config/store@0.2.0-rc.1": super::store,
        },
        pub_export_macro: true,
        export_macro_name: "export_executor",
    });

    pub use exports::hostler::plugin::executor::Guest;
    pub use hostler::plugin::{callables, models};
}

pub mod streaming_model {
    wit_bindgen::generate!({
        path: ["../../../wit", "../../../wit/async"],
        world: "hostler:concurrent/streaming-model-plugin",
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
        export_macro_name: "export_streaming_model",
    });

    pub use exports::hostler::concurrent::streaming_model::{Guest, StreamingMetadata};
    pub use hostler::concurrent::{clock, models, sinks};
}
