//! What plugin authors import: the types of `wit/hostler.wit`, a trait for each role, and helpers for
//! tensors, errors, assets, config and the log.
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
//! It knows no model, and of JSON only what a small plugin needs to read it. On a target that is not
//! WebAssembly everything compiles, so that a plugin's own logic can be tested with `cargo test`, but
//! calls to the host do not work there.

pub mod assets;
#[doc(hidden)]
pub mod bindings;
pub mod config;
mod error;
pub mod json;
pub mod log;
mod request;
mod role;
pub mod tensor;

pub use bindings::types::{
    Blob, Datatype, Error, ErrorKind, ModelMetadata, Parameter, Payload, Request, Tensor, TensorSpec,
};
pub use role::{Model, Transformer};

/// Makes a type the component's plugin, in one role or several:
/// `export!(Churn: transformer);`, `export!(Both: transformer, model);`.
#[macro_export]
macro_rules! export {
    ($plugin:ident: transformer) => {
        $crate::bindings::transformer::export_transformer!($plugin with_types_in $crate::bindings::transformer);
    };
    ($plugin:ident: model) => {
        $crate::bindings::model::export_model!($plugin with_types_in $crate::bindings::model);
    };
    ($plugin:ident: $($role:ident),+ $(,)?) => {
        $( $crate::export!($plugin: $role); )+
    };
}
