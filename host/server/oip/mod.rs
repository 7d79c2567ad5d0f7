//! The Open Inference Protocol over HTTP, with Triton's extensions.
//!
//! `request`, `infer`, `phrases`, `control`, `config`, `statistics` and `identity` are shared with
//! gRPC.

pub(in crate::server) mod background;
mod binary;
mod classification;
pub(in crate::server) mod config;
pub(in crate::server) mod control;
mod control_http;
pub(in crate::server) mod endpoint;
pub(in crate::server) mod errors;
mod fields;
mod generate;
pub(in crate::server) mod identity;
pub(in crate::server) mod infer;
mod inference;
mod json;
mod json_object;
mod metadata;
pub(in crate::server) mod parameters;
pub(in crate::server) mod phrases;
pub(super) mod preference;
mod prepare;
pub(in crate::server) mod request;
pub(in crate::server) mod routes;
pub(in crate::server) mod statistics;
pub(in crate::server) mod unsupported;
