//! Listeners and connections: HTTP/1.1 in, the routes of `plain`, `oip` and `admin` out; gRPC beside it.
//!
//! Connections are bounded in number (`connections`), size of headers, and the time that a client may take to send
//! them.

pub mod admin;
mod compression;
mod connection;
mod connections;
mod cross_site;
pub mod grpc;
pub mod http;
mod io;
mod jobs;
mod listener;
pub mod oip;
pub mod plain;
mod probes;
mod request;
mod stream;
mod streaming_body;
mod transfers;
mod wake_gate;

use crate::policy::settings::Limits;
use crate::task_timer;
use connection::Connection;
pub use connections::{Capacity, Pool};
pub use cross_site::CrossSite;
use http::Reply;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
pub use listener::{Listener, ListenerOptions};
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::watch;
pub use transfers::Transfers;

/// Answers requests of one listener.
pub trait Service: Send + Sync + 'static {
    fn answer(&self, request: Request<Incoming>) -> impl Future<Output = Reply> + Send;
}

/// What is spoken on the connections of a listener.
pub trait Protocol: Send + Sync + 'static {
    /// Serves one connection to its end, or until `stop` says so and what was begun is finished.
    fn connection(
        self: Arc<Self>,
        opened: Opened,
        stop: watch::Receiver<bool>,
    ) -> impl Future<Output = ()> + Send;

    /// Tells a connection over the limit that it is one, if that can be said.
    fn refuse(stream: &TcpStream, max_connections: usize);
}

/// A connection that was accepted.
pub struct Opened {
    stream: TcpStream,
    connection: Arc<Connection>,
    limits: Limits,
    /// All but probes is refused: this many connections are in use, which is the limit.
    refuses: Option<usize>,
}

impl<S: Service> Protocol for S {
    async fn connection(self: Arc<Self>, opened: Opened, stop: watch::Receiver<bool>) {
        wake_gate::listening(task_timer::shared(connection(opened, self, stop))).await;
    }

    fn refuse(stream: &TcpStream, max_connections: usize) {
        io::refuse(stream, max_connections);
    }
}

/// Returns once the listeners shall stop.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, which is a stop as well.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// The same for who is polled often meanwhile: a look at what has changed takes no lock.
async fn stopped_at_last(stop: &mut watch::Receiver<bool>) {
    let seen = stop.clone();
    let mut stopped = pin!(stopped(stop));
    let mut is_first = true;
    poll_fn(|context| match seen.has_changed() {
        Ok(false) if !std::mem::take(&mut is_first) => Poll::Pending,
        _ => stopped.as_mut().poll(context),
    })
    .await;
}

/// Returns once a connection shall take no more requests.
async fn stopping(stop: &mut watch::Receiver<bool>, connection: &Connection) {
    tokio::select! {
        () = stopped_at_last(stop) => {}
        () = connection.closed() => {}
    }
}

/// The alarm of a connection, for hyper.
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
    let Opened { stream, connection: record, limits, refuses } = opened;
    let _ = stream.set_nodelay(true);
    let stream = io::WatchedStream::new(stream, Arc::clone(&record), &limits);
    let asked = Arc::clone(&record);
    let answer = service_fn(move |request| {
        asked.head_complete();
        let (service, connection) = (Arc::clone(&service), Arc::clone(&asked));
        async move {
            let reply = match refuses {
                None => service.answer(request).await,
                Some(max) => Box::pin(probes::answer(&*service, request, max)).await,
            };
            connection.body_read();
            Ok::<_, Infallible>(io::ReplyBody::of(reply, connection))
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
