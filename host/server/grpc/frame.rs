//! gRPC's length-prefixed framing of messages that are received: the prefix, and the one message of
//! a unary call.
//!
//! A message that arrives in one piece is not copied.

use super::timeout::deadline_passed;
use crate::error::{Error, Result};
use crate::server::http::RESERVED_BYTES_MAX;
use crate::server::http::compression::{self, Encoding};
use crate::server::http2::call_body::CallBody;
use crate::server::http2::counted_body::UNCOUNTED_BYTES_MAX;
use crate::server::transfers::{Receiving, Transfers};
use crate::tenants::TenantGuard;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::HeaderMap;
use hyper::header::HeaderValue;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of the prefix: one that says whether the message is compressed, then four of its length,
/// big-endian.
pub(super) const PREFIX: usize = 5;

/// Reads the header `grpc-encoding`, which says how compressed messages of a call are compressed.
pub(super) fn encoding(headers: &HeaderMap) -> Result<Option<Encoding>> {
    match headers.get("grpc-encoding").map(HeaderValue::as_bytes) {
        None | Some(b"identity") => Ok(None),
        Some(b"gzip") => Ok(Some(Encoding::Gzip)),
        Some(b"deflate") => Ok(Some(Encoding::Deflate)),
        Some(other) => Err(Error::unsupported(format!(
            "messages compressed by \"{}\" are not read here; send gzip, deflate or identity",
            String::from_utf8_lossy(other)
        ))),
    }
}

/// Reads the one message of a unary call, within the limits of size, time and pace, and before the
/// deadline of the call.
pub(super) async fn read(
    body: CallBody,
    encoding: Option<Encoding>,
    transfers: &Arc<Transfers>,
    tenant: Option<&TenantGuard>,
    deadline: Option<Instant>,
) -> Result<Bytes> {
    let limits = transfers.limits();
    let read = collect(body, limits.max_body_bytes, transfers, tenant);
    let time_left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    let timeout = time_left.map_or(limits.body_timeout, |time_left| time_left.min(limits.body_timeout));
    let Ok(framed) = tokio::time::timeout(timeout, read).await else {
        return Err(if timeout < limits.body_timeout { deadline_passed() } else { late(timeout) });
    };
    let mut framed = framed?;
    let flag = framed.split_to(PREFIX)[0];
    unpacked(flag, framed, encoding, transfers).await
}

/// Returns the error for a message that did not arrive within the limit.
pub(super) fn late(limit: Duration) -> Error {
    let ms = limit.as_millis();
    Error::deadline(format!("the message did not arrive within {ms} ms")).field("body")
}

/// Unpacks a message if its flag says that it is compressed. Unpacking ends at the limit of size,
/// because a small message can unpack to a very large one.
pub(super) async fn unpacked(
    flag: u8,
    message: Bytes,
    encoding: Option<Encoding>,
    transfers: &Arc<Transfers>,
) -> Result<Bytes> {
    let max = transfers.limits().max_body_bytes;
    match (flag, encoding) {
        (0, _) => Ok(message),
        (1, Some(encoding)) => match compression::unpack(encoding, message, max).await {
            Ok(Some(message)) => transfers.count(message),
            Ok(None) => Err(too_large(max)),
            Err(why) => Err(Error::invalid(format!("the message does not unpack: {why}"))),
        },
        (1, None) => {
            Err(Error::invalid("the message says that it is compressed, and no grpc-encoding says how"))
        }
        (flag, _) => Err(Error::invalid(format!("a message begins with the byte {flag}; it is 0 or 1"))),
    }
}

/// Collects prefix and message. A single HTTP/2 frame, as small requests have, is not copied.
async fn collect(
    mut body: CallBody,
    max: usize,
    transfers: &Arc<Transfers>,
    tenant: Option<&TenantGuard>,
) -> Result<Bytes> {
    let disconnected = |_| Error::cancelled("the client disconnected before its message was complete");
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    let mut receiving = Receiving::new(transfers);
    while let Some(frame) = receiving.unless_aborted(body.frame()).await? {
        let Ok(data) = frame.map_err(disconnected)?.into_data() else { continue };
        if first.is_empty() && rest.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                // Reserved memory that is not written to yet is not resident, and a large message
                // is not copied while it grows.
                rest.reserve(declared(&first).unwrap_or(0).min(RESERVED_BYTES_MAX));
                rest.extend_from_slice(&std::mem::take(&mut first));
            }
            rest.extend_from_slice(&data);
        }
        let so_far = if rest.is_empty() { &first[..] } else { &rest[..] };
        if let Some(tenant) = tenant {
            // Refused before it is read, if it says how long it is.
            let length = declared(so_far).filter(|whole| whole - PREFIX <= max);
            tenant.count_bytes(length.unwrap_or_default().max(so_far.len()))?;
        }
        match declared(so_far) {
            Some(whole) if whole - PREFIX > max => return Err(too_large(max)),
            Some(whole) if so_far.len() > whole => {
                return Err(Error::invalid("there is more than one message, and this call takes one"));
            }
            // Only the end of the stream is missing.
            Some(whole) if so_far.len() == whole && rest.is_empty() && whole <= UNCOUNTED_BYTES_MAX => {}
            length => receiving.hold(so_far.len(), length).await?,
        }
    }
    let framed = receiving.finish(if rest.is_empty() { first } else { rest.freeze() });
    match declared(&framed) {
        Some(whole) if framed.len() == whole => Ok(framed),
        Some(whole) => Err(Error::invalid(format!(
            "the message breaks off after {} of {} bytes",
            framed.len() - PREFIX,
            whole - PREFIX
        ))),
        None => Err(Error::invalid(NO_MESSAGE)),
    }
}

/// Returns the declared length of prefix and message, once the prefix has arrived.
pub(super) fn declared(framed: &[u8]) -> Option<usize> {
    let prefix = framed.first_chunk::<PREFIX>()?;
    Some(PREFIX + u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize)
}

pub(super) const NO_MESSAGE: &str = "the call has no message";

pub(super) fn too_large(max: usize) -> Error {
    Error::too_large(format!("the message is over {} MB; see max_body_mb", max >> 20))
}
