//! The protocol spoken on the connections of a listener, and an accepted connection.

use super::connection::Connection;
use super::socket::Socket;
use crate::policy::settings::Limits;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::sync::watch;

/// The protocol spoken on the connections of a listener.
pub trait Protocol: Send + Sync + 'static {
    /// The names of the protocol in the TLS handshake, the preferred one first.
    const ALPN: &'static [&'static [u8]];

    /// Serves one connection to its end, or until `stop` is set and the requests in flight are
    /// answered.
    fn connection(
        self: Arc<Self>,
        opened: Opened,
        stop: watch::Receiver<bool>,
    ) -> impl Future<Output = ()> + Send;

    /// Tells the client of a connection over the limit that it is refused, if the protocol has a
    /// way to say so.
    fn refuse(stream: TcpStream, max_connections: usize);
}

/// A connection that was accepted.
pub struct Opened {
    pub(super) stream: Socket,
    pub(super) connection: Arc<Connection>,
    pub(super) limits: Limits,
    /// If set, only probes are answered on this connection, because this many connections are in
    /// use, which is the limit.
    pub(super) probes_only: Option<usize>,
}
