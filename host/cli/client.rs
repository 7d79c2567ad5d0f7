//! Sends requests to a running host, over one connection that is kept.
//!
//! Whatever listens on the address may be slow, stopped, or no Hostler: every wait and every answer
//! is bounded, and what cannot be read as an answer of a Hostler is an error that says so.

use crate::config::ListenAddress;
use crate::error::{Error, Kind, Result};
use crate::input_file::{self, FileKind, Limit, Progress};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

/// How long one address may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What an answer may take.
#[derive(Clone, Copy)]
struct AnswerLimits {
    /// How long the host may take to begin an answer, and then to send some more of it.
    time: Duration,
    bytes: usize,
}

impl Default for AnswerLimits {
    fn default() -> Self {
        // The largest results of jobs have room in an answer.
        AnswerLimits { time: Duration::from_secs(30), bytes: 1 << 30 }
    }
}

/// The longest key or token.
const KEY_BYTES_MAX: u64 = 16 << 10;

const AGENT: &str = concat!("hostler/", env!("CARGO_PKG_VERSION"));

/// The listener of a host that a command needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listener {
    Public,
    Admin,
}

impl Listener {
    pub fn as_str(self) -> &'static str {
        match self {
            Listener::Public => "public",
            Listener::Admin => "admin",
        }
    }

    /// Returns the option of a command that names its address.
    pub fn option(self) -> &'static str {
        match self {
            Listener::Public => "--http",
            Listener::Admin => "--admin",
        }
    }
}

/// Starts a runtime for requests.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Error::failed(format!("cannot start a runtime: {error}")))
}

pub(super) struct HostClient {
    address: ListenAddress,
    /// `None` for a listener without TLS.
    tls: Option<Arc<ClientConfig>>,
    /// The header `Authorization`.
    authorization: Option<HeaderValue>,
    listener: Listener,
    limits: AnswerLimits,
    connection: Option<SendRequest<Full<Bytes>>>,
}

pub(super) struct HostAnswer {
    pub status: StatusCode,
    pub content_type: String,
    pub body: Bytes,
}

/// Why a request has no answer.
enum Lost {
    /// The connection ended before the answer began.
    Unanswered {
        was_sent: bool,
        why: String,
    },
    /// The connection ended in the middle of the answer.
    Cut(String),
    Late(Duration),
    TooLarge,
}

impl HostClient {
    pub fn new(address: ListenAddress, listener: Listener, tls: Option<Arc<ClientConfig>>) -> Self {
        HostClient {
            address,
            tls,
            authorization: None,
            listener,
            limits: AnswerLimits::default(),
            connection: None,
        }
    }

    /// Sends the key or token in a file with each request.
    pub fn with_key_file(mut self, file: Option<&Path>) -> Result<Self> {
        let Some(path) = file else { return Ok(self) };
        if self.tls.is_none() && !self.address.is_loopback() {
            return Err(Error::invalid(format!(
                "the key would be sent to {} without TLS, where others can read it; name the manifest of the host with \
                 --manifest, or the authority of its certificate with --ca",
                self.address
            )));
        }
        let limit = Limit::bytes(FileKind::Secret, KEY_BYTES_MAX);
        let key = input_file::read(path, limit, &Progress::default())
            .map_err(|error| error.context(format!("cannot read {}", path.display())))?;
        let key = String::from_utf8_lossy(&key);
        let mut value = HeaderValue::from_str(&format!("Bearer {}", key.trim()))
            .map_err(|_| Error::invalid(format!("{} has no key or token in one line", path.display())))?;
        value.set_sensitive(true);
        self.authorization = Some(value);
        Ok(self)
    }

    pub fn address(&self) -> &ListenAddress {
        &self.address
    }

    /// Sends a GET, and returns the answer if its status is one of success.
    pub async fn get(&mut self, path: &str) -> Result<HostAnswer> {
        self.get_within(path, Duration::ZERO).await
    }

    /// Sends a GET that the host may answer `wait` later than others.
    pub async fn get_within(&mut self, path: &str, wait: Duration) -> Result<HostAnswer> {
        self.succeeded(Method::GET, path, wait).await
    }

