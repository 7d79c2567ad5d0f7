//! One HTTP/1.1 connection: hyper on a watched socket, until its end or the stop of the listener.

use super::raw_reply;
use super::reply_body::ReplyBody;
use super::watched_stream::WatchedStream;
use crate::server::connection::Connection;
use crate::server::probes;
use crate::server::protocol::{Opened, Protocol};
use crate::server::service::Service;
use crate::server::stop::stopped_without_lock;
use crate::server::wake_gate;
use crate::task_timer;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::watch;

impl<S: Service> Protocol for S {
    async fn connection(self: Arc<Self>, opened: Opened, stop: watch::Receiver<bool>) {
        wake_gate::gated(task_timer::shared(connection(opened, self, stop))).await;
    }

    fn refuse(stream: &TcpStream, max_connections: usize) {
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

/// The task timer of a connection, as hyper's timer.
struct Timer;

impl hyper::rt::Timer for Timer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(task_timer::until(deadline))
    }
}

impl hyper::rt::Sleep for task_timer::Until {}

async fn connection<S: Service>(opened: Opened, service: Arc<S>, mut stop: watch::Receiver<bool>) {
    let Opened { stream, connection: record, limits, probes_only } = opened;
    let _ = stream.set_nodelay(true);
    let stream = WatchedStream::new(stream, Arc::clone(&record), &limits);
    let served = Arc::clone(&record);
    let answer = service_fn(move |request| {
        served.head_complete();
        let (service, connection) = (Arc::clone(&service), Arc::clone(&served));
        async move {
            let reply = match probes_only {
                None => service.answer(request).await,
                Some(max) => Box::pin(probes::answer(&*service, request, max)).await,
            };
            connection.body_read();
            Ok::<_, Infallible>(ReplyBody::of(reply, connection))
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(Timer)
        .header_read_timeout(limits.header_timeout)
        .max_header_size(limits.max_header_bytes)
        .max_buf_size(limits.max_header_bytes.max(8192))
        .serve_connection(TokioIo::new(stream), answer);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopping(&mut stop, &record) => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection => ended,
                () = record.abandoned() => Ok(()),
            }
        }
    };
    if ended.is_err_and(|error| error.is_timeout()) {
        record.head_timed_out();
    }
}
