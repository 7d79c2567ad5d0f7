//! Jobs over HTTP: clients submit them under `/predict/async`, and list, read, cancel and delete
//! them under `/jobs`.

pub(in crate::server) mod endpoint;
pub(in crate::server) mod filter;
mod manage;
mod report;
pub(in crate::server) mod routes;
mod submit;
mod submit_body;
