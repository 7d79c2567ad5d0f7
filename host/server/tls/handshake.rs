//! The handshake of a new connection.

use super::certificates::Certificates;
use super::client_names::client_names;
use crate::server::connection::Connection;
use crate::server::http1::raw_reply::raw_reply;
use crate::server::linger::linger;
use crate::server::socket::Socket;
use crate::server::stop::stopped;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// The most time that a handshake may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The first byte of a TLS connection: the type of a record with a handshake.
const HANDSHAKE: u8 = 22;

/// How a handshake ended.
enum Handshake {
    Completed(Socket),
    Failed(std::io::Error),
    /// The client has sent something else.
    Plain(TcpStream),
    /// The client has left without a byte, as port checks do.
    Left,
}

impl Certificates {
    /// Takes the handshake of a new connection. `None` if the connection has ended.
    pub(in crate::server) async fn accept(
        &self,
        stream: TcpStream,
        record: &Connection,
        header_timeout: Duration,
        stop: &watch::Receiver<bool>,
    ) -> Option<Socket> {
        let mut stopping = stop.clone();
        let handshake = tokio::time::timeout(header_timeout.min(TIMEOUT), self.handshake(stream));
        let handshake = tokio::select! {
            handshake = handshake => handshake,
            () = stopped(&mut stopping) => return None,
            () = record.closed() => return None,
        };
        let count = |outcome: &str| {
            let handshakes = &self.metrics().tls.handshakes;
            handshakes.with_label_values(&[self.listener(), outcome]).inc();
        };
        match handshake {
            Ok(Handshake::Completed(socket)) => {
                count("completed");
                if let Some(certificate) = socket.peer_certificate() {
                    record.set_certificate(client_names(certificate));
                }
                return Some(socket);
            }
            Ok(Handshake::Failed(error)) => {
                count("failed");
                tracing::debug!(listener = self.listener(), %error, "TLS handshake failed");
            }
            Ok(Handshake::Plain(stream)) => {
                count("plain");
                refuse_plain(stream, record, stop).await;
            }
            Ok(Handshake::Left) => {}
            Err(_) => count("late"),
        }
        None
    }

    async fn handshake(&self, stream: TcpStream) -> Handshake {
        let mut first = [0; 1];
        match stream.peek(&mut first).await {
            Ok(0) | Err(_) => return Handshake::Left,
            Ok(_) if first[0] != HANDSHAKE => return Handshake::Plain(stream),
            Ok(_) => {}
        }
        match TlsAcceptor::from(self.current()).accept(stream).await {
            Ok(stream) => Handshake::Completed(Socket::Tls(Box::new(stream))),
            Err(error) => Handshake::Failed(error),
        }
    }
}

/// Tells a client without TLS what to do, if it speaks HTTP/1.1.
async fn refuse_plain(stream: TcpStream, record: &Connection, stop: &watch::Receiver<bool>) {
    let message = "this listener speaks TLS; use https://";
    let reply = raw_reply("400 Bad Request", "invalid_input", message, false);
    let mut socket = Socket::Plain(stream);
    socket.send_last(reply.as_bytes()).await;
    linger(socket, false, record, stop.clone()).await;
}
