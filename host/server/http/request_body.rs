//! The body of a request over HTTP/1.1. Its connection learns when it is dropped before its end.

use crate::server::connection::Connection;
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// The body of a request. If it is dropped before it was read to its end, the client may still be
/// sending it, and the connection ends after the reply.
pub struct RequestBody {
    body: Incoming,
    connection: Arc<Connection>,
    is_read: bool,
}

impl RequestBody {
    pub(in crate::server) fn new(body: Incoming, connection: Arc<Connection>) -> Self {
        RequestBody { body, connection, is_read: false }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let poll = Pin::new(&mut self.body).poll_frame(context);
        self.is_read |= matches!(poll, Poll::Ready(None));
        poll
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if !self.is_read && !self.body.is_end_stream() {
            self.connection.body_left(self.body.size_hint().exact());
        }
    }
}
