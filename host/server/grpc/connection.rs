//! One HTTP/2 connection: its beginning, its bounds, its end.

use super::GrpcCalls;
use super::call::{Call, Spawner};
use super::counted_body::CountedBody;
use crate::server::connection::{Closing, Connection};
use crate::server::{Opened, stopped};
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

/// What every HTTP/2 client says first.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Calls that one connection may have open; a client keeps further ones to itself.
const CALLS_MAX: u32 = 1024;

/// Bytes under way to this host: enough that a tensor does not wait for permission, on one call and on all of
/// a connection.
const CALL_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// Larger frames mean fewer of them, but only a whole one shows that its client makes progress.
const FRAME_BYTES_MAX: u32 = 64 << 10;

/// A connection may idle for as long as somebody answers at its other end.
const PING_EVERY: Duration = Duration::from_secs(60);
const PONG_WITHIN: Duration = Duration::from_secs(20);

/// How long a connection is open that serves probes only; its client connects anew then and may find room.
const PROBE_WITHIN: Duration = Duration::from_secs(5);

pub(super) async fn serve(opened: Opened, calls: Arc<GrpcCalls>, mut stop: watch::Receiver<bool>) {
    let Opened { mut stream, connection: record, limits, refuses } = opened;
    let _ = stream.set_nodelay(true);
    let mut preface = [0; PREFACE.len()];
    let greeted = tokio::select! {
        greeted = tokio::time::timeout(limits.header_timeout, stream.read_exact(&mut preface)) => greeted,
        () = stopped(&mut stop) => return,
        _ = record.closed() => return,
    };
    if !matches!(greeted, Ok(Ok(_))) {
        return;
    }
    if preface != *PREFACE {
        return say_what_is_spoken(&stream);
    }
    let (connection, spawner) = (Arc::clone(&record), Spawner::default());
    let next = spawner.clone();
    let answer = service_fn(move |request| {
        let (calls, call) = (Arc::clone(&calls), Call::begin(&connection));
        next.next_is(&call);
        async move {
            let response = match refuses {
                None => calls.answer(request, &call).await,
                Some(max) => Box::pin(calls.answer_probe(request, &call, max)).await,
            };
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
            TokioIo::new(Greeted { stream, record: Arc::clone(&record), preface_left: PREFACE }),
            answer,
        );
    let mut connection = pin!(connection);
    let probed = async {
        match refuses {
            Some(_) => tokio::time::sleep(PROBE_WITHIN).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = connection.as_mut() => return,
        () = stopped(&mut stop) => {}
        _ = record.closed() => {}
        () = probed => {}
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        _ = connection => {}
        () = record.abandoned() => {}
    }
}

/// Best effort, for a person whose browser or curl took this port for another.
fn say_what_is_spoken(stream: &TcpStream) {
    let body = "{\"error\":\"this listener speaks gRPC; HTTP is on [server] http\"}";
    let length = body.len();
    let head = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    let _ = stream.try_write((head + body).as_bytes());
}

/// A socket whose preface was read, and is replayed to the next reader.
struct Greeted {
    stream: TcpStream,
    record: Arc<Connection>,
    preface_left: &'static [u8],
}

impl Drop for Greeted {
    fn drop(&mut self) {
        if self.record.closing() == Some(Closing::Unread) {
            // What its client has not taken is not kept by the system either.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Greeted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.preface_left.is_empty() {
            return Pin::new(&mut self.stream).poll_read(task, buffer);
        }
        let (now, later) = self.preface_left.split_at(self.preface_left.len().min(buffer.remaining()));
        buffer.put_slice(now);
        self.preface_left = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Greeted {
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
