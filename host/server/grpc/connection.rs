//! A connection of the gRPC listener: how it begins.

use super::calls::GrpcCalls;
use crate::server::http2::connection;
use crate::server::linger::linger;
use crate::server::protocol::{Opened, Protocol};
use crate::server::socket::Socket;
use crate::server::stop::stopped;
use bytes::Bytes;
use std::sync::Arc;
use tokio::io::AsyncReadExt;
use tokio::sync::watch;

/// The first bytes of every HTTP/2 client.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl Protocol for GrpcCalls {
    const ALPN: &'static [&'static [u8]] = &[b"h2"];

    async fn connection(self: Arc<Self>, opened: Opened, stop: watch::Receiver<bool>) {
        serve(opened, self, stop).await;
    }

    /// Does nothing. It is called only if the connections for probes are in use as well. A client
    /// treats a connection that closes like a host that is down, and tries again later.
    fn refuse(_stream: tokio::net::TcpStream, _max_connections: usize) {}
}

async fn serve(mut opened: Opened, calls: Arc<GrpcCalls>, mut stop: watch::Receiver<bool>) {
    let mut preface = [0; PREFACE.len()];
    let received = opened.stream.read_exact(&mut preface);
    let read = tokio::select! {
        read = tokio::time::timeout(opened.limits.header_timeout, received) => read,
        () = stopped(&mut stop) => return,
        () = opened.connection.closed() => return,
    };
    if !matches!(read, Ok(Ok(_))) {
        return;
    }
    if preface != *PREFACE {
        let Opened { mut stream, connection, .. } = opened;
        refuse_other_protocol(&mut stream).await;
        // Boxed, because this is rare and must not add to the future of every connection.
        return Box::pin(linger(stream, false, &connection, stop)).await;
    }
    connection::serve(opened, Bytes::from_static(PREFACE), calls, stop).await;
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
