//! Checks a request: its destination and its content. Sends nothing.

use crate::config::outbound::{Host, Origin, OutboundLimits};
use crate::error::{Error, Result};
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{HOST, HeaderName, HeaderValue, USER_AGENT};
use hyper::{HeaderMap, Method, Request, Uri};
use std::time::Duration;

/// A request as its author has written it, such as a guest.
pub struct HttpRequest {
    pub method: String,
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub timeout: Option<Duration>,
}

/// A checked request and its destination.
pub struct CheckedRequest {
    pub origin: Origin,
    pub(super) request: Request<Full<Bytes>>,
}

const URL_BYTES_MAX: usize = 8 << 10;
const HEADERS_MAX: usize = 64;
const HEADER_BYTES_MAX: usize = 16 << 10;

const METHODS: [Method; 7] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];

/// Headers that belong to the connection, which the host manages.
const FORBIDDEN: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

impl HttpRequest {
    /// Fails if the limits do not allow the request, or HTTP does not.
    pub fn check(self, limits: &OutboundLimits) -> Result<CheckedRequest> {
        let (origin, path) = parse_url(&self.url)?;
        if !limits.allow.iter().any(|allowed| allowed.allows(&origin)) {
            return Err(not_allowed(&origin, limits));
        }
        let method = METHODS.into_iter().find(|method| method.as_str() == self.method);
        let method = method.ok_or_else(|| {
            let known = METHODS.map(|method| method.to_string()).join(", ");
            Error::invalid(format!("{:?} is not a supported method; supported: {known}", shown(&self.method)))
                .field("method")
        })?;
        if self.body.len() > limits.body_bytes {
            let (bytes, kb) = (self.body.len(), limits.body_bytes >> 10);
            return Err(Error::too_large(format!(
                "a body of {bytes} bytes is too large for {origin}; max_body_kb is {kb}"
            )));
        }
        let mut headers = headers(self.headers)?;
        let host = HeaderValue::try_from(origin.authority());
        headers.insert(HOST, host.expect("invariant: a host has no other characters"));
        headers
            .entry(USER_AGENT)
            .or_insert(HeaderValue::from_static(concat!("hostler/", env!("CARGO_PKG_VERSION"))));
        let mut request = Request::new(Full::new(Bytes::from(self.body)));
        *request.method_mut() = method;
        *request.uri_mut() = path;
        *request.headers_mut() = headers;
        Ok(CheckedRequest { origin, request })
    }
}

impl CheckedRequest {
    pub fn method(&self) -> &Method {
        self.request.method()
    }

    /// The path without the query, which can contain secrets.
    pub fn path(&self) -> &str {
        self.request.uri().path()
    }

    pub fn headers_mut(&mut self) -> &mut HeaderMap {
        self.request.headers_mut()
    }
}

/// Splits a URL into its origin and its path.
pub fn parse_url(url: &str) -> Result<(Origin, Uri)> {
    let refused = |why: &str| Error::invalid(format!("the URL {:?} {why}", shown(url))).field("url");
    if url.len() > URL_BYTES_MAX {
        return Err(refused(&format!("has more than {URL_BYTES_MAX} bytes")));
    }
    let uri: Uri = url.parse().map_err(|error| refused(&format!("is invalid: {error}")))?;
    let tls = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err(refused("does not begin with https:// or http://")),
    };
    let authority = uri.authority().ok_or_else(|| refused("has no host"))?;
    if authority.as_str().contains('@') {
        return Err(refused("has a user in it, which the host does not send"));
    }
    let host = Host::parse(authority.host()).ok_or_else(|| refused("has an invalid host"))?;
    let port = match authority.port_u16() {
        Some(port) => Some(port),
        None if authority.as_str() == authority.host() => None,
        None => return Err(refused("has an invalid port")),
    };
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let path = path.parse().map_err(|error| refused(&format!("has an invalid path: {error}")))?;
    Ok((Origin::new(tls, host, port), path))
}

fn not_allowed(origin: &Origin, limits: &OutboundLimits) -> Error {
    let allowed: Vec<String> = limits.allow.iter().take(8).map(|allowed| format!("\"{allowed}\"")).collect();
    let allowed = match allowed[..] {
        [] => "none".to_owned(),
        _ => allowed.join(", "),
    };
    Error::unsupported(format!("{origin} is not one of its allow_hosts: {allowed}"))
}

fn headers(given: Vec<(String, String)>) -> Result<HeaderMap> {
    let bytes: usize = given.iter().map(|(name, value)| name.len() + value.len()).sum();
    if given.len() > HEADERS_MAX || bytes > HEADER_BYTES_MAX {
        return Err(Error::too_large(format!(
            "a request has at most {HEADERS_MAX} headers of {HEADER_BYTES_MAX} bytes together"
        ))
        .field("headers"));
    }
    let mut headers = HeaderMap::with_capacity(given.len() + 2);
    for (name, value) in given {
        let refused =
            |why: &str| Error::invalid(format!("the header {:?} {why}", shown(&name))).field("headers");
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| refused("has an invalid name"))?;
        if FORBIDDEN.contains(&key.as_str()) || key.as_str().starts_with("proxy-") {
            return Err(refused("is set by the host, because it belongs to the connection"));
        }
        let value =
            HeaderValue::from_bytes(value.as_bytes()).map_err(|_| refused("has a control character"))?;
        headers.append(key, value);
    }
    Ok(headers)
}

/// Shortens a text for a message.
fn shown(text: &str) -> String {
    text.chars().take(100).collect()
}
