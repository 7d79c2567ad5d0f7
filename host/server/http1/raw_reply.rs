//! Replies that are written to the socket without hyper, each the last of its connection.

use crate::server::connections::in_use;
use std::io::{Read, Write};
use tokio::net::TcpStream;

/// Bytes of a request that are read, and dropped, before its connection is closed at once.
const REQUEST_BYTES: u64 = 64 << 10;

/// Answers a connection over the limit, without waiting for its request. Best effort: it does not
/// wait for a client that does not read.
pub(super) fn refuse(stream: TcpStream, max_connections: usize) {
    // The runtime does not know yet whether a new socket takes bytes, so it is asked directly.
    let Ok(mut stream) = stream.into_std() else { return };
    let message = in_use(max_connections);
    let reply = raw_reply("503 Service Unavailable", "overloaded", &message, false);
    if stream.write_all(reply.as_bytes()).is_ok() {
        let _ = stream.shutdown(std::net::Shutdown::Write);
        // Bytes that are not read would make the system discard the reply. The socket does not
        // block.
        let _ = std::io::copy(&mut stream.take(REQUEST_BYTES), &mut std::io::sink());
    }
}

/// Returns a whole reply that closes its connection.
pub(in crate::server) fn raw_reply(status: &str, kind: &str, message: &str, is_oip: bool) -> String {
    let body = match is_oip {
        true => serde_json::json!({"error": message}),
        false => serde_json::json!({"error": {"kind": kind, "message": message}}),
    };
    let body = body.to_string();
    let length = body.len();
    let retry = if status.starts_with("503") { "retry-after: 1\r\n" } else { "" };
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{retry}content-length: {length}\r\n\
         connection: close\r\n\r\n{body}"
    )
}
