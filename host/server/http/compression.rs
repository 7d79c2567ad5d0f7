//! Compressed bodies: `Content-Encoding` of a request, `Accept-Encoding` for its reply.
//!
//! Limits apply to the unpacked size of a body, and unpacking ends at the limit. `deflate` is the
//! zlib format, as HTTP defines it. Large bodies are packed and unpacked on the threads of
//! `offload`, not on those that serve connections.

use super::body::{self, RESERVED_BYTES_MAX};
use super::errors::ENCODED;
use super::reply::{Reply, ReplyContent};
use super::request_body::RequestBody;
use crate::error::{Error, Result};
use crate::offload;
use crate::server::transfers::Transfers;
use crate::tenants::TenantGuard;
use bytes::Bytes;
use flate2::Compression;
use flate2::bufread::{MultiGzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use http_body_util::BodyExt;
use hyper::HeaderMap;
use hyper::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderValue, VARY};
use std::io::{Read, Write};
use std::sync::Arc;

/// How many times longer it takes to pack a byte than to parse a byte of JSON, by which `offload`
/// measures work.
const PACKING_COST: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Encoding {
    Gzip,
    Deflate,
}

impl Encoding {
    const ALL: [Encoding; 2] = [Encoding::Gzip, Encoding::Deflate];

    fn as_str(self) -> &'static str {
        match self {
            Encoding::Gzip => "gzip",
            Encoding::Deflate => "deflate",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|encoding| name.eq_ignore_ascii_case(encoding.as_str()))
    }

    /// Like `parse`, for what a client has sent: it may use the old name of gzip.
    fn of_content(name: &str) -> Option<Self> {
        Self::parse(name).or_else(|| name.eq_ignore_ascii_case("x-gzip").then_some(Encoding::Gzip))
    }
}

/// Reads a body whole and unpacks it, within the limits of size and time. `aligned_at` is that of
/// `body::read_body`, for a body that is not packed. Its bytes count for the tenant, if there is
/// one.
pub async fn read_body(
    headers: &HeaderMap,
    body: RequestBody,
    aligned_at: usize,
    transfers: &Arc<Transfers>,
    tenant: Option<&TenantGuard>,
) -> Result<Bytes> {
    if !headers.contains_key(CONTENT_ENCODING) {
        return body::read_body(body, aligned_at, transfers, tenant).await;
    }
    Box::pin(read_packed(headers, body, transfers, tenant)).await
}

async fn read_packed(
    headers: &HeaderMap,
    body: RequestBody,
    transfers: &Arc<Transfers>,
    tenant: Option<&TenantGuard>,
) -> Result<Bytes> {
    // Checked first: a body that cannot be unpacked need not be read.
    let encodings = content_encodings(headers)?;
    let mut body = body::read_body(body, 0, transfers, tenant).await?;
    let max = transfers.limits().max_body_bytes;
    // They are listed in the order in which they were applied.
    for encoding in encodings.into_iter().rev() {
        let name = encoding.as_str();
        body = match unpack(encoding, body, max).await {
            Ok(Some(unpacked)) => {
                tenant.map_or(Ok(()), |tenant| tenant.count_bytes(unpacked.len()))?;
                transfers.count(unpacked)?
            }
            Ok(None) => {
                let message = format!("the body unpacks to over {} MB; see max_body_mb", max >> 20);
                return Err(Error::too_large(message));
            }
            Err(why) => {
                let message = format!("the body is not {name}, as its Content-Encoding says: {why}");
                return Err(Error::invalid(message));
            }
        };
    }
    Ok(body)
}

/// The most encodings of one body. More do not make it smaller, and each is work.
const ENCODINGS_MAX: usize = 4;

fn content_encodings(headers: &HeaderMap) -> Result<Vec<Encoding>> {
    let refused = |message: String| Err(Error::unsupported(message).field(ENCODED));
    let mut encodings = Vec::new();
    for value in headers.get_all(CONTENT_ENCODING) {
        let names = value.to_str().unwrap_or("?").split(',').map(str::trim);
        for name in names.filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case("identity")) {
            let Some(encoding) = Encoding::of_content(name) else {
                let name: String = name.chars().take(40).collect();
                return refused(format!(
                    "Content-Encoding has \"{name}\"; gzip, deflate and identity are known here"
                ));
            };
            encodings.push(encoding);
        }
    }
    if encodings.len() > ENCODINGS_MAX {
        return refused(format!(
            "Content-Encoding has {} encodings; at most {ENCODINGS_MAX} are undone",
            encodings.len()
        ));
    }
    Ok(encodings)
}

