//! The body of a reply: one message that is framed here, or whatever tonic makes. Replies are never
//! compressed.

use super::frame::PREFIX;
use super::readable_status;
use crate::error::{Error, Result};
use crate::server::http2::counted_body::Content;
use bytes::{BufMut, Bytes, BytesMut};
use hyper::HeaderMap;
use hyper::body::Frame;
use hyper::header::HeaderValue;
use prost::Message;
use prost::encoding::{self, WireType};
use smallvec::SmallVec;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Contents from this size on are sent without a copy. Copying smaller ones costs less than a frame
/// of their own.
const APART_BYTES_MIN: usize = 16 << 10;

/// The body of a reply.
pub(in crate::server) enum Body {
    /// One message in pieces, the last one first, followed by the status OK.
    Message { pieces: Pieces, status_sent: bool },
    /// A body that tonic makes.
    Tonic(tonic::body::Body),
}

impl Content for Body {
    fn data_bytes(&self) -> usize {
        match self {
            Body::Message { pieces, .. } => pieces.iter().map(Bytes::len).sum(),
            Body::Tonic(_) => 0,
        }
    }
}

type Pieces = SmallVec<[Bytes; 4]>;

impl Body {
    /// Frames a message. `head` is the message without its last field, which has the number `field`
    /// and is repeated with these contents.
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

/// Makes the status of a frame with trailers readable, if it has a message: an OK has none.
fn with_readable_status(mut frame: Frame<Bytes>) -> Frame<Bytes> {
    if let Some(trailers) = frame.trailers_mut().filter(|trailers| trailers.len() > 1) {
        readable_status::make_readable(trailers);
    }
    frame
}

/// An empty body, for a reply that is only a status.
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
            Body::Tonic(body) => {
                let polled = Pin::new(body).poll_frame(context);
                polled.map_ok(with_readable_status)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Message { status_sent, .. } => *status_sent,
            Body::Tonic(body) => body.is_end_stream(),
        }
    }
}
