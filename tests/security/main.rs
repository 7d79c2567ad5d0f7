//! What a host needs to be reached by others: TLS, HTTP/2, and who may do what.

#[path = "../support/mod.rs"]
mod support;

mod access;
mod audit;
mod browser;
mod example;
mod http2;
mod page;
mod tenants;
mod tls;
mod tls_files;
mod tokens;
