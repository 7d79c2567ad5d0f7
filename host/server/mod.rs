//! Listeners and protocols: the plain interface and the Open Inference Protocol over HTTP/1.1, gRPC
//! over HTTP/2, and the admin listener.
//!
//! Dependencies point one way: `routes` calls the handlers in `plain` and `oip`, handlers use
//! `state` and `http`, and nothing imports `routes`. Connections are bounded in number
//! (`connections`), in the size of their headers, and in the time that a client may take to send
//! them.

pub mod admin;
mod api;
mod audit;
mod background;
mod bind;
pub mod callers;
mod connection;
mod connections;
mod cross_site;
mod endpoint;
pub mod grpc;
pub mod http;
mod http1;
mod http2;
mod linger;
mod listener;
mod metrics_page;
pub mod oip;
mod openapi;
pub mod plain;
mod probes;
mod protocol;
mod routes;
mod service;
mod socket;
mod starting;
mod state;
mod static_file;
mod stop;
pub mod tls;
mod transfers;
pub mod ui;
mod wake_gate;

pub use audit::Auditor;
pub use bind::BoundAddresses;
pub use connections::{Capacity, Pool};
pub use cross_site::CrossSite;
pub use listener::{Listener, ListenerOptions};
pub use oip::background::InferenceEncoder;
pub use protocol::{Opened, Protocol};
pub use service::Service;
pub use starting::Starting;
pub use state::Public;
pub use transfers::Transfers;
