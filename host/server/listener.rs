//! A listener: binds an address and accepts its connections for as long as the host serves.
//!
//! No error of `accept` ends it and none makes it spin. One descriptor is kept back: where the process has no other,
//! it serves one connection after the other to those who ask for the host's health.

use super::connections::{Capacity, ConnectionSlot, Connections, SWEEP_EVERY, Use};
use super::transfers::Transfers;
use super::{Opened, Protocol, stopped};
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::policy::settings::Limits;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

/// How long a listener waits after an error that will not pass at once.
const PAUSE: Duration = Duration::from_millis(50);

/// Errors in a row that concern one connection each, before the listener pauses all the same.
const ABORTED_MAX: u32 = 64;

/// Errors are logged this often at most.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// A listener that is bound and not yet accepting.
pub struct Listener {
    inner: TcpListener,
    address: SocketAddr,
    spare: Option<File>,
}

/// What the connections of a listener have in common.
#[derive(Clone)]
pub struct ListenerOptions {
    pub limits: Limits,
    pub capacity: Capacity,
    /// Counts what connections hold; none for operators, whose connections are few.
    pub transfers: Option<Arc<Transfers>>,
    pub metrics: Arc<Metrics>,
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
    /// Port 0 takes a free one.
    pub async fn bind(what: &str, address: SocketAddr) -> Result<Self> {
        let failed =
            |error: io::Error| Error::unavailable(format!("cannot listen for {what} on {address}: {error}"));
        let inner = TcpListener::bind(address).await.map_err(failed)?;
        let address = inner.local_addr().map_err(failed)?;
        Ok(Listener { inner, address, spare: spare() })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts until `stop` says so, then waits for the connections to finish their requests.
    pub async fn serve<P: Protocol>(
        mut self,
        protocol: Arc<P>,
        terms: ListenerOptions,
        mut stop: watch::Receiver<bool>,
    ) {
        let ListenerOptions { limits, metrics, .. } = &terms;
        let table = Connections::new(terms.capacity.clone(), terms.transfers.clone(), metrics);
        let mut tasks = JoinSet::new();
        let mut sweep = interval(SWEEP_EVERY);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut faults = AcceptErrors::default();
        loop {
            let accepted = tokio::select! {
                accepted = self.inner.accept() => accepted,
                () = stopped(&mut stop) => break,
                Some(_) = tasks.join_next() => continue,
                _ = sweep.tick() => {
                    terms.sweep(&table);
                    continue;
                }
            };
            let (stream, is_last) = match accepted {
                Ok((stream, _)) => {
                    faults.in_a_row = 0;
                    (stream, false)
                }
                Err(error) => {
                    metrics.accept_errors.inc();
                    faults.log(&error, self.address);
                    if concerns_one_connection(&error) && faults.next() {
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
                Some(place) => {
                    tasks.spawn(serve(Arc::clone(&protocol), stream, place, *limits, stop.clone()));
                }
                None => {
                    metrics.connections_refused.inc();
                    P::refuse(&stream, table.limit());
                }
            }
            if is_last {
                // Whether it is free again is known after a moment; until then nothing is accepted.
                tokio::time::sleep(PAUSE).await;
            }
            if self.spare.is_none() {
                self.spare = spare();
            }
        }
        drop(self.inner);
        if let Some(transfers) = &terms.transfers {
            transfers.drain();
        }
        loop {
            tokio::select! {
                ended = tasks.join_next() => if ended.is_none() { break },
                _ = sweep.tick() => terms.sweep(&table),
            }
        }
    }

    /// Gives up the descriptor that was kept back and accepts one connection with it.
    async fn accept_with_spare(&mut self) -> Option<TcpStream> {
        drop(self.spare.take().or_else(spare)?);
        let accepted = tokio::time::timeout(PAUSE, self.inner.accept()).await;
        let stream = accepted.ok().and_then(Result::ok).map(|(stream, _)| stream);
        if stream.is_none() {
            self.spare = spare();
        }
        stream
    }
}

async fn serve<P: Protocol>(
    protocol: Arc<P>,
    stream: TcpStream,
    place: ConnectionSlot,
    mut limits: Limits,
    stop: watch::Receiver<bool>,
) {
    /// A probe asks at once; a crowd that does not must not keep its connection.
    const PROBE_HEADER_TIMEOUT: Duration = Duration::from_secs(5);

    let refuses = match place.used_for {
        Use::Everything => None,
        Use::Probes => {
            limits.header_timeout = limits.header_timeout.min(PROBE_HEADER_TIMEOUT);
            Some(place.limit())
        }
    };
    let connection = Arc::clone(&place.connection);
    protocol.connection(Opened { stream, connection, limits, refuses }, stop).await;
}

/// A descriptor that can be given up. None where the process has none left.
fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}

/// Whether an error of `accept` is about the connection that would have come out of it, and not about the process.
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

/// Errors of `accept`: how many came in a row, and which of them are logged.
#[derive(Default)]
struct AcceptErrors {
    in_a_row: u32,
    logged: Option<Instant>,
    unlogged: u64,
}

impl AcceptErrors {
    /// Counts one that concerned one connection. False once there are so many that a pause is due.
    fn next(&mut self) -> bool {
        self.in_a_row += 1;
        !self.in_a_row.is_multiple_of(ABORTED_MAX)
    }

    fn log(&mut self, error: &io::Error, address: SocketAddr) {
        let now = Instant::now();
        if self.logged.is_some_and(|logged| now - logged < LOG_EVERY) {
            self.unlogged += 1;
            return;
        }
        self.logged = Some(now);
        let unlogged = std::mem::take(&mut self.unlogged);
        tracing::warn!(%error, %address, unlogged, "cannot accept a connection");
    }
}
