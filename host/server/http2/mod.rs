//! HTTP/2 connections: calls, which are requests of HTTP/2, and what they have in common for gRPC
//! and for the HTTP interfaces.

pub(in crate::server) mod call;
pub(in crate::server) mod call_body;
pub(in crate::server) mod connection;
pub(in crate::server) mod counted_body;
pub(in crate::server) mod preface;
pub(in crate::server) mod service_calls;
