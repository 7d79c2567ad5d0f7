//! TLS of the listeners. Certificates and keys are read again when their files change; connections
//! that are open keep what they began with.

mod certificates;
mod client_names;
mod files;
mod handshake;

pub use certificates::{Certificates, watch};
pub use files::{certificates, check};
