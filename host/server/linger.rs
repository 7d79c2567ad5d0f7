//! The end of a connection whose client may still be sending.
//!
//! A client that sends its whole request before it reads must get a reply that was made before. If
//! a socket is closed while bytes of its client are unread or on their way, the client's system
//! discards the reply. So the host sends the end of its own bytes, and then reads and drops what
//! the client sends until the client closes too, within limits. Such a connection is idle: it may
//! be closed for a new one.

use super::connection::Connection;
use super::socket::Socket;
use super::stop::stopped;
use crate::task_timer;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio::sync::watch;

/// How long a client may send nothing of what is dropped.
const LINGER_IDLE: Duration = Duration::from_secs(5);

/// How long a client may send what is dropped, in total.
const LINGER_MAX: Duration = Duration::from_secs(30);

/// The same for a client that has been too slow already.
const LINGER_SLOW: Duration = Duration::from_secs(5);

/// The same while the host stops.
const LINGER_DRAINING: Duration = Duration::from_secs(1);

/// The most bytes of a client that are dropped.
const LINGER_BYTES_MAX: usize = 1 << 30;

/// The most bytes that are read at once.
const READ_BYTES: usize = 16 << 10;

/// Ends the host's side of a connection, and drops what its client still sends. `was_slow` says
/// that the connection ends because the client was slow.
pub(super) async fn linger(
    mut stream: Socket,
    was_slow: bool,
    record: &Connection,
    mut stop: watch::Receiver<bool>,
) {
    if stream.end().await.is_err() {
        return;
    }
    let stopping = async {
        stopped(&mut stop).await;
        task_timer::until(Instant::now() + LINGER_DRAINING).await;
    };
    tokio::select! {
        () = discard(&mut stream, if was_slow { LINGER_SLOW } else { LINGER_MAX }) => {}
        () = record.closed() => {}
        () = stopping => {}
    }
}

async fn discard(stream: &mut Socket, limit: Duration) {
    let deadline = Instant::now() + limit;
    let (mut buffer, mut left) = (vec![0; READ_BYTES], LINGER_BYTES_MAX);
    while left > 0 {
        let until = deadline.min(Instant::now() + LINGER_IDLE);
        match task_timer::by(until, stream.read(&mut buffer)).await {
            Some(Ok(read @ 1..)) if Instant::now() < deadline => left = left.saturating_sub(read),
            _ => return,
        }
    }
}
