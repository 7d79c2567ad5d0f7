//! A listener: accepts the connections of its addresses for as long as the host serves.
//!
//! No error of `accept` ends it, and none makes it spin. One descriptor is kept in reserve: if the
//! process has no other, the listener uses it to serve one connection after the other, for health
//! checks.

use super::connections::{Capacity, ConnectionSlot, Connections, SWEEP_EVERY, Use};
use super::protocol::{Opened, Protocol};
use super::socket::Socket;
use super::stop::stopped;
use super::tls::Certificates;
use super::transfers::Transfers;
use crate::metrics::Metrics;
use crate::policy::settings::Limits;
use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

/// How long a listener waits after an error that does not pass at once.
const PAUSE: Duration = Duration::from_millis(50);

/// Consecutive errors that concern one connection each, before the listener pauses nevertheless.
const ABORTED_MAX: u32 = 64;

/// The least time between two logged errors.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// A listener that listens and is not yet accepting.
pub struct Listener {
    sockets: Vec<TcpListener>,
    /// Their addresses.
    addresses: Vec<SocketAddr>,
    /// The socket that is asked first for the next connection.
    next: usize,
    spare: Option<File>,
}

/// What the connections of a listener have in common.
#[derive(Clone)]
pub struct ListenerOptions {
    pub limits: Limits,
    pub capacity: Capacity,
    /// Counts the bytes that connections hold. `None` for the admin listener, whose connections are
    /// few.
    pub transfers: Option<Arc<Transfers>>,
    pub metrics: Arc<Metrics>,
    /// `None` for a listener without TLS.
    pub certificates: Option<Arc<Certificates>>,
}

impl ListenerOptions {
    fn sweep(&self, table: &Connections) {
        if let Some(transfers) = &self.transfers {
            transfers.sweep();
        }
        let stall_max = self.transfers.as_ref().map(|transfers| transfers.stall_max());
        table.sweep(stall_max.unwrap_or(self.limits.write_timeout));
    }
}

impl Listener {
    pub(super) fn new(sockets: Vec<TcpListener>, addresses: Vec<SocketAddr>) -> Self {
        Listener { sockets, addresses, next: 0, spare: spare() }
    }

    /// Accepts until `stop` is set, then waits for the connections to finish their requests.
    pub async fn serve<P: Protocol>(
        mut self,
        protocol: Arc<P>,
        options: ListenerOptions,
        mut stop: watch::Receiver<bool>,
    ) {
        let ListenerOptions { limits, metrics, .. } = &options;
        let table = Connections::new(options.capacity.clone(), options.transfers.clone(), metrics);
        let mut tasks = JoinSet::new();
        let mut sweep = interval(SWEEP_EVERY);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut errors = AcceptErrors::default();
        loop {
            let accepted = tokio::select! {
                accepted = self.accept() => accepted,
                () = stopped(&mut stop) => break,
                Some(_) = tasks.join_next() => continue,
                _ = sweep.tick() => {
                    options.sweep(&table);
                    continue;
                }
            };
            let (stream, is_last) = match accepted {
                Ok(stream) => {
                    errors.in_a_row = 0;
                    (stream, false)
                }
                Err(error) => {
                    metrics.connections.accept_errors.inc();
                    errors.log(&error, &self.addresses);
                    if concerns_one_connection(&error) && errors.next() {
                        continue;
                    }
                    table.close_some_idle();
                    match self.accept_with_spare().await {
                        Some(stream) => (stream, true),
                        None => {
                            tokio::time::sleep(PAUSE).await;
                            continue;
                        }
                    }
                }
            };
            match table.admit(is_last) {
                Some(slot) => {
                    let certificates = options.certificates.clone();
                    tasks.spawn(serve(
                        Arc::clone(&protocol),
                        stream,
                        slot,
                        *limits,
                        certificates,
                        stop.clone(),
                    ));
                }
                None => {
                    metrics.connections.refused.inc();
                    // A client with TLS could not read it.
                    if options.certificates.is_none() {
                        P::refuse(stream, table.limit());
                    }
                }
            }
            if is_last {
                // The spare descriptor may be free again after a moment; until then nothing is
                // accepted.
                tokio::time::sleep(PAUSE).await;
            }
            if self.spare.is_none() {
                self.spare = spare();
            }
        }
        drop(self.sockets);
        if let Some(transfers) = &options.transfers {
            transfers.drain();
        }
        loop {
            tokio::select! {
                ended = tasks.join_next() => if ended.is_none() { break },
                _ = sweep.tick() => options.sweep(&table),
            }
        }
    }

