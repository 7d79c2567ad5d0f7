//! The building blocks of `cargo xtask` and of the benchmark: paths, downloads and builds.
//!
//! Depends on the standard library only, because it is compiled before everything else. Does not
//! know the internals of the host.

pub mod clients;
pub mod command;
pub mod content;
pub mod debian;
pub mod deny;
pub mod dist;
pub mod error;
pub mod layout;
pub mod lint;
pub mod onnxruntime;
pub mod packages;
pub mod plugin;
pub mod sbom;
pub mod sdk;
pub mod serve;
pub mod test;
pub mod triton;
