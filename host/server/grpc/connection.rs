//! A connection of the gRPC listener: how it begins.

use super::calls::GrpcCalls;
use crate::server::http2::connection;
use crate::server::http2::preface::{self, Beginning};
use crate::server::linger::linger;
use crate::server::protocol::{Opened, Protocol};
use crate::server::socket::Socket;
use std::sync::Arc;
use tokio::sync::watch;

impl Protocol for GrpcCalls {
    const ALPN: &'static [&'static [u8]] = &[b"h2"];

    async fn connection(self: Arc<Self>, opened: Opened, stop: watch::Receiver<bool>) {
        serve(opened, self, stop).await;
    }

    /// Does nothing. It is called only if the connections for probes are in use as well. A client
    /// treats a connection that closes like a host that is down, and tries again later.
    fn refuse(_stream: tokio::net::TcpStream, _max_connections: usize) {}
}

async fn serve(mut opened: Opened, calls: Arc<GrpcCalls>, stop: watch::Receiver<bool>) {
    match preface::read(&mut opened, &stop).await {
        Beginning::Http2(received) => connection::serve(opened, received, calls, stop).await,
        Beginning::Other => {
            let Opened { mut stream, connection, .. } = opened;
            refuse_other_protocol(&mut stream).await;
            // Boxed, because this is rare and must not add to the future of every connection.
            Box::pin(linger(stream, false, &connection, stop)).await;
        }
        Beginning::Ended => {}
    }
}

/// Tells an HTTP/1 client, such as a person's browser or curl, that this is not the port of HTTP.
async fn refuse_other_protocol(stream: &mut Socket) {
    let body = "{\"error\":\"this listener speaks gRPC; HTTP is on [server] http\"}";
    let length = body.len();
    let head = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    stream.send_last((head + body).as_bytes()).await;
}
