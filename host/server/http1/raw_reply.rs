//! Replies that are written to the socket without hyper, each the last of its connection.

use crate::server::connections::in_use;
use bytes::Bytes;
use tokio::net::TcpStream;

/// Answers a connection over the limit, without reading its request. Best effort: it does not wait
/// for a client that does not read.
pub(super) fn refuse(stream: &TcpStream, max_connections: usize) {
    let message = in_use(max_connections);
    let _ = stream.try_write(&raw_reply("503 Service Unavailable", "overloaded", &message, false));
}

/// Returns a whole reply that closes its connection.
pub(super) fn raw_reply(status: &str, kind: &str, message: &str, is_oip: bool) -> Bytes {
    let body = match is_oip {
        true => format!("{{\"error\":\"{message}\"}}"),
        false => format!("{{\"error\":{{\"kind\":\"{kind}\",\"message\":\"{message}\"}}}}"),
    };
    let length = body.len();
    let retry = if status.starts_with("503") { "retry-after: 1\r\n" } else { "" };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{retry}content-length: {length}\r\n\
         connection: close\r\n\r\n"
    );
    (head + &body).into()
}
