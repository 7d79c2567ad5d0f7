//! The binary tensor extension: raw tensors follow the JSON of a body, in the order in which the
//! JSON names them.
//!
//! Tensors of a request are slices of its body; large tensors of a response are sent without a
//! copy.

use super::request::InferRequest;
use crate::error::{Error, Result};
use crate::predict::{self, Allocation, Metadata, Parameters};
use crate::server::http::{self, Reply, ReplyContent};
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, StatusCode};
use smallvec::SmallVec;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

pub(super) const HEAD_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// Up to this many raw bytes are copied behind the JSON; more are sent as frames of their own.
const COPIED_BYTES_MAX: usize = 16 << 10;

/// Splits a body at the length in its header. Without the header, all of it is JSON.
pub(super) fn split(headers: &HeaderMap, body: &Bytes) -> Result<(Bytes, Bytes)> {
    let Some(value) = headers.get(HEAD_LENGTH) else { return Ok((body.clone(), Bytes::new())) };
    let length = value.to_str().ok().and_then(|value| value.trim().parse::<usize>().ok());
    match length {
        Some(length) if length <= body.len() => Ok((body.slice(..length), body.slice(length..))),
        Some(length) => Err(Error::invalid(format!(
            "Inference-Header-Content-Length says {length} bytes of JSON, and the body has {} bytes",
            body.len()
        ))),
        None => Err(Error::invalid(format!(
            "Inference-Header-Content-Length is {value:?}; it is the number of bytes of JSON at the body's start"
        ))),
    }
}

/// Returns the index in a body at which its first binary tensor begins. 0 if there is none, or if
/// the header is invalid, which `split` reports.
pub(super) fn tensors_at(headers: &HeaderMap) -> usize {
    let length = headers.get(HEAD_LENGTH).and_then(|value| value.to_str().ok());
    length.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

/// The bytes after the JSON that no tensor has taken yet, and the body that they are a part of.
pub(super) struct Tail {
    rest: Bytes,
    pub body: Allocation,
}

impl Tail {
    pub fn new(rest: Bytes, body: Allocation) -> Self {
        Tail { rest, body }
    }

    pub fn take(&mut self, size: usize) -> Result<Bytes> {
        if size > self.rest.len() {
            return Err(Error::invalid(format!(
                "binary_data_size is {size}, and {} bytes are left behind the JSON (see Inference-Header-Content-Length)",
                self.rest.len()
            )));
        }
        Ok(self.rest.split_to(size))
    }

    /// Checks that tensors have taken all bytes, so that none is ignored silently.
    pub fn end(self) -> Result<()> {
        match self.rest.len() {
            0 => Ok(()),
            rest => Err(Error::invalid(format!(
                "unexpected additional input data: the inputs' binary_data_size leave {rest} bytes of the body over"
            ))),
        }
    }
}

/// Returns the request of a body without JSON: all of it is the one input that its model requires.
///
/// If `rows` is set, a free first dimension counts rows, and a further free dimension is deduced.
pub(super) fn whole(model: &str, metadata: &Metadata, rows: bool, body: Bytes) -> Result<InferRequest> {
    let spec = metadata.only_input().ok_or_else(|| {
        Error::invalid(format!(
            "a body without JSON (Inference-Header-Content-Length: 0) is for models with one required input: Raw request \
             must only have 1 input (found 1) to be deduced but got {} inputs in '{model}' model configuration",
            metadata.inputs.len()
        ))
    })?;
    Ok(InferRequest {
        id: None,
        parameters: Parameters::new(),
        inputs: vec![predict::raw_input(spec, rows, body)?],
        outputs: Vec::new(),
    })
}

/// Returns a reply of JSON and the tensors that follow it, if there are any.
pub(super) fn reply(mut head: Vec<u8>, tail: SmallVec<[Bytes; 4]>) -> Reply {
    if tail.is_empty() {
        return http::json(StatusCode::OK, head);
    }
    let head_length = head.len();
    let raw: usize = tail.iter().map(Bytes::len).sum();
    let content = if raw <= COPIED_BYTES_MAX {
        head.reserve_exact(raw);
        tail.iter().for_each(|bytes| head.extend_from_slice(bytes));
        ReplyContent::Whole(head.into())
    } else {
        let pieces = std::iter::once(Bytes::from(head)).chain(tail).filter(|piece| !piece.is_empty()).rev();
        ReplyContent::Parts(Box::pin(Pieces {
            remaining: (head_length + raw) as u64,
            pieces: pieces.collect(),
        }))
    };
    let mut reply = Reply::new(content);
    let headers = reply.headers_mut();
    headers.insert(hyper::header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(HEAD_LENGTH, head_length.into());
    reply
}

/// Bytes in several buffers, the last one first.
struct Pieces {
    pieces: Vec<Bytes>,
    remaining: u64,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.pieces.pop();
        self.remaining -= piece.as_ref().map_or(0, Bytes::len) as u64;
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}
