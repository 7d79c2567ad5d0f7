//! Listeners and connections: HTTP/1.1 in, the routes of `plain`, `oip` and `admin` out; gRPC beside it.
//!
//! A failed `accept()` never ends a listener. Connections are bounded in number, size of headers, and the
//! time that a client may take to send them.

pub mod admin;
mod compression;
pub mod grpc;
pub mod http;
mod io;
mod jobs;
pub mod oip;
mod parts;
pub mod plain;
mod request;
mod stream;
mod waker;

use crate::alarm;
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::policy::settings::Limits;
use http::Reply;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Answers requests of one listener.
pub trait Service: Send + Sync + 'static {
    fn answer(&self, request: Request<Incoming>) -> impl Future<Output = Reply> + Send;
}

/// What is spoken on the connections of a listener.
pub trait Protocol: Send + Sync + 'static {
    /// Serves one connection to its end, or until `stop` says so and what was begun is finished.
    fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        limits: Limits,
        stop: watch::Receiver<bool>,
    ) -> impl Future<Output = ()> + Send;

    /// Tells a connection over the limit that it is one, if that can be said.
    fn refuse(stream: &TcpStream, max_connections: usize);
}

impl<S: Service> Protocol for S {
    async fn connection(self: Arc<Self>, stream: TcpStream, limits: Limits, stop: watch::Receiver<bool>) {
        waker::listening(alarm::shared(connection(stream, self, limits, stop))).await;
    }

    fn refuse(stream: &TcpStream, max_connections: usize) {
        io::refuse(stream, max_connections);
    }
}

/// A listener that is bound and not yet accepting.
pub struct Listener {
    inner: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Port 0 takes a free one.
    pub async fn bind(what: &str, address: SocketAddr) -> Result<Self> {
        let failed = |error: std::io::Error| {
            Error::unavailable(format!("cannot listen for {what} on {address}: {error}"))
        };
        let inner = TcpListener::bind(address).await.map_err(failed)?;
        let address = inner.local_addr().map_err(failed)?;
        Ok(Listener { inner, address })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts until `stop` says so, then waits for the connections to finish their requests.
    pub async fn serve<P: Protocol>(
        self,
        protocol: Arc<P>,
        limits: Limits,
        metrics: Arc<Metrics>,
        mut stop: watch::Receiver<bool>,
    ) {
        let open = Arc::new(Open { count: AtomicUsize::new(0), gauge: metrics.connections.clone() });
        let mut tasks = tokio::task::JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.inner.accept() => accepted,
                () = stopped(&mut stop) => break,
                Some(_) = tasks.join_next() => continue,
            };
            match accepted {
                Ok((stream, _)) if open.count.load(Ordering::Relaxed) >= limits.max_connections => {
                    P::refuse(&stream, limits.max_connections);
                }
                Ok((stream, _)) => {
                    let (protocol, stop) = (Arc::clone(&protocol), stop.clone());
                    let counted = Counted::new(&open);
                    tasks.spawn(async move {
                        let _counted = counted;
                        protocol.connection(stream, limits, stop).await;
                    });
                }
                Err(error) => {
                    // Out of file descriptors, or a client that left while queued: neither may end this
                    // loop, and the first must not turn it into a busy one.
                    tracing::warn!(%error, address = %self.address, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        drop(self.inner);
        while tasks.join_next().await.is_some() {}
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

/// The alarm of a connection, for hyper.
struct Timer;

impl hyper::rt::Timer for Timer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(alarm::until(deadline))
    }
}

impl hyper::rt::Sleep for alarm::Until {}

struct Open {
    count: AtomicUsize,
    gauge: prometheus::IntGauge,
}

struct Counted(Arc<Open>);

impl Counted {
    fn new(open: &Arc<Open>) -> Self {
        open.count.fetch_add(1, Ordering::Relaxed);
        open.gauge.inc();
        Counted(Arc::clone(open))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
        self.0.gauge.dec();
    }
}

async fn connection<S: Service>(
    stream: TcpStream,
    service: Arc<S>,
    limits: Limits,
    mut stop: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    let (stream, head) = io::Watched::new(stream, &limits);
    let in_head = Arc::clone(&head);
    let answer = service_fn(move |request| {
        in_head.complete();
        let (service, head) = (Arc::clone(&service), Arc::clone(&in_head));
        async move {
            let reply = service.answer(request).await;
            head.body_read();
            Ok::<_, Infallible>(reply.map(|content| io::Answer { content, head }))
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
        () = stopped_at_last(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if ended.is_err_and(|error| error.is_timeout()) {
        head.timed_out();
    }
}
