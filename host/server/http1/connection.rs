//! One HTTP/1.1 connection: hyper on a watched socket, until its end or the stop of the listener. A
//! client whose first bytes are the preface of HTTP/2 is handed over.

use super::end::{Ended, end};
use super::head;
use super::raw_reply;
use super::reply_body::ReplyBody;
use super::watched_stream::WatchedStream;
use crate::server::connection::Connection;
use crate::server::http::RequestBody;
use crate::server::http2;
use crate::server::http2::preface::{self, Beginning};
use crate::server::http2::service_calls::ServiceCalls;
use crate::server::probes;
use crate::server::protocol::{Opened, Protocol};
use crate::server::service::Service;
use crate::server::stop::stopped_without_lock;
use crate::server::wake_gate;
use crate::task_timer;
use bytes::Bytes;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1::Parts;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::watch;

impl<S: Service> Protocol for S {
    const ALPN: &'static [&'static [u8]] = &[b"h2", b"http/1.1"];

    async fn connection(self: Arc<Self>, opened: Opened, stop: watch::Receiver<bool>) {
        if opened.stream.is_http2() {
            // Boxed, so that connections of HTTP/1.1 are not as large.
            return Box::pin(agreed_http2(opened, self, stop)).await;
        }
        let served = connection(opened, Arc::clone(&self), stop.clone());
        // Not within the gate: it would hold back wake-ups that calls of HTTP/2 cause for their
        // connection.
        if let Some(HandedOver { opened, received }) = wake_gate::gated(task_timer::shared(served)).await {
            Box::pin(http2(opened, received, self, stop)).await;
        }
    }

    fn refuse(stream: TcpStream, max_connections: usize) {
        raw_reply::refuse(stream, max_connections);
    }
}

/// Returns once a connection must take no more requests.
async fn stopping(stop: &mut watch::Receiver<bool>, connection: &Connection) {
    tokio::select! {
        () = stopped_without_lock(stop) => {}
        () = connection.closed() => {}
    }
}

/// The time for the next head, as hyper's timer. hyper begins to wait for a head when it has sent
/// the answer before; the deadline that it asks for is that of an idle connection.
struct HeadTimer {
    connection: Arc<Connection>,
    header_timeout: Duration,
}

impl hyper::rt::Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(HeadDeadline {
            connection: Arc::clone(&self.connection),
            header_timeout: self.header_timeout,
            until: task_timer::until(deadline),
            has_begun: false,
        })
    }
}

/// Ready when the connection has been idle for too long, or once a head has begun, when that is
/// late. hyper polls this whenever bytes have arrived and the head is not complete.
struct HeadDeadline {
    connection: Arc<Connection>,
    header_timeout: Duration,
    until: task_timer::Until,
    has_begun: bool,
}

impl Future for HeadDeadline {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if !self.has_begun && self.connection.head_has_begun() {
            self.has_begun = true;
            self.until = task_timer::until(Instant::now() + self.header_timeout);
        }
        Pin::new(&mut self.until).poll(context)
    }
}

impl hyper::rt::Sleep for HeadDeadline {}

/// A connection whose client speaks HTTP/2, with the bytes that were read from it.
struct HandedOver {
    opened: Opened,
    received: Bytes,
}

async fn connection<S: Service>(
    opened: Opened,
    service: Arc<S>,
    mut stop: watch::Receiver<bool>,
) -> Option<HandedOver> {
    let Opened { stream, connection: record, limits, probes_only } = opened;
    let stream = WatchedStream::new(stream, Arc::clone(&record));
    let served = Arc::clone(&record);
    let answer = service_fn(move |request: Request<Incoming>| {
        served.head_complete();
        let (service, connection) = (Arc::clone(&service), Arc::clone(&served));
        async move {
            let request = request.map(|body| RequestBody::new(body, Arc::clone(&connection)));
            let reply = if let Some(refusal) = head::refusal(&request) {
                drop(request);
                refusal
            } else {
                match probes_only {
                    None => service.answer(request).await,
                    Some(max) => Box::pin(probes::answer(&*service, request, max)).await,
                }
            };
            connection.body_read();
            Ok::<_, Infallible>(ReplyBody::of(reply, connection))
        }
    });
    let mut connection = hyper::server::conn::http1::Builder::new()
        .timer(HeadTimer { connection: Arc::clone(&record), header_timeout: limits.header_timeout })
        .header_read_timeout(limits.idle_timeout)
        .max_header_size(limits.max_header_bytes)
        .max_buf_size(limits.max_header_bytes.max(8192))
        .serve_connection(TokioIo::new(stream), answer);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stopping(&mut stop, &record) => {
            Pin::new(&mut connection).graceful_shutdown();
            tokio::select! {
                ended = &mut connection => ended,
                () = record.abandoned() => Ok(()),
            }
        }
    };
    let Parts { io, read_buf, .. } = connection.into_parts();
    let socket = io.into_inner();
    if ended.as_ref().is_err_and(hyper::Error::is_parse_version_h2) && record.requests() == 0 {
        let opened = Opened { stream: socket.stream, connection: record, limits, probes_only };
        return Some(HandedOver { opened, received: read_buf });
    }
    let ended = Ended { socket, error: ended.err(), unused: read_buf };
    end(ended, &record, &limits, stop).await;
    None
}

/// Serves a client that has agreed on HTTP/2 in the TLS handshake.
async fn agreed_http2<S: Service>(mut opened: Opened, service: Arc<S>, stop: watch::Receiver<bool>) {
    if let Beginning::Http2(received) = preface::read(&mut opened, &stop).await {
        http2(opened, received, service, stop).await;
    }
}

/// Serves a client that speaks HTTP/2. `received` are its first bytes.
async fn http2<S: Service>(opened: Opened, received: Bytes, service: Arc<S>, stop: watch::Receiver<bool>) {
    http2::connection::serve(opened, received, Arc::new(ServiceCalls(service)), stop).await;
}