    pub async fn get_json<T: DeserializeOwned>(&mut self, path: &str) -> Result<T> {
        let answer = self.get(path).await?;
        self.decode(&answer)
    }

    pub async fn post_json<T: DeserializeOwned>(&mut self, path: &str) -> Result<T> {
        let answer = self.succeeded(Method::POST, path, Duration::ZERO).await?;
        self.decode(&answer)
    }

    /// Reads an answer that only a Hostler gives.
    pub fn decode<'a, T: Deserialize<'a>>(&self, answer: &'a HostAnswer) -> Result<T> {
        serde_json::from_slice(&answer.body).map_err(|error| self.no_hostler(&error.to_string()))
    }

    async fn succeeded(&mut self, method: Method, path: &str, wait: Duration) -> Result<HostAnswer> {
        let answer = self.send(&method, path, wait).await?;
        if answer.status.is_success() { Ok(answer) } else { Err(self.refusal(&answer)) }
    }

    /// Returns the error that the host has answered with.
    fn refusal(&self, answer: &HostAnswer) -> Error {
        #[derive(Deserialize)]
        struct Body {
            error: Fields,
        }
        #[derive(Deserialize)]
        struct Fields {
            kind: String,
            message: String,
        }
        let Ok(Body { error: Fields { kind, message } }) = serde_json::from_slice(&answer.body) else {
            return self.no_hostler(&format!("it answers {}", answer.status));
        };
        let known = Kind::ALL.into_iter().find(|known| known.as_str() == kind);
        match known {
            // The other listener, or a host of an earlier version.
            Some(Kind::NotFound) if message.starts_with("no route ") => self.no_hostler(&message),
            _ if message.starts_with("this listener speaks TLS") => Error::invalid(format!(
                "{} speaks TLS; name its manifest with --manifest, or the authority of its certificate with --ca",
                self.address
            )),
            known => Error::new(known.unwrap_or(Kind::Failed), message),
        }
    }

    fn no_hostler(&self, why: &str) -> Error {
        let (address, listener, option) = (&self.address, self.listener.as_str(), self.listener.option());
        Error::unavailable(format!(
            "{address} is not the {listener} address of a Hostler of this version: {why}; set it with {option}"
        ))
    }

    async fn send(&mut self, method: &Method, path: &str, wait: Duration) -> Result<HostAnswer> {
        loop {
            let (mut sender, is_reused) = self.connected().await?;
            let mut request = Request::builder()
                .method(method)
                .uri(path)
                .header(HOST, self.address.to_string())
                .header(USER_AGENT, AGENT);
            if let Some(authorization) = &self.authorization {
                request = request.header(AUTHORIZATION, authorization);
            }
            let request = request
                .body(Full::new(Bytes::new()))
                .map_err(|error| Error::invalid(format!("cannot send {method} {path}: {error}")))?;
            let lost = match exchange(&mut sender, request, wait, self.limits).await {
                Ok(answer) => {
                    self.connection = Some(sender);
                    return Ok(answer);
                }
                Err(lost) => lost,
            };
            // The host may close an idle connection while the request is under way. A request that
            // changes something is repeated only if it was not sent.
            if let Lost::Unanswered { was_sent, .. } = &lost
                && is_reused
                && (!was_sent || *method == Method::GET)
            {
                continue;
            }
            return Err(self.unanswered(method, path, &lost));
        }
    }

    fn unanswered(&self, method: &Method, path: &str, lost: &Lost) -> Error {
        let (address, listener, option) = (&self.address, self.listener.as_str(), self.listener.option());
        match lost {
            Lost::Unanswered { why, .. } => Error::unavailable(format!(
                "no Hostler answers on {address}: {why}; name its {listener} address with {option}"
            )),
            Lost::Cut(why) => Error::unavailable(format!(
                "the connection to {address} ended in the middle of the answer to {method} {path}: {why}; the host \
                 may have ended, its log says why"
            )),
            Lost::Late(time) => Error::deadline(format!(
                "{address} has sent nothing for {:.1} s while the answer to {method} {path} was awaited; either the \
                 host is overloaded, or this is not its {listener} address, which {option} sets",
                time.as_secs_f64()
            )),
            Lost::TooLarge => Error::too_large(format!(
                "the answer of {address} to {method} {path} has over {} bytes, which is more than is read",
                self.limits.bytes
            )),
        }
    }

