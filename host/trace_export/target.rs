//! A collector, over gRPC or HTTP.

use crate::config::outbound::{Allowed, Host, Origin, OutboundLimits};
use crate::config::{TraceProtocol, TraceSettings};
use crate::error::{Error, Kind, Result};
use crate::input_file::{self, FileKind, FileLimits, Progress};
use crate::outbound::{Client, HttpRequest, parse_url};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::Duration;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tonic::metadata::{Ascii, AsciiMetadataKey, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

/// The time for one export.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How soon a collector that has vanished is noticed while spans are sent to it.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Details of a status with which a collector asks for another attempt.
const RETRY_INFO: &[u8] = b"google.rpc.RetryInfo";

/// Characters that are kept of a collector's reason.
const MESSAGE_CHARS_MAX: usize = 300;

/// Bytes of one export, and of its answer.
const BODY_BYTES: usize = 16 << 20;

pub(super) enum Target {
    Grpc { client: TraceServiceClient<Channel>, headers: Vec<(AsciiMetadataKey, MetadataValue<Ascii>)> },
    Http { client: Client, url: String, headers: Vec<(String, String)> },
}

impl Target {
    /// Reads the files of the settings. Connects when spans are sent. Must be called in a runtime.
    ///
    /// # Errors
    /// `invalid_input` if a file cannot be used.
    pub fn new(settings: &TraceSettings) -> Result<Self> {
        let what = |error: Error| error.context("[server.traces]");
        let ca = settings.ca.as_deref().map(|path| read(path, FileKind::Tls)).transpose().map_err(what)?;
        let headers = match settings.headers.as_deref() {
            Some(path) => headers(&read(path, FileKind::Secret).map_err(what)?).map_err(what)?,
            None => Vec::new(),
        };
        match settings.protocol {
            TraceProtocol::Grpc => grpc(settings, ca, headers),
            TraceProtocol::Http => http(settings, ca.as_deref(), headers),
        }
        .map_err(what)
    }

    /// Sends spans, and returns how many of them the collector has refused, and why.
    ///
    /// # Errors
    /// `unavailable`, `overloaded` and `deadline` may pass; other errors concern these spans.
    pub async fn send(&self, request: ExportTraceServiceRequest) -> Result<Option<(u64, String)>> {
        match self {
            Target::Grpc { client, headers } => {
                let mut request = tonic::Request::new(request);
                request.set_timeout(TIMEOUT);
                for (name, value) in headers {
                    request.metadata_mut().insert(name.clone(), value.clone());
                }
                let sent = tokio::time::timeout(TIMEOUT, client.clone().export(request)).await;
                let answer = sent.map_err(|_| late())?.map_err(|status| of_status(&status))?;
                Ok(refused(answer.into_inner()))
            }
            Target::Http { client, url, headers } => {
                let checked = post(url, headers, request.encode_to_vec()).check(client.limits())?;
                let answer =
                    tokio::time::timeout(TIMEOUT, client.fetch(checked)).await.map_err(|_| late())??;
                match answer.status {
                    // What is not a message of the protocol says nothing.
                    200..=299 => Ok(ExportTraceServiceResponse::decode(&*answer.body).ok().and_then(refused)),
                    429 | 502 | 503 | 504 => {
                        Err(Error::unavailable(format!("the collector answered {}", answer.status)))
                    }
                    status => Err(Error::failed(format!("the collector answered {status}"))),
                }
            }
        }
    }
}

fn refused(answer: ExportTraceServiceResponse) -> Option<(u64, String)> {
    let partial = answer.partial_success.filter(|partial| partial.rejected_spans > 0)?;
    let why: String = partial.error_message.chars().take(MESSAGE_CHARS_MAX).collect();
    Some((partial.rejected_spans as u64, why))
}

fn post(url: &str, headers: &[(String, String)], body: Vec<u8>) -> HttpRequest {
    let mut headers = headers.to_vec();
    headers.push(("content-type".into(), "application/x-protobuf".into()));
    HttpRequest { method: "POST".into(), url: url.to_owned(), headers, body, timeout: None }
}

fn read(path: &Path, kind: FileKind) -> Result<Vec<u8>> {
    let content = input_file::read(path, FileLimits::default().of(kind), &Progress::default());
    content.map_err(|error| error.context(path.display()))
}

fn late() -> Error {
    Error::deadline(format!("no answer within {} s", TIMEOUT.as_secs()))
}

fn of_status(status: &tonic::Status) -> Error {
    use tonic::Code::{
        Aborted, Cancelled, DataLoss, DeadlineExceeded, OutOfRange, ResourceExhausted, Unavailable,
    };
    // A status with a cause was not sent by the collector: the connection has failed.
    let mut cause = std::error::Error::source(status);
    if cause.is_some() {
        let mut text = status.message().to_owned();
        while let Some(inner) = cause {
            text = inner.to_string();
            cause = inner.source();
        }
        return Error::unavailable(format!("the connection failed: {text}"));
    }
    // As the specification of OTLP has it.
    let may_pass = match status.code() {
        ResourceExhausted => status.details().windows(RETRY_INFO.len()).any(|part| part == RETRY_INFO),
        code => [Cancelled, DeadlineExceeded, Aborted, OutOfRange, Unavailable, DataLoss].contains(&code),
    };
    let kind = if may_pass { Kind::Unavailable } else { Kind::Failed };
    Error::new(kind, format!("{}: {}", status.code(), status.message()))
}

fn grpc(settings: &TraceSettings, ca: Option<Vec<u8>>, headers: Vec<(String, String)>) -> Result<Target> {
    let fault = |error: tonic::transport::Error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        Error::invalid(format!("endpoint \"{}\": {error}{cause}", settings.endpoint))
    };
    let mut endpoint = Endpoint::from_shared(settings.endpoint.clone()).map_err(fault)?;
    if settings.endpoint.starts_with("https:") {
        let tls = match ca {
            Some(ca) => {
                let has_certificate =
                    CertificateDer::pem_slice_iter(&ca).any(|certificate| certificate.is_ok());
                if !has_certificate {
                    return Err(Error::invalid("ca has no certificate in PEM"));
                }
                ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca))
            }
            None => ClientTlsConfig::new().with_native_roots(),
        };
        endpoint = endpoint.tls_config(tls).map_err(fault)?;
    }
    let channel = endpoint
        .connect_timeout(TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .connect_lazy();
    let client = TraceServiceClient::new(channel).max_encoding_message_size(BODY_BYTES);
    let headers = headers.into_iter().map(|(name, value)| {
        let bad = || Error::invalid(format!("headers_file: the header {name} cannot be sent over gRPC"));
        let key = AsciiMetadataKey::from_bytes(name.as_bytes()).map_err(|_| bad())?;
        Ok((key, value.parse().map_err(|_| bad())?))
    });
    Ok(Target::Grpc { client, headers: headers.collect::<Result<_>>()? })
}

