//! One message in, one message out: gRPC's length-prefixed framing for unary calls.
//!
//! A message that arrived in one piece is decoded where it lies, and large contents leave as they are. Calls
//! that stream are framed by tonic and not here. Answers are never compressed.

use crate::error::{Error, Result};
use crate::server::compression::{self, Encoding};
use crate::server::http::RESERVED_BYTES_MAX;
use crate::server::transfers::{Receiving, Transfers};
use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::HeaderMap;
use hyper::body::{Frame, Incoming};
use hyper::header::HeaderValue;
use prost::Message;
use prost::encoding::{self, WireType};
use smallvec::SmallVec;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// A byte that says whether the message is compressed, then four of its length, big-endian.
const PREFIX: usize = 5;

/// Messages up to this size are not counted: a connection has up to 1,024 calls.
pub(super) const UNCOUNTED_BYTES_MAX: usize = 4 << 10;

/// Contents from this size on are sent as they are; copying smaller ones is cheaper than a frame of their own.
const APART_BYTES_MIN: usize = 16 << 10;

/// How a call's messages may be compressed: what the header `grpc-encoding` says.
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

/// Reads the one message of a unary call, within the limits of size, time and pace.
pub(super) async fn read(
    body: Incoming,
    encoding: Option<Encoding>,
    transfers: &Arc<Transfers>,
) -> Result<Bytes> {
    let limits = transfers.limits();
    let read = collect(body, limits.max_body_bytes, transfers);
    let Ok(framed) = tokio::time::timeout(limits.body_timeout, read).await else {
        return Err(late(limits.body_timeout));
    };
    let mut framed = framed?;
    let flag = framed.split_to(PREFIX)[0];
    unpacked(flag, framed, encoding, transfers).await
}

fn late(limit: Duration) -> Error {
    let ms = limit.as_millis();
    Error::deadline(format!("the message did not arrive within {ms} ms")).field("body")
}

/// A message as its flag says that it is; a small one can unpack to a very large one, so that ends at the limit.
async fn unpacked(
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

/// Prefix and message, whole. One frame, as small requests have, is not copied.
async fn collect(mut body: Incoming, max: usize, transfers: &Arc<Transfers>) -> Result<Bytes> {
    let left = |_| Error::cancelled("the client left before its message was whole");
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    let mut receiving = Receiving::new(transfers);
    while let Some(frame) = receiving.unless_aborted(body.frame()).await? {
        let Ok(data) = frame.map_err(left)?.into_data() else { continue };
        if first.is_empty() && rest.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                // What has not arrived takes no memory, and a large message is not copied while it grows.
                rest.reserve(declared(&first).unwrap_or(0).min(RESERVED_BYTES_MAX));
                rest.extend_from_slice(&std::mem::take(&mut first));
            }
            rest.extend_from_slice(&data);
        }
        let so_far = if rest.is_empty() { &first[..] } else { &rest[..] };
        match declared(so_far) {
            Some(whole) if whole - PREFIX > max => return Err(too_large(max)),
            Some(whole) if so_far.len() > whole => {
                return Err(Error::invalid("there is more than one message, and this call takes one"));
            }
            // All that is missing is the end of the stream.
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

/// Bytes of prefix and message, once the prefix is there.
fn declared(framed: &[u8]) -> Option<usize> {
    let prefix = framed.first_chunk::<PREFIX>()?;
    Some(PREFIX + u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize)
}

pub(super) const NO_MESSAGE: &str = "the call has no message";

pub(super) fn too_large(max: usize) -> Error {
    Error::too_large(format!("the message is over {} MB; see max_body_mb", max >> 20))
}

/// The messages of a call that streams, one after the other.
pub(super) struct Messages {
    body: Incoming,
    encoding: Option<Encoding>,
    transfers: Arc<Transfers>,
    /// What has come of the next one, and maybe of those behind it.
    come: BytesMut,
    is_partial: Arc<AtomicBool>,
}

impl Messages {
    pub fn new(body: Incoming, encoding: Option<Encoding>, transfers: Arc<Transfers>) -> Self {
        let (come, is_partial) = Default::default();
        Messages { body, encoding, transfers, come, is_partial }
    }

    /// Says whether a message has begun to arrive and must be read on, for its client's sake.
    pub fn is_partial(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_partial)
    }

    /// None after the last. A message that has begun has the time and the pace of a body.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        let (max, limit) = (self.transfers.limits().max_body_bytes, self.transfers.limits().body_timeout);
        let transfers = Arc::clone(&self.transfers);
        let mut receiving = Receiving::new(&transfers);
        let mut deadline = None;
        loop {
            match declared(&self.come) {
                Some(whole) if whole - PREFIX > max => return Err(too_large(max)),
                Some(whole) if self.come.len() >= whole => {
                    if whole > UNCOUNTED_BYTES_MAX {
                        receiving.hold(whole, Some(whole)).await?;
                    }
                    self.is_partial.store(false, Ordering::Relaxed);
                    let mut framed = receiving.finish(self.come.split_to(whole).freeze());
                    let flag = framed.split_to(PREFIX)[0];
                    return unpacked(flag, framed, self.encoding, &transfers).await.map(Some);
                }
                _ if self.come.is_empty() => {}
                length => {
                    self.is_partial.store(true, Ordering::Relaxed);
                    receiving.hold(self.come.len(), length).await?;
                }
            }
            let frame = if self.come.is_empty() {
                self.body.frame().await
            } else {
                let deadline = *deadline.get_or_insert_with(|| Instant::now() + limit);
                let part = tokio::time::timeout_at(deadline, self.body.frame());
                receiving.unless_aborted(part).await?.map_err(|_| late(limit))?
            };
            let Some(frame) = frame else {
                return match (declared(&self.come), self.come.len()) {
                    (_, 0) => Ok(None),
                    (Some(whole), come) => Err(Error::invalid(format!(
                        "the message breaks off after {} of {} bytes",
                        come - PREFIX,
                        whole - PREFIX
                    ))),
                    (None, _) => Err(Error::invalid("the message breaks off before its end")),
                };
            };
            let frame =
                frame.map_err(|_| Error::cancelled("the client left before its message was whole"))?;
            if let Ok(data) = frame.into_data() {
                if self.come.is_empty() {
                    // What has not arrived takes no memory, and a large message is not copied while it grows.
                    self.come.reserve(declared(&data).unwrap_or(0).min(RESERVED_BYTES_MAX));
                }
                self.come.extend_from_slice(&data);
            }
        }
    }
}

