//! One message in, one message out: gRPC's length-prefixed framing for unary calls.
//!
//! A message that arrived in one piece is decoded where it lies, and large contents leave as they are. Calls
//! that stream are framed by tonic and not here. Answers are never compressed.

use crate::error::{Error, Result};
use crate::policy::settings::Limits;
use crate::server::compression::in_background;
use bytes::{BufMut, Bytes, BytesMut};
use flate2::read::{GzDecoder, ZlibDecoder};
use http_body_util::BodyExt;
use hyper::HeaderMap;
use hyper::body::{Frame, Incoming};
use hyper::header::HeaderValue;
use prost::Message;
use prost::encoding::{self, WireType};
use smallvec::SmallVec;
use std::io::Read;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A byte that says whether the message is compressed, then four of its length, big-endian.
const PREFIX: usize = 5;

/// Contents from this size on are sent as they are; copying smaller ones is cheaper than a frame of their own.
const APART_BYTES_MIN: usize = 16 << 10;

/// How a call's messages may be compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
    Deflate,
}

impl Encoding {
    /// What the header `grpc-encoding` says.
    pub fn of(headers: &HeaderMap) -> Result<Self> {
        match headers.get("grpc-encoding").map(HeaderValue::as_bytes) {
            None | Some(b"identity") => Ok(Encoding::Identity),
            Some(b"gzip") => Ok(Encoding::Gzip),
            Some(b"deflate") => Ok(Encoding::Deflate),
            Some(other) => Err(Error::unsupported(format!(
                "messages compressed by \"{}\" are not read here; send gzip, deflate or identity",
                String::from_utf8_lossy(other)
            ))),
        }
    }
}

/// Reads the one message of a unary call, within the limits of size and time.
pub(super) async fn read(body: Incoming, encoding: Encoding, limits: &Limits) -> Result<Bytes> {
    let read = collect(body, limits.max_body_bytes);
    let Ok(framed) = tokio::time::timeout(limits.body_timeout, read).await else {
        let ms = limits.body_timeout.as_millis();
        return Err(Error::deadline(format!("the message did not arrive within {ms} ms")).field("body"));
    };
    let framed = framed?;
    let (compressed, message) = (framed[0], framed.slice(PREFIX..));
    let max = limits.max_body_bytes;
    match (compressed, encoding) {
        (0, _) => Ok(message),
        (1, Encoding::Gzip) => {
            in_background(message.len(), move || unpack(GzDecoder::new(&message[..]), max)).await
        }
        (1, Encoding::Deflate) => {
            in_background(message.len(), move || unpack(ZlibDecoder::new(&message[..]), max)).await
        }
        (1, Encoding::Identity) => {
            Err(Error::invalid("the message says that it is compressed, and no grpc-encoding says how"))
        }
        (flag, _) => Err(Error::invalid(format!("a message begins with the byte {flag}; it is 0 or 1"))),
    }
}

/// Prefix and message, whole. One frame, as small requests have, is not copied.
async fn collect(mut body: Incoming, max: usize) -> Result<Bytes> {
    let left = |_| Error::cancelled("the client left before its message was whole");
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(left)?.into_data() else { continue };
        if first.is_empty() && rest.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                // The whole length is believed only so far: it is the client's word.
                rest.reserve(declared(&first).unwrap_or(0).min(1 << 20).max(first.len() + data.len()));
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
            _ => {}
        }
    }
    let framed = if rest.is_empty() { first } else { rest.freeze() };
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

/// A small message can unpack to a very large one, so unpacking ends at the limit.
fn unpack(from: impl Read, max: usize) -> Result<Bytes> {
    let mut message = Vec::new();
    let read = from.take(max as u64 + 1).read_to_end(&mut message);
    read.map_err(|error| Error::invalid(format!("the message does not unpack: {error}")))?;
    if message.len() > max { Err(too_large(max)) } else { Ok(message.into()) }
}

pub(super) const NO_MESSAGE: &str = "the call has no message";

pub(super) fn too_large(max: usize) -> Error {
    Error::too_large(format!("the message is over {} MB; see max_body_mb", max >> 20))
}

/// What a call is answered with.
pub(super) enum Body {
    /// One message in pieces, the last first, and then the status, which is good.
    Message { pieces: Pieces, status_sent: bool },
    /// Whatever tonic makes.
    Tonic(tonic::body::Body),
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
