//! The body of a reply on its way to the client, whose large parts count against the budget of
//! buffered bytes.

use crate::server::connection::Connection;
use crate::server::http::{REQUEST_ID, Reply, ReplyContent};
use crate::server::transfers::{Abort, Outgoing, PIECE_BYTES, Transfer};
use bytes::Bytes;
use hyper::Response;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{CONNECTION, HeaderValue};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// The content of a reply. Dropping it marks the end of the reply.
pub(super) struct ReplyBody {
    content: ReplyContent,
    connection: Arc<Connection>,
    /// Data that counts until it was sent. It precedes the rest of the content.
    large: Option<Box<Outgoing>>,
}

impl ReplyBody {
    pub fn of(reply: Reply, connection: Arc<Connection>) -> Response<Self> {
        let (mut head, content) = reply.into_parts();
        if connection.is_last() {
            head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let mut answer = ReplyBody { content, connection, large: None };
        if let ReplyContent::Whole(data) = &mut answer.content
            && data.len() > PIECE_BYTES
        {
            let data = std::mem::take(data);
            answer.content = ReplyContent::Empty;
            let counted = answer.counted(data, head.headers.get(REQUEST_ID).cloned());
            match counted {
                Ok(outgoing) => answer.large = Some(Box::new(outgoing)),
                Err(data) => answer.content = ReplyContent::Whole(data),
            }
        }
        Response::from_parts(head, answer)
    }

    /// Counts data. Returns it as the error if nothing is counted on this connection.
    fn counted(&self, data: Bytes, request_id: Option<HeaderValue>) -> Result<Outgoing, Bytes> {
        let Some(transfers) = self.connection.transfers() else { return Err(data) };
        let connection: Arc<dyn Abort> = Arc::clone(&self.connection) as Arc<dyn Abort>;
        let transfer = Transfer::answer(transfers, connection, request_id);
        Ok(Outgoing::new(&transfer, data.len(), data))
    }
}

impl Drop for ReplyBody {
    fn drop(&mut self) {
        self.connection.answer_complete();
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let answer = &mut *self;
        if let Some(piece) = answer.large.as_mut().and_then(|large| large.next()) {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        answer.large = None;
        let frame = match std::task::ready!(Pin::new(&mut answer.content).poll_frame(task)) {
            Some(Ok(frame)) => frame,
            end => return Poll::Ready(end),
        };
        if frame.data_ref().is_none_or(|data| data.len() <= PIECE_BYTES) {
            return Poll::Ready(Some(Ok(frame)));
        }
        // A part of a stream: whole replies were counted in `of`.
        let data = frame.into_data().unwrap_or_default();
        let data = match answer.counted(data, None) {
            Ok(mut outgoing) => {
                let first = outgoing.next().unwrap_or_default();
                answer.large = Some(Box::new(outgoing));
                first
            }
            Err(data) => data,
        };
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.large.as_ref().is_none_or(|large| large.remaining() == 0) && self.content.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.large {
            Some(large) if self.content.is_end_stream() => SizeHint::with_exact(large.remaining() as u64),
            _ => self.content.size_hint(),
        }
    }
}