fn http(settings: &TraceSettings, ca: Option<&[u8]>, headers: Vec<(String, String)>) -> Result<Target> {
    let (origin, _) = parse_url(&settings.endpoint)?;
    // The operator names the collector, so its name may lead to this machine.
    let here = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
    let here = here.map(|ip| Origin { host: Host::Ip(ip), ..origin.clone() });
    let limits = OutboundLimits {
        allow: here.into_iter().chain([origin]).map(Allowed::Only).collect(),
        timeout: TIMEOUT,
        body_bytes: BODY_BYTES,
        ..OutboundLimits::default()
    };
    let url = settings.endpoint.clone();
    // Checked once here, so that a bad header is known at start.
    post(&url, &headers, Vec::new()).check(&limits).map_err(|error| error.context("headers_file"))?;
    Ok(Target::Http { client: Client::new(limits, ca)?, url, headers })
}

/// Whether the host or the protocol sets this header.
fn is_own(name: &str) -> bool {
    matches!(name, "content-type" | "content-length" | "te" | "host" | "user-agent")
        || name.starts_with("grpc-")
}

/// Reads headers, one `name: value` a line. Empty lines and those that begin with # are ignored.
fn headers(content: &[u8]) -> Result<Vec<(String, String)>> {
    let text = std::str::from_utf8(content).map_err(|_| Error::invalid("headers_file is not text"))?;
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|(number, line)| match line.split_once(':') {
            Some((name, _)) if is_own(&name.trim().to_ascii_lowercase()) => Err(Error::invalid(format!(
                "headers_file: line {number} sets a header that the host sets; remove it"
            ))),
            Some((name, value)) if !name.trim().is_empty() => {
                Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
            }
            // The line is not shown: it may be a secret.
            _ => Err(Error::invalid(format!("headers_file: line {number} is not \"name: value\""))),
        })
        .collect()
}