    /// Begins HTTP on a new connection, with TLS if the host has it.
    async fn begin(&self, stream: TcpStream) -> Result<SendRequest<Full<Bytes>>, String> {
        let Some(tls) = &self.tls else { return over(stream).await };
        let host = self.address.host();
        let name = ServerName::try_from(host.clone())
            .map_err(|error| format!("\"{host}\" is no name for TLS: {error}"))?;
        let connect = TlsConnector::from(Arc::clone(tls)).connect(name, stream);
        match timeout(CONNECT_TIMEOUT, connect).await {
            Ok(Ok(stream)) => over(stream).await,
            Ok(Err(error)) => Err(format!("TLS failed: {error}")),
            Err(_) => Err(format!("no TLS handshake within {} s", CONNECT_TIMEOUT.as_secs())),
        }
    }

    /// Returns the open connection, or a new one, and whether it has been used before.
    async fn connected(&mut self) -> Result<(SendRequest<Full<Bytes>>, bool)> {
        if let Some(mut sender) = self.connection.take()
            && sender.ready().await.is_ok()
        {
            return Ok((sender, true));
        }
        let mut failures = Vec::new();
        for address in self.address.resolve()? {
            let stream = match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    failures.push(error.to_string());
                    continue;
                }
                Err(_) => {
                    failures.push(format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()));
                    continue;
                }
            };
            let _ = stream.set_nodelay(true);
            match self.begin(stream).await {
                Ok(sender) => return Ok((sender, false)),
                Err(why) => failures.push(why),
            }
        }
        failures.dedup();
        let lost = Lost::Unanswered { was_sent: false, why: failures.join("; ") };
        Err(self.unanswered(&Method::GET, "", &lost))
    }
}

/// Begins HTTP/1.1 on a stream.
async fn over<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    // The task ends when the sender is dropped.
    tokio::spawn(connection);
    Ok(sender)
}

async fn exchange(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
    wait: Duration,
    limits: AnswerLimits,
) -> Result<HostAnswer, Lost> {
    let time = limits.time + wait;
    let answer = timeout(time, sender.send_request(request)).await.map_err(|_| Lost::Late(time))?;
    let answer = answer
        .map_err(|error| Lost::Unanswered { was_sent: !error.is_canceled(), why: explained(&error) })?;
    read(answer, limits).await
}

async fn read(answer: Response<hyper::body::Incoming>, limits: AnswerLimits) -> Result<HostAnswer, Lost> {
    let (head, mut body) = answer.into_parts();
    let mut bytes = Vec::new();
    loop {
        let frame = timeout(limits.time, body.frame()).await.map_err(|_| Lost::Late(limits.time))?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| Lost::Cut(explained(&error)))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > limits.bytes {
            return Err(Lost::TooLarge);
        }
        bytes.extend_from_slice(&data);
    }
    let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    Ok(HostAnswer {
        status: head.status,
        content_type: content_type.unwrap_or("application/octet-stream").to_owned(),
        body: bytes.into(),
    })
}

