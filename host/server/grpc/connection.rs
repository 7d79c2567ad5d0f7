//! One HTTP/2 connection: how it begins, its limits, and how it ends.

use super::call::{Call, ConnectionScope, Spawner};
use super::calls::GrpcCalls;
use super::counted_body::CountedBody;
use crate::server::connection::{Closing, Connection};
use crate::server::linger::linger;
use crate::server::protocol::{Opened, Protocol};
use crate::server::stop::stopped;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// The first bytes of every HTTP/2 client.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The most calls that one connection may have open. A client holds further calls back.
const CALLS_MAX: u32 = 1024;

/// Flow-control windows of one call and of all calls of a connection: large enough that a tensor
/// does not wait for window updates.
const CALL_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// Larger frames cost less in total, but only a whole frame shows that the client makes progress.
const FRAME_BYTES_MAX: u32 = 64 << 10;

/// A connection may be idle for as long as its client answers pings.
const PING_EVERY: Duration = Duration::from_secs(60);
const PONG_WITHIN: Duration = Duration::from_secs(20);

/// How long a connection that serves probes only is open. Its client then connects again, and may
/// find a free connection.
const PROBE_WITHIN: Duration = Duration::from_secs(5);

impl Protocol for GrpcCalls {
    async fn connection(self: Arc<Self>, opened: Opened, stop: watch::Receiver<bool>) {
        serve(opened, self, stop).await;
    }

    /// Does nothing. It is called only if the connections for probes are in use as well. A client
    /// treats a connection that closes like a host that is down, and tries again later.
    fn refuse(_stream: TcpStream, _max_connections: usize) {}
}

async fn serve(opened: Opened, calls: Arc<GrpcCalls>, mut stop: watch::Receiver<bool>) {
    let Opened { mut stream, connection: record, limits, probes_only } = opened;
    let _ = stream.set_nodelay(true);
    let mut preface = [0; PREFACE.len()];
    let read = tokio::select! {
        read = tokio::time::timeout(limits.header_timeout, stream.read_exact(&mut preface)) => read,
        () = stopped(&mut stop) => return,
        () = record.closed() => return,
    };
    if !matches!(read, Ok(Ok(_))) {
        return;
    }
    if preface != *PREFACE {
        refuse_other_protocol(&stream);
        // Boxed, because this is rare and must not add to the future of every connection.
        return Box::pin(linger(stream, false, &record, stop)).await;
    }
    let scope = Arc::new(ConnectionScope { connection: Arc::clone(&record), stop: stop.clone() });
    let spawner = Spawner::default();
    let next = spawner.clone();
    let answer = service_fn(move |request| {
        let (calls, call) = (Arc::clone(&calls), Call::begin(&scope));
        next.next_is(&call);
        async move {
            let response = calls.answer(request, &call, probes_only).await;
            Ok::<_, Infallible>(CountedBody::of(response, call))
        }
    });
    let connection = hyper::server::conn::http2::Builder::new(spawner)
        .timer(TokioTimer::new())
        .max_concurrent_streams(CALLS_MAX)
        .initial_stream_window_size(CALL_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_header_list_size(u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PONG_WITHIN)
        // No gRPC client reads a date.
        .auto_date_header(false)
        .serve_connection(
            TokioIo::new(PrefacedStream { stream, record: Arc::clone(&record), preface: PREFACE }),
            answer,
        );
    let mut connection = pin!(connection);
    let probed = async {
        match probes_only {
            Some(_) => tokio::time::sleep(PROBE_WITHIN).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = connection.as_mut() => return,
        () = stopped(&mut stop) => {}
        () = record.closed() => {}
        () = probed => {}
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        _ = connection => {}
        () = record.abandoned() => {}
    }
}

/// Tells an HTTP/1 client, such as a person's browser or curl, that this is not the port of HTTP.
/// Best effort.
fn refuse_other_protocol(stream: &TcpStream) {
    let body = "{\"error\":\"this listener speaks gRPC; HTTP is on [server] http\"}";
    let length = body.len();
    let head = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    let _ = stream.try_write((head + body).as_bytes());
}

/// A socket whose preface was read already. It is replayed to the next reader.
struct PrefacedStream {
    stream: TcpStream,
    record: Arc<Connection>,
    /// The part of the preface that was not replayed yet.
    preface: &'static [u8],
}

impl Drop for PrefacedStream {
    fn drop(&mut self) {
        if self.record.closing() == Some(Closing::Unread) {
            // The system must not keep the bytes that the client has not taken.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for PrefacedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.preface.is_empty() {
            return Pin::new(&mut self.stream).poll_read(task, buffer);
        }
        let (now, later) = self.preface.split_at(self.preface.len().min(buffer.remaining()));
        buffer.put_slice(now);
        self.preface = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for PrefacedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(task, buffer);
        self.record.write_polled(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(task, buffers);
        self.record.write_polled(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(task)
    }
}
