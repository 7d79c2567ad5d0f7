//! One HTTP/2 connection: its limits, and how it ends.

use super::call::{Call, ConnectionScope, Spawner};
use super::call_body::CallBody;
use super::counted_body::{Content, CountedBody};
use crate::server::connection::{Closing, Connection};
use crate::server::protocol::Opened;
use crate::server::socket::Socket;
use crate::server::stop::stopped;
use bytes::Bytes;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

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

/// How often a connection that takes no more calls is looked at, and how often in a row it must be
/// idle to be closed.
const FINISHED_EVERY: Duration = Duration::from_millis(250);
const FINISHED_CHECKS: u32 = 6;

/// How long a connection that serves probes only is open. Its client then connects again, and may
/// find a free connection.
const PROBE_WITHIN: Duration = Duration::from_secs(5);

/// What answers the calls of a connection.
pub(in crate::server) trait Calls: Send + Sync + 'static {
    type Content: Content<Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send;

    /// Whether replies have the header `date`.
    const DATED: bool;

    /// Answers one call. If `probes_only` is set, that many connections are in use, and only probes
    /// are answered.
    fn answer(
        &self,
        request: Request<CallBody>,
        call: &Arc<Call>,
        probes_only: Option<usize>,
    ) -> impl Future<Output = Response<Self::Content>> + Send;
}

/// Serves a connection to its end. `received` are bytes that were read from it already, which begin
/// with the preface of HTTP/2.
pub(in crate::server) async fn serve<C: Calls>(
    opened: Opened,
    received: Bytes,
    calls: Arc<C>,
    mut stop: watch::Receiver<bool>,
) {
    let Opened { stream, connection: record, limits, probes_only } = opened;
    let scope = Arc::new(ConnectionScope { connection: Arc::clone(&record), stop: stop.clone() });
    let spawner = Spawner::default();
    let next = spawner.clone();
    let answer = service_fn(move |request: Request<hyper::body::Incoming>| {
        let (calls, call) = (Arc::clone(&calls), Call::begin(&scope));
        next.next_is(&call);
        async move {
            let request = request.map(|body| CallBody::new(body, &call));
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
        .auto_date_header(C::DATED)
        .serve_connection(
            TokioIo::new(ReceivedStream { stream, record: Arc::clone(&record), received }),
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
        () = finished(&record) => {}
    }
}

/// Returns once a connection that takes no more calls has had none for a while. Its client should
/// have closed it by then; one that has vanished never does.
async fn finished(record: &Connection) {
    let mut idle = 0;
    while idle < FINISHED_CHECKS {
        tokio::time::sleep(FINISHED_EVERY).await;
        let is_idle = record.waits_for_request() && record.write_blocked().is_none();
        idle = if is_idle { idle + 1 } else { 0 };
    }
}

/// A socket of which some bytes were read already. They are replayed to the next reader.
struct ReceivedStream {
    stream: Socket,
    record: Arc<Connection>,
    received: Bytes,
}

impl Drop for ReceivedStream {
    fn drop(&mut self) {
        if self.record.closing() == Some(Closing::Unread) {
            self.stream.discard_unsent();
        }
    }
}

impl AsyncRead for ReceivedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.received.is_empty() {
            return Pin::new(&mut self.stream).poll_read(task, buffer);
        }
        let length = self.received.len().min(buffer.remaining());
        buffer.put_slice(&self.received.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ReceivedStream {
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
        let flushed = Pin::new(&mut self.stream).poll_flush(task);
        self.record.write_polled(&flushed);
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = Pin::new(&mut self.stream).poll_shutdown(task);
        self.record.write_polled(&ended);
        ended
    }
}