/// Returns an error with its causes, which say what has happened.
fn explained(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};
    use std::thread::JoinHandle;

    /// Serves one connection after another, each as `serve` says, and returns a client for them.
    fn client(
        connections: usize,
        serve: impl Fn(usize, TcpStream) + Send + 'static,
    ) -> (HostClient, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string().parse().unwrap();
        let server = std::thread::spawn(move || {
            (0..connections).for_each(|number| serve(number, listener.accept().unwrap().0));
        });
        (HostClient::new(address, Listener::Public, None), server)
    }

    /// Reads one head of a request. Returns its first line, empty at the end of the connection.
    fn head(stream: &TcpStream) -> String {
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        let first = lines.next().unwrap_or_default();
        lines.find(String::is_empty);
        first
    }

    fn send(mut stream: &TcpStream, text: &str) {
        stream.write_all(text.as_bytes()).unwrap();
    }

    fn refused(client: &mut HostClient, parts: &[&str]) {
        let error = runtime().unwrap().block_on(client.get("/jobs")).err().unwrap();
        for part in parts {
            assert!(error.message().contains(part), "{error}\nlacks {part}");
        }
    }

    #[test]
    fn bodies_of_each_framing_are_read() {
        for (framing, is_last) in [
            ("content-length: 2\r\n\r\n{}", false),
            ("transfer-encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n", false),
            ("connection: close\r\n\r\n{}", true),
        ] {
            let (mut client, server) = client(1, move |_, stream| {
                assert_eq!(head(&stream), "GET /jobs HTTP/1.1");
                send(&stream, &format!("HTTP/1.1 200 x\r\ncontent-type: application/json\r\n{framing}"));
                if !is_last {
                    assert_eq!(head(&stream), "", "the client keeps the connection until it is dropped");
                }
            });
            let runtime = runtime().unwrap();
            let answer = runtime.block_on(client.get("/jobs")).unwrap();
            assert_eq!((answer.body.as_ref(), &*answer.content_type), (&b"{}"[..], "application/json"));
            drop((client, runtime));
            server.join().unwrap();
        }
    }

    #[test]
    fn a_peer_that_says_nothing_or_half_or_too_much_is_an_error() {
        for (answer, ends, parts) in [
            ("", false, &["has sent nothing for 0.1 s", "the answer to GET /jobs", "--http"][..]),
            ("HTTP/1.1 200 x\r\ncontent-length: 9\r\n\r\n{", false, &["has sent nothing for 0.1 s"]),
            (
                "HTTP/1.1 200 x\r\ncontent-length: 9\r\n\r\n{",
                true,
                &["in the middle of the answer to GET /jobs"],
            ),
            ("HTTP/1.1 200 x\r\ncontent-length: 99\r\n\r\n0123456789abcdef", false, &["over 10 bytes"]),
            ("SSH-2.0-OpenSSH_9.2\r\n", true, &["no Hostler answers on", "--http"]),
            ("", true, &["no Hostler answers on"]),
            (
                "HTTP/1.1 502 x\r\ncontent-length: 2\r\n\r\nno",
                true,
                &["is not the public address of a Hostler", "502"],
            ),
        ] {
            let (mut client, server) = client(1, move |_, stream| {
                head(&stream);
                send(&stream, answer);
                // Otherwise until the client has had enough.
                if !ends {
                    head(&stream);
                }
            });
            client.limits = AnswerLimits { time: Duration::from_millis(100), bytes: 10 };
            refused(&mut client, parts);
            drop(client);
            server.join().unwrap();
        }
    }

    #[test]
    fn a_request_on_a_connection_that_the_host_has_closed_is_sent_again() {
        let (mut client, server) = client(2, |_, stream| {
            head(&stream);
            send(&stream, "HTTP/1.1 200 x\r\ncontent-length: 2\r\n\r\n[]");
        });
        runtime().unwrap().block_on(async {
            for _ in 0..2 {
                assert_eq!(client.get_json::<Vec<u8>>("/jobs").await.unwrap(), [0; 0]);
            }
        });
        server.join().unwrap();
    }

    #[test]
    fn an_error_of_the_host_keeps_its_kind_and_an_unknown_route_is_another_address() {
        for (body, kind, part) in [
            (r#"{"error":{"kind":"conflict","message":"it is healthy"}}"#, Kind::Conflict, "it is healthy"),
            (r#"{"error":{"kind":"of later","message":"new"}}"#, Kind::Failed, "new"),
            (
                r#"{"error":{"kind":"not_found","message":"no route GET /jobs"}}"#,
                Kind::Unavailable,
                "is not the public address of a Hostler of this version: no route GET /jobs; set it with --http",
            ),
        ] {
            let (mut client, server) = client(1, move |_, stream| {
                head(&stream);
                send(&stream, &format!("HTTP/1.1 400 x\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
            });
            let error = runtime().unwrap().block_on(client.get("/jobs")).err().unwrap();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.message().contains(part), "{error}");
            server.join().unwrap();
        }
    }
}
