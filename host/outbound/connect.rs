//! Connections to servers: name lookup and address checks, TCP, TLS, HTTP/1.1. Connections that can
//! serve another call are kept for it. The host connects to the address that was checked: no name
//! is looked up twice.

use crate::config::outbound::{Host, Origin, OutboundLimits};
use crate::error::{Error, Result};
use crate::lock::LockUnpoisoned;
use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use std::collections::HashMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};

/// Less than the 5 s after which common servers close idle connections.
const IDLE_MAX: Duration = Duration::from_secs(4);

/// How long a kept connection may take to be ready again; usually it takes microseconds.
const READY_MAX: Duration = Duration::from_millis(10);

/// Connections that are kept for their next call.
const KEPT_MAX: usize = 64;

/// Concurrent name lookups.
const LOOKUPS_MAX: usize = 8;

/// Limits of a response.
const HEADERS_MAX: usize = 100;
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Maximum bytes that are buffered while reading, for head and body alike.
const BUFFER_BYTES: usize = 128 << 10;

/// A connection to a server. Dropping it closes it.
pub(super) struct Connection {
    pub sender: SendRequest<Full<Bytes>>,
    /// Whether it has served another call before.
    pub reused: bool,
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

pub(super) struct Connections {
    tls: Option<TlsConnector>,
    idle: Mutex<Idle>,
    lookups: Arc<Semaphore>,
}

#[derive(Default)]
struct Idle {
    kept: HashMap<Origin, Vec<(Connection, Instant)>>,
    /// Whether a task is running that closes idle connections.
    swept: bool,
}

impl Connections {
    /// `ca` contains certificates in PEM, trusted in addition to those that this machine trusts.
    pub fn new(limits: &OutboundLimits, ca: Option<&[u8]>) -> Result<Self> {
        let wanted = limits.allow.iter().any(|allowed| allowed.origin().tls);
        let tls = if wanted { Some(tls(ca)?) } else { None };
        Ok(Connections { tls, idle: Mutex::default(), lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)) })
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock_unpoisoned()
    }

    /// Returns a kept connection, or opens a new one.
    pub async fn get(&self, origin: &Origin, limits: &OutboundLimits) -> Result<Connection> {
        while let Some(mut connection) = self.take(origin) {
            // It may have been closed meanwhile, or still be busy with a request that was answered
            // early.
            if let Ok(Ok(())) = tokio::time::timeout(READY_MAX, connection.sender.ready()).await {
                return Ok(connection);
            }
        }
        self.open(origin, limits).await
    }

    fn take(&self, origin: &Origin) -> Option<Connection> {
        let mut idle = self.idle();
        let (connection, since) = idle.kept.get_mut(origin)?.pop()?;
        (since.elapsed() < IDLE_MAX).then_some(connection)
    }

    /// Keeps a connection whose response was read to its end.
    pub fn keep(self: &Arc<Self>, origin: Origin, mut connection: Connection) {
        if connection.sender.is_closed() {
            return;
        }
        connection.reused = true;
        let mut idle = self.idle();
        if idle.kept.values().map(Vec::len).sum::<usize>() >= KEPT_MAX {
            return;
        }
        idle.kept.entry(origin).or_default().push((connection, Instant::now()));
        if !std::mem::replace(&mut idle.swept, true) {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }

    /// Opens a new connection.
    pub async fn open(&self, origin: &Origin, limits: &OutboundLimits) -> Result<Connection> {
        let addresses = self.resolve(origin, limits).await?;
        let stream = connect(&addresses, limits.timeout).await?;
        match &self.tls {
            Some(tls) if origin.tls => {
                let name = match &origin.host {
                    Host::Ip(ip) => ServerName::IpAddress((*ip).into()),
                    Host::Name(name) => ServerName::try_from(name.clone())
                        .map_err(|_| Error::invalid("its host is not a valid TLS server name"))?,
                };
                let stream = tls.connect(name, stream).await;
                speak(stream.map_err(|error| Error::unavailable(format!("TLS: {error}")))?).await
            }
            _ => speak(stream).await,
        }
    }

    /// Returns the addresses of a server that a call may connect to.
    async fn resolve(&self, origin: &Origin, limits: &OutboundLimits) -> Result<Vec<SocketAddr>> {
        let name = match &origin.host {
            // The manifest allows this address explicitly, so it is not checked further.
            Host::Ip(ip) => return Ok(vec![SocketAddr::new(*ip, origin.port)]),
            Host::Name(name) => name,
        };
        let found = self.look_up(name.clone(), origin.port).await.map_err(|error| {
            Error::unavailable(format!("cannot resolve its name: {}", plain(&error.to_string())))
        })?;
        limits.judge(origin, found)
    }

    /// The system's lookup blocks and cannot be stopped: each one occupies a thread until it ends.
    async fn look_up(&self, name: String, port: u16) -> std::io::Result<Vec<SocketAddr>> {
        let permit = Arc::clone(&self.lookups).acquire_owned().await.map_err(std::io::Error::other)?;
        let found = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            (name, port).to_socket_addrs().map(Vec::from_iter)
        });
        found.await.map_err(std::io::Error::other)?
    }
}

/// Closes connections that were idle for too long, until none is left.
async fn sweep(connections: std::sync::Weak<Connections>) {
    loop {
        tokio::time::sleep(IDLE_MAX / 4).await;
        let Some(connections) = connections.upgrade() else { return };
        let mut idle = connections.idle();
        idle.kept.retain(|_, kept| {
            kept.retain(|(connection, since)| !connection.sender.is_closed() && since.elapsed() < IDLE_MAX);
            !kept.is_empty()
        });
        if idle.kept.is_empty() {
            idle.swept = false;
            return;
        }
    }
}

async fn speak(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Connection> {
    let (sender, driver) = http1::Builder::new()
        .max_headers(HEADERS_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(BUFFER_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| Error::unavailable(error.to_string()))?;
    // The call that waits for a response is told how the connection ended.
    let driver = tokio::spawn(async { drop(driver.await) });
    Ok(Connection { sender, reused: false, driver })
}

async fn connect(addresses: &[SocketAddr], timeout: Duration) -> Result<TcpStream> {
    let mut last = Error::unavailable("its name does not resolve to an address");
    // An address that does not respond leaves time for the next one.
    let each = timeout / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    for address in addresses {
        last = match tokio::time::timeout(each, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => {
                Error::unavailable(format!("cannot connect to {address}: {}", plain(&error.to_string())))
            }
            Err(_) => Error::deadline(format!("cannot connect to {address} within {} ms", each.as_millis())),
        };
    }
    Err(last)
}

/// Removes the number of a system error from its text.
fn plain(text: &str) -> String {
    text.split(" (os error").next().unwrap_or(text).to_lowercase()
}

fn tls(ca: Option<&[u8]>) -> Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(pem) = ca {
        let mut added = 0;
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| Error::invalid(format!("ca_file: {error}")))?;
            let rooted = roots.add(certificate);
            rooted.map_err(|error| Error::invalid(format!("ca_file: {error}")))?;
            added += 1;
        }
        if added == 0 {
            return Err(Error::invalid("ca_file has no certificate in PEM"));
        }
    }
    if roots.is_empty() {
        return Err(Error::invalid(
            "this machine has no trusted root certificates, so https is impossible; install them (Debian: \
             ca-certificates), or set ca_file",
        ));
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::failed(format!("cannot set up TLS: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}
