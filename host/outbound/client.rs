//! Sends requests and reads responses.

use super::connect::{Connection, Connections};
use super::request::CheckedRequest;
use crate::config::outbound::OutboundLimits;
use crate::error::{Error, Result};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::{HeaderMap, Response};
use std::sync::Arc;
use std::time::Duration;

/// How much of a body is read that nobody needs, and for how long: its connection can serve another
/// request only after it.
const UNUSED_BODY_BYTES: usize = 64 << 10;
const UNUSED_BODY_TIME: Duration = Duration::from_secs(1);

/// A client for the servers that its limits name.
pub struct Client {
    limits: OutboundLimits,
    connections: Arc<Connections>,
}

/// The response of a server.
pub struct HttpReply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// A response without its body.
pub struct ReplyHead {
    pub status: u16,
    pub headers: HeaderMap,
}

impl Client {
    /// `ca` contains certificates in PEM, trusted in addition to those that this machine trusts.
    pub fn new(limits: OutboundLimits, ca: Option<&[u8]>) -> Result<Self> {
        let connections = Arc::new(Connections::new(&limits, ca)?);
        Ok(Client { limits, connections })
    }

    pub fn limits(&self) -> &OutboundLimits {
        &self.limits
    }

    /// Returns the whole response. The caller limits the time; dropping the future closes the
    /// connection.
    pub async fn fetch(&self, checked: CheckedRequest) -> Result<HttpReply> {
        let (response, connection) = self.send(&checked).await?;
        let (head, mut incoming) = response.into_parts();
        let too_large = || {
            let kb = self.limits.body_bytes >> 10;
            Error::too_large(format!("the answer exceeds max_body_kb = {kb}"))
        };
        let length = incoming.size_hint().lower();
        if length > self.limits.body_bytes as u64 {
            return Err(too_large());
        }
        let mut body = Vec::with_capacity(length as usize);
        while let Some(frame) = incoming.frame().await {
            let frame = frame.map_err(|error| broken(&error))?;
            let Some(data) = frame.data_ref() else { continue };
            if body.len() + data.len() > self.limits.body_bytes {
                return Err(too_large());
            }
            body.extend_from_slice(data);
        }
        self.connections.keep(checked.origin, connection);
        let header = |name: &str, value: &[u8]| (name.to_owned(), text(value));
        let headers = head.headers.iter().map(|(name, value)| header(name.as_str(), value.as_bytes()));
        Ok(HttpReply { status: head.status.as_u16(), headers: headers.collect(), body })
    }

    /// Returns the head of the response as soon as it is known, at most `timeout` of the limits
    /// later. The body is dropped: it may be huge, or never end.
    pub async fn fetch_head(&self, checked: CheckedRequest) -> Result<ReplyHead> {
        let time = self.limits.timeout;
        let sent = tokio::time::timeout(time, self.send(&checked)).await;
        let late = || Error::deadline(format!("no answer within {} ms", time.as_millis()));
        let (response, connection) = sent.map_err(|_| late())??;
        let (head, incoming) = response.into_parts();
        let is_read = tokio::time::timeout(UNUSED_BODY_TIME, drop_body(incoming)).await;
        if is_read == Ok(true) {
            self.connections.keep(checked.origin, connection);
        }
        Ok(ReplyHead { status: head.status.as_u16(), headers: head.headers })
    }

    async fn send(&self, checked: &CheckedRequest) -> Result<(Response<Incoming>, Connection)> {
        let CheckedRequest { origin, request } = checked;
        let mut connection = self.connections.get(origin, &self.limits).await?;
        loop {
            let mut failed = match connection.sender.try_send_request(request.clone()).await {
                Ok(response) => return Ok((response, connection)),
                Err(failed) => failed,
            };
            // A server may close a kept connection at the very moment it is used.
            let again = failed.take_message().is_some() || request.method().is_idempotent();
            if !connection.reused || !again {
                return Err(broken(&failed.into_error()));
            }
            connection = self.connections.open(origin, &self.limits).await?;
        }
    }
}

/// Returns whether the body ended within the limit.
async fn drop_body(mut body: Incoming) -> bool {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        bytes += frame.data_ref().map_or(0, bytes::Bytes::len);
        if bytes > UNUSED_BODY_BYTES {
            return false;
        }
    }
    true
}

/// Decodes a header value as UTF-8, or else as Latin-1, which HTTP specified in the past.
fn text(value: &[u8]) -> String {
    let latin = || value.iter().map(|byte| char::from(*byte)).collect();
    std::str::from_utf8(value).map_or_else(|_| latin(), str::to_owned)
}

fn broken(error: &hyper::Error) -> Error {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    Error::unavailable(format!("the connection failed: {text}"))
}