    /// Accepts a connection on any of the addresses, in turn.
    async fn accept(&mut self) -> io::Result<TcpStream> {
        poll_fn(|context| {
            let count = self.sockets.len();
            for index in (self.next..self.next + count).map(|index| index % count) {
                if let Poll::Ready(accepted) = self.sockets[index].poll_accept(context) {
                    self.next = (index + 1) % count;
                    return Poll::Ready(accepted.map(|(stream, _)| stream));
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Closes the spare descriptor and accepts one connection in its place.
    async fn accept_with_spare(&mut self) -> Option<TcpStream> {
        drop(self.spare.take().or_else(spare)?);
        let accepted = tokio::time::timeout(PAUSE, self.accept()).await;
        let stream = accepted.ok().and_then(Result::ok);
        if stream.is_none() {
            self.spare = spare();
        }
        stream
    }
}

async fn serve<P: Protocol>(
    protocol: Arc<P>,
    stream: TcpStream,
    slot: ConnectionSlot,
    mut limits: Limits,
    certificates: Option<Arc<Certificates>>,
    stop: watch::Receiver<bool>,
) {
    /// A probe sends its request at once. A client that does not must not keep its connection.
    const PROBE_HEADER_TIMEOUT: Duration = Duration::from_secs(5);

    let probes_only = match slot.used_for {
        Use::Everything => None,
        Use::Probes => {
            limits.header_timeout = limits.header_timeout.min(PROBE_HEADER_TIMEOUT);
            limits.idle_timeout = limits.idle_timeout.min(PROBE_HEADER_TIMEOUT);
            Some(slot.limit())
        }
    };
    let connection = Arc::clone(&slot.connection);
    let _ = stream.set_nodelay(true);
    if let Ok(peer) = stream.peer_addr() {
        connection.set_peer(peer);
    }
    let stream = match certificates {
        None => Socket::Plain(stream),
        // Boxed, so that connections without TLS are not as large.
        Some(tls) => match Box::pin(tls.accept(stream, &connection, limits.header_timeout, &stop)).await {
            Some(socket) => socket,
            None => return,
        },
    };
    protocol.connection(Opened { stream, connection, limits, probes_only }, stop).await;
}

/// Opens a descriptor to keep in reserve. `None` if the process has none left.
fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}

/// Whether an error of `accept` concerns the one connection that it would have returned, and not
/// the process.
fn concerns_one_connection(error: &io::Error) -> bool {
    const OF_ONE: [i32; 12] = [
        libc::ECONNABORTED,
        libc::ECONNRESET,
        libc::EINTR,
        libc::EPROTO,
        libc::EPERM,
        libc::ENETDOWN,
        libc::ENOPROTOOPT,
        libc::EHOSTDOWN,
        libc::ENONET,
        libc::EHOSTUNREACH,
        libc::EOPNOTSUPP,
        libc::ENETUNREACH,
    ];
    error.raw_os_error().is_some_and(|code| OF_ONE.contains(&code))
}

/// Errors of `accept`: how many were consecutive, and which are logged.
#[derive(Default)]
struct AcceptErrors {
    in_a_row: u32,
    logged: Option<Instant>,
    unlogged: u64,
}

impl AcceptErrors {
    /// Counts an error that concerned one connection. Returns false once there are so many that the
    /// listener must pause.
    fn next(&mut self) -> bool {
        self.in_a_row += 1;
        !self.in_a_row.is_multiple_of(ABORTED_MAX)
    }

    fn log(&mut self, error: &io::Error, addresses: &[SocketAddr]) {
        let now = Instant::now();
        if self.logged.is_some_and(|logged| now - logged < LOG_EVERY) {
            self.unlogged += 1;
            return;
        }
        self.logged = Some(now);
        let unlogged = std::mem::take(&mut self.unlogged);
        tracing::warn!(%error, ?addresses, unlogged, "cannot accept a connection");
    }
}