/// Unpacks at most `max` bytes; `None` if there are more. The error is a text that says why the
/// data cannot be unpacked. Data that unpacks to much is unpacked on another thread, however short
/// it is.
pub async fn unpack(encoding: Encoding, packed: Bytes, max: usize) -> Result<Option<Bytes>, String> {
    if packed.len() <= offload::INLINE_BYTES_MAX {
        let least = max.min(offload::INLINE_BYTES_MAX);
        match unpack_here(encoding, &packed, least) {
            Ok(None) if least < max => {}
            unpacked => return unpacked,
        }
    }
    offload::run(usize::MAX, move || unpack_here(encoding, &packed, max)).await
}

fn unpack_here(encoding: Encoding, packed: &[u8], max: usize) -> Result<Option<Bytes>, String> {
    let mut rest = packed;
    // Unused capacity is not resident.
    let mut unpacked = Vec::with_capacity(max.min(RESERVED_BYTES_MAX) + 1);
    let limit = max as u64 + 1;
    let read = match encoding {
        Encoding::Gzip => MultiGzDecoder::new(&mut rest).take(limit).read_to_end(&mut unpacked),
        Encoding::Deflate => ZlibDecoder::new(&mut rest).take(limit).read_to_end(&mut unpacked),
    };
    read.map_err(|error| error.to_string())?;
    if unpacked.len() > max {
        return Ok(None);
    }
    match rest.len() {
        0 => Ok(Some(unpacked.into())),
        rest => Err(format!("{rest} bytes follow its end")),
    }
}

/// Returns the encoding that the client prefers, if it accepts a known one.
pub fn accepted(headers: &HeaderMap) -> Option<Encoding> {
    let mut best: Option<(Encoding, f32)> = None;
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    for offer in values.flat_map(|value| value.split(',')) {
        let (name, weight) = match offer.split_once(';') {
            Some((name, rest)) => {
                let weight = rest.trim().strip_prefix("q=").and_then(|weight| weight.trim().parse().ok());
                (name, weight.unwrap_or(0.0))
            }
            None => (offer, 1.0),
        };
        let Some(encoding) = Encoding::parse(name.trim()) else { continue };
        if weight > best.map_or(0.0, |(_, weight)| weight) {
            best = Some((encoding, weight));
        }
    }
    best.map(|(encoding, _)| encoding)
}

/// Packs a reply of known length. A reply that is streamed is returned unchanged.
pub async fn pack(reply: Reply, encoding: Option<Encoding>) -> Reply {
    let Some(encoding) = encoding else { return reply };
    let (mut parts, content) = reply.into_parts();
    // All parts of a reply of known length are in memory already.
    let length = hyper::body::Body::size_hint(&content).exact();
    let Some(length) = length.filter(|length| *length > 0) else { return Reply::from_parts(parts, content) };
    let whole = match content.collect().await {
        Ok(whole) => whole.to_bytes(),
        Err(never) => match never {},
    };
    let packed = offload::run(length as usize * PACKING_COST, move || {
        let sink = Vec::with_capacity(whole.len() / 2);
        match encoding {
            Encoding::Gzip => {
                let mut encoder = GzEncoder::new(sink, Compression::fast());
                encoder.write_all(&whole).and_then(|()| encoder.finish())
            }
            Encoding::Deflate => {
                let mut encoder = ZlibEncoder::new(sink, Compression::fast());
                encoder.write_all(&whole).and_then(|()| encoder.finish())
            }
        }
    });
    let packed = packed.await.expect("invariant: writing to memory");
    parts.headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding.as_str()));
    parts.headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    Reply::from_parts(parts, ReplyContent::from(Bytes::from(packed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_offer_that_is_known_counts() {
        for (offer, expected) in [
            ("gzip", Some(Encoding::Gzip)),
            ("deflate, gzip;q=0.5", Some(Encoding::Deflate)),
            ("br, GZIP", Some(Encoding::Gzip)),
            ("gzip;q=0", None),
            ("gzip; q=0.2, deflate;q=0.8", Some(Encoding::Deflate)),
            ("br, *", None),
            ("", None),
            ("gzip;q=x", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(offer));
            assert_eq!(accepted(&headers), expected, "{offer:?}");
        }
    }
}
