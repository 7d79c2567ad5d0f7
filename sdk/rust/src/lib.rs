//! The crate for plugin authors: the types of `wit/hostler.wit`, a trait for each role, and helpers
//! for tensors, errors, assets, config, calls to models, state, metrics and the log.
//!
//! ```
//! use hostler_plugin::{Datatype, Error, Model, ModelMetadata, Request, Tensor, tensor};
//!
//! struct Double;
//!
//! impl Model for Double {
//!     fn metadata() -> ModelMetadata {
//!         let x = || tensor::spec("x", Datatype::Fp32, &[-1]);
//!         ModelMetadata { inputs: vec![x()], outputs: vec![x()] }
//!     }
//!
//!     fn predict(_: &Request, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, Error> {
//!         let x: Vec<f32> = inputs[0].to_f32()?.iter().map(|x| 2.0 * x).collect();
//!         Ok(vec![tensor::fp32("x", &[x.len() as i64], &x)?])
//!     }
//! }
//!
//! hostler_plugin::export!(Double: model);
//! ```
//!
//! A plugin in the role `executor` decides how a model is called. This one passes every call on:
//!
//! ```
//! use hostler_plugin::{Callable, Error, Executor, Request, Tensor};
//!
//! struct Pass;
//!
//! impl Executor for Pass {
//!     fn submit(_: &Request, inputs: Vec<Tensor>, model: &Callable) -> Result<Vec<Tensor>, Error> {
//!         model.call(&inputs)
//!     }
//! }
//!
//! hostler_plugin::export!(Pass: executor);
//! ```
//!
//! A plugin in the role `streaming-model` may wait for any time, and many requests run concurrently
//! in one instance of it:
//!
//! ```
//! use hostler_plugin::concurrent::{Sink, StreamingMetadata, StreamingModel, sleep};
//! use hostler_plugin::{Datatype, Error, Request, Tensor, tensor};
//! use std::time::Duration;
//!
//! struct Count;
//!
//! impl StreamingModel for Count {
//!     fn metadata() -> StreamingMetadata {
//!         let outputs = vec![tensor::spec("n", Datatype::Int32, &[1])];
//!         StreamingMetadata { inputs: Vec::new(), outputs, streaming: true }
//!     }
//!
//!     async fn execute(_: Request, _: Vec<Tensor>, responses: Sink) -> Result<(), Error> {
//!         for n in 0..3 {
//!             sleep(Duration::from_millis(10)).await?;
//!             responses.send(vec![tensor::int32("n", &[1], &[n])?]).await?;
//!         }
//!         Ok(())
//!     }
//! }
//!
//! hostler_plugin::export!(Count: streaming_model);
//! ```
//!
//! Call other servers with [`http::fetch`], or with [`concurrent::fetch`] in a streaming model. The
//! manifest must allow the server.
//!
//! Unit tests need no host: on every target other than `wasm32`, the functions of this crate work
//! on a stand-in in memory. See [`testing`].
//!
//! The crate contains nothing specific to a model, and of JSON only a small reader. Times are
//! [`Duration`](std::time::Duration)s, except [`Request::time_left`], which returns milliseconds.

#![warn(missing_docs)]

pub mod assets;
#[doc(hidden)]
pub mod bindings;
pub mod budget;
pub mod callable;
pub mod concurrent;
pub mod config;
mod error;
#[cfg(target_arch = "wasm32")]
mod faults;
#[cfg(not(target_arch = "wasm32"))]
mod faults {
    /// Only a component has a log that needs the place of an error.
    pub(crate) fn at(_: &std::panic::Location<'_>, error: crate::Error) -> crate::Error {
        error
    }
}
mod float16;
pub mod http;
mod instance_cell;
pub mod json;
pub mod latency;
pub mod log;
pub mod metrics;
pub mod models;
pub mod random;
mod request;
mod role;
pub mod state;
pub mod tensor;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

pub use bindings::types::{
    Blob, Datatype, Error, ErrorKind, ModelMetadata, Parameter, Payload, Request, Tensor, TensorSpec,
};
pub use callable::{Callable, Invocation, answer, sleep, wait_any};
pub use instance_cell::InstanceCell;
pub use role::{Executor, Model, OptionalInputs, Transformer};

/// Exports a type as the component's plugin, in one role or several: `export!(Churn:
/// transformer);`, `export!(Both: transformer, model);`, `export!(Sum: model, optional_inputs);`.
///
/// | role | trait |
/// |---|---|
/// | `transformer` | [`Transformer`] |
/// | `model` | [`Model`] |
/// | `optional_inputs` | [`OptionalInputs`], beside `model` |
/// | `executor` | [`Executor`] |
/// | `streaming_model` | [`StreamingModel`](concurrent::StreamingModel), alone |
///
/// On targets other than `wasm32` it exports nothing, and only checks that the type has the traits.
#[cfg(target_arch = "wasm32")]
#[macro_export]
macro_rules! export {
    ($plugin:ident: transformer) => {
        $crate::bindings::transformer::export_transformer!($plugin with_types_in $crate::bindings::transformer);
    };
    ($plugin:ident: model) => {
        $crate::bindings::model::export_model!($plugin with_types_in $crate::bindings::model);
    };
    ($plugin:ident: optional_inputs) => {
        $crate::bindings::optional_inputs::export_optional_inputs!(
            $plugin with_types_in $crate::bindings::optional_inputs
        );
    };
    ($plugin:ident: executor) => {
        $crate::bindings::executor::export_executor!($plugin with_types_in $crate::bindings::executor);
    };
    ($plugin:ident: streaming_model) => {
        $crate::bindings::streaming_model::export_streaming_model!(
            $plugin with_types_in $crate::bindings::streaming_model
        );
    };
    ($plugin:ident: $($role:ident),+ $(,)?) => {
        $( $crate::export!($plugin: $role); )+
    };
}

/// Exports a type as the component's plugin, in one role or several: `export!(Churn:
/// transformer);`, `export!(Both: transformer, model);`, `export!(Sum: model, optional_inputs);`.
///
/// | role | trait |
/// |---|---|
/// | `transformer` | [`Transformer`] |
/// | `model` | [`Model`] |
/// | `optional_inputs` | [`OptionalInputs`], beside `model` |
/// | `executor` | [`Executor`] |
/// | `streaming_model` | [`StreamingModel`](concurrent::StreamingModel), alone |
///
/// On targets other than `wasm32` it exports nothing, and only checks that the type has the traits.
#[cfg(not(target_arch = "wasm32"))]
#[macro_export]
macro_rules! export {
    (@check $plugin:ident: $($role:tt)+) => {
        const _: fn() = || {
            fn has_role<T: $($role)+>() {}
            has_role::<$plugin>();
        };
    };
    ($plugin:ident: transformer) => {
        $crate::export!(@check $plugin: $crate::Transformer);
    };
    ($plugin:ident: model) => {
        $crate::export!(@check $plugin: $crate::Model);
    };
    ($plugin:ident: optional_inputs) => {
        $crate::export!(@check $plugin: $crate::OptionalInputs);
    };
    ($plugin:ident: executor) => {
        $crate::export!(@check $plugin: $crate::Executor);
    };
    ($plugin:ident: streaming_model) => {
        $crate::export!(@check $plugin: $crate::concurrent::StreamingModel);
    };
    ($plugin:ident: $($role:ident),+ $(,)?) => {
        $( $crate::export!($plugin: $role); )+
    };
}
