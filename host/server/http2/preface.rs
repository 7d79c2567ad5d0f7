//! The first bytes of an HTTP/2 connection.

use crate::server::protocol::Opened;
use crate::server::stop::stopped;
use bytes::Bytes;
use tokio::io::AsyncReadExt;
use tokio::sync::watch;

/// The first bytes of every HTTP/2 client.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a new connection begins with.
pub(in crate::server) enum Beginning {
    /// The preface, which is to be replayed.
    Http2(Bytes),
    Other,
    /// The client has left or is late, or the listener stops.
    Ended,
}

/// Reads the preface, within the time for a head.
pub(in crate::server) async fn read(opened: &mut Opened, stop: &watch::Receiver<bool>) -> Beginning {
    let (mut stop, mut preface) = (stop.clone(), [0; PREFACE.len()]);
    let received = opened.stream.read_exact(&mut preface);
    let read = tokio::select! {
        read = tokio::time::timeout(opened.limits.header_timeout, received) => read,
        () = stopped(&mut stop) => return Beginning::Ended,
        () = opened.connection.closed() => return Beginning::Ended,
    };
    match read {
        Ok(Ok(_)) if preface == *PREFACE => Beginning::Http2(Bytes::from_static(PREFACE)),
        Ok(Ok(_)) => Beginning::Other,
        Ok(Err(_)) | Err(_) => Beginning::Ended,
    }
}
