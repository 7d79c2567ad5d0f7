//! A client with TLS, for HTTP/1.1 and HTTP/2.

use super::PATIENCE;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};

/// A client that trusts one authority, with its runtime.
pub struct TlsClient {
    runtime: tokio::runtime::Runtime,
    config: ClientConfig,
}

/// A whole reply.
#[derive(Debug)]
pub struct Reply {
    pub version: Version,
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

/// An open connection, for several requests.
pub enum Connection {
    Http1(hyper::client::conn::http1::SendRequest<Full<Bytes>>),
    Http2(hyper::client::conn::http2::SendRequest<Full<Bytes>>),
}

impl TlsClient {
    /// `identity` are the files of the client's certificate and key.
    pub fn new(ca: &Path, identity: Option<(PathBuf, PathBuf)>) -> Self {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(ca).expect("a file") {
            roots.add(certificate.expect("PEM")).expect("an authority");
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = CertificateDer::pem_file_iter(certificate).expect("a file");
                let chain = chain.collect::<Result<Vec<_>, _>>().expect("PEM");
                let key = PrivateKeyDer::from_pem_file(key).expect("a key");
                builder.with_client_auth_cert(chain, key).expect("a pair")
            }
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        TlsClient { runtime: runtime.expect("a runtime"), config }
    }

    pub fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(async { tokio::time::timeout(PATIENCE, work).await.expect("an end in time") })
    }

    /// Takes the handshake. A client learns only with its first read that its certificate is
    /// refused.
    pub async fn handshake(&self, address: SocketAddr, alpn: &[&str]) -> io::Result<TlsStream<TcpStream>> {
        let mut config = self.config.clone();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("127.0.0.1").expect("a name");
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// Connects, with HTTP/2 if the server selects it.
    pub async fn connect(&self, address: SocketAddr, alpn: &[&str]) -> io::Result<Connection> {
        let stream = self.handshake(address, alpn).await?;
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        open(TokioIo::new(stream), is_http2).await
    }

    /// Sends one request on a connection of its own.
    pub fn request(
        &self,
        address: SocketAddr,
        alpn: &[&str],
        method: &str,
        path: &str,
        body: &str,
    ) -> io::Result<Reply> {
        self.run(async { self.connect(address, alpn).await?.send(method, path, &[], body).await })
    }
}

/// Begins HTTP on an open stream.
pub async fn open<S>(stream: S, is_http2: bool) -> io::Result<Connection>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    if is_http2 {
        let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
            .await
            .map_err(io::Error::other)?;
        tokio::spawn(connection);
        return Ok(Connection::Http2(sender));
    }
    let (sender, connection) =
        hyper::client::conn::http1::handshake(stream).await.map_err(io::Error::other)?;
    tokio::spawn(connection);
    Ok(Connection::Http1(sender))
}

impl Connection {
    /// Sends a request, and reads the whole reply.
    pub async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> io::Result<Reply> {
        let mut request = Request::builder().method(method);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = Full::new(Bytes::from(body.to_owned()));
        let response = match self {
            Connection::Http1(sender) => {
                let request = request.uri(path).header("host", "localhost").body(body);
                sender.ready().await.map_err(io::Error::other)?;
                sender.send_request(request.expect("a request")).await
            }
            Connection::Http2(sender) => {
                let request = request.uri(format!("https://localhost{path}")).body(body);
                sender.ready().await.map_err(io::Error::other)?;
                sender.send_request(request.expect("a request")).await
            }
        };
        read(response.map_err(io::Error::other)?).await
    }
}

async fn read(response: Response<hyper::body::Incoming>) -> io::Result<Reply> {
    let (head, body) = response.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    Ok(Reply {
        version: head.version,
        status: head.status.as_u16(),
        headers: head.headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}
