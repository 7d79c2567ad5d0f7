//! The body of a reply on its way to the client: counted, and handed over in pieces.

use super::call::Call;
use crate::server::http::REQUEST_ID;
use crate::server::transfers::{Abort, Outgoing, PIECE_BYTES, Transfer};
use bytes::Bytes;
use hyper::Response;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::HeaderValue;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// Messages and replies up to this size are not counted, because a connection has at most 1,024
/// calls.
pub(in crate::server) const UNCOUNTED_BYTES_MAX: usize = 4 << 10;

/// The content of a reply, before it is counted.
pub(in crate::server) trait Content: Body<Data = Bytes> + Unpin {
    /// Returns the bytes of data that are in memory already. They are all the data that there is,
    /// or 0.
    fn data_bytes(&self) -> usize;
}

pub(super) struct CountedBody<B> {
    body: B,
    /// The call is open as long as its reply is.
    call: Arc<Call>,
    transfer: Option<Arc<Transfer>>,
    /// Data that counts until it was sent.
    outgoing: Option<Outgoing>,
    /// All data was counted at the beginning.
    is_whole: bool,
    /// The trailers, which follow the data.
    last: Option<Frame<Bytes>>,
}

impl<B: Content> CountedBody<B> {
    pub fn of(response: Response<B>, call: Arc<Call>) -> Response<Self> {
        let (head, body) = response.into_parts();
        let bytes = body.data_bytes();
        let mut counted =
            CountedBody { body, call, transfer: None, outgoing: None, is_whole: false, last: None };
        if bytes > UNCOUNTED_BYTES_MAX {
            // Counted from now on, because the data is in memory, even before the client's flow
            // control allows sending it.
            let id = head.headers.get(REQUEST_ID).cloned();
            counted.outgoing =
                counted.transfer(id).map(|transfer| Outgoing::new(&transfer, bytes, Bytes::new()));
            counted.is_whole = counted.outgoing.is_some();
        }
        Response::from_parts(head, counted)
    }

    fn transfer(&mut self, request_id: Option<HeaderValue>) -> Option<Arc<Transfer>> {
        if self.transfer.is_none() {
            let transfers = self.call.connection().transfers()?;
            let call = Arc::clone(&self.call) as Arc<dyn Abort>;
            self.transfer = Some(Transfer::answer(transfers, call, request_id));
        }
        self.transfer.clone()
    }

    /// Counts new data and returns its first piece. The other pieces follow.
    fn first_piece(&mut self, data: Bytes) -> Bytes {
        if let (true, Some(outgoing)) = (self.is_whole, &mut self.outgoing) {
            outgoing.push(data);
        } else {
            let Some(transfer) = self.transfer(None) else { return data };
            self.outgoing = Some(Outgoing::new(&transfer, data.len(), data));
        }
        self.outgoing.as_mut().and_then(Outgoing::next).unwrap_or_default()
    }

    /// Data of a long reply whose end is held back until it was sent: a stream can be reset until
    /// its last frame is handed over.
    fn held_back(&self) -> Option<&Outgoing> {
        self.outgoing.as_ref().filter(|outgoing| outgoing.bytes() > PIECE_BYTES)
    }
}

impl<B: Content> Body for CountedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let counted = &mut *self;
        if let Some(piece) = counted.outgoing.as_mut().and_then(Outgoing::next) {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if counted.last.is_none() {
            match ready!(Pin::new(&mut counted.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if data.len() > UNCOUNTED_BYTES_MAX => {
                        return Poll::Ready(Some(Ok(Frame::data(counted.first_piece(data)))));
                    }
                    Ok(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                    Err(last) => counted.last = Some(last),
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {}
            }
        }
        if let Some(outgoing) = counted.held_back() {
            ready!(outgoing.poll_sent(context));
        }
        counted.outgoing = None;
        Poll::Ready(counted.last.take().map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        let is_out = self.outgoing.as_ref().is_none_or(|outgoing| outgoing.remaining() == 0);
        is_out && self.held_back().is_none() && self.last.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.outgoing {
            Some(outgoing) if outgoing.remaining() > 0 => SizeHint::default(),
            _ => self.body.size_hint(),
        }
    }
}
