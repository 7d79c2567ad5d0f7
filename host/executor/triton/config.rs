//! The settings of a `triton` executor, checked: the address of the remote, limits, and what an
//! encrypted connection uses.

use bytes::Bytes;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TritonConfig {
    /// The address with its scheme, such as `http://127.0.0.1:8001`.
    pub url: String,
    /// The maximum number of calls in flight.
    pub workers: usize,
    /// The number of OS threads that all calls share.
    pub threads: usize,
    /// The number of connections that calls are spread over.
    pub channels: usize,
    pub connect_timeout: Duration,
    /// The silence after which a connection with calls in flight is pinged. `None` disables pings.
    pub keepalive: Option<Duration>,
    /// The maximum size of one request or response message.
    pub message_bytes_max: usize,
}

/// The PEM files of an encrypted connection.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    /// Authorities that may sign the remote's certificate. `None` means those this machine trusts.
    pub ca: Option<Bytes>,
    /// The host's own certificate and its key.
    pub identity: Option<(Bytes, Bytes)>,
    /// The name that the remote's certificate must have. `None` means the name in `url`.
    pub domain: Option<String>,
}
