//! The body of a request of either version of HTTP.

use crate::server::connection::Connection;
use crate::server::http2::call_body::CallBody;
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// The body of a request. If it is dropped before it was read to its end, the client may still be
/// sending it. Over HTTP/1.1 the connection then ends after the reply, over HTTP/2 the rest is read
/// and dropped.
pub struct RequestBody(Source);

enum Source {
    Http1 { body: Incoming, connection: Arc<Connection>, is_read: bool },
    Http2(CallBody),
}

impl RequestBody {
    /// Returns the body of a request over HTTP/1.1.
    pub(in crate::server) fn new(body: Incoming, connection: Arc<Connection>) -> Self {
        RequestBody(Source::Http1 { body, connection, is_read: false })
    }

    pub(in crate::server) fn is_http2(&self) -> bool {
        matches!(self.0, Source::Http2(_))
    }

    /// Returns the connection over which the request came.
    pub(in crate::server) fn connection(&self) -> &Connection {
        match &self.0 {
            Source::Http1 { connection, .. } => connection,
            Source::Http2(body) => body.connection(),
        }
    }

    /// Returns the body of a request over HTTP/2.
    pub(in crate::server) fn of_call(body: CallBody) -> Self {
        RequestBody(Source::Http2(body))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        match &mut self.0 {
            Source::Http1 { body, is_read, .. } => {
                let poll = Pin::new(body).poll_frame(context);
                *is_read |= matches!(poll, Poll::Ready(None));
                poll
            }
            Source::Http2(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Http1 { body, .. } => body.is_end_stream(),
            Source::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Http1 { body, .. } => body.size_hint(),
            Source::Http2(body) => body.size_hint(),
        }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Source::Http1 { body, connection, is_read: false } = &self.0
            && !body.is_end_stream()
        {
            connection.body_left(body.size_hint().exact());
        }
    }
}