/// What a call is answered with.
pub(super) enum Body {
    /// One message in pieces, the last first, and then the status, which is good.
    Message { pieces: Pieces, status_sent: bool },
    /// Whatever tonic makes.
    Tonic(tonic::body::Body),
}

impl Body {
    /// Bytes of data that are there already.
    pub fn data_bytes(&self) -> usize {
        match self {
            Body::Message { pieces, .. } => pieces.iter().map(Bytes::len).sum(),
            Body::Tonic(_) => 0,
        }
    }
}

type Pieces = SmallVec<[Bytes; 4]>;

impl Body {
    /// `head` is the message up to its last field, which has this number and these contents.
    pub fn message(head: &impl Message, field: u32, contents: &[Bytes]) -> Result<Self> {
        let entry = |content: &Bytes| {
            encoding::key_len(field) + encoding::encoded_len_varint(content.len() as u64) + content.len()
        };
        let head_len = head.encoded_len();
        let length = head_len + contents.iter().map(entry).sum::<usize>();
        let declared = u32::try_from(length).map_err(|_| Error::too_large("the answer is over 4 GiB"))?;
        let mut pieces = Pieces::new();
        let mut piece = BytesMut::with_capacity(PREFIX + length.min(head_len + APART_BYTES_MIN));
        piece.put_u8(0);
        piece.put_u32(declared);
        head.encode_raw(&mut piece);
        for content in contents {
            encoding::encode_key(field, WireType::LengthDelimited, &mut piece);
            encoding::encode_varint(content.len() as u64, &mut piece);
            if content.len() < APART_BYTES_MIN {
                piece.extend_from_slice(content);
            } else {
                pieces.push(piece.split().freeze());
                pieces.push(content.clone());
            }
        }
        if !piece.is_empty() {
            pieces.push(piece.freeze());
        }
        pieces.reverse();
        Ok(Body::Message { pieces, status_sent: false })
    }
}

/// Nothing, as an answer has that is a status alone.
impl Default for Body {
    fn default() -> Self {
        Body::Tonic(tonic::body::Body::empty())
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        match self.get_mut() {
            Body::Message { pieces, status_sent } => {
                if let Some(piece) = pieces.pop() {
                    return Poll::Ready(Some(Ok(Frame::data(piece))));
                }
                if std::mem::replace(status_sent, true) {
                    return Poll::Ready(None);
                }
                let mut trailers = HeaderMap::with_capacity(1);
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
            Body::Tonic(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Message { status_sent, .. } => *status_sent,
            Body::Tonic(body) => body.is_end_stream(),
        }
    }
}
