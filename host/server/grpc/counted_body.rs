//! The body of a reply on its way to the client: counted, and handed over in pieces.

use super::body::Body;
use super::call::Call;
use super::frame::UNCOUNTED_BYTES_MAX;
use super::status;
use crate::server::http::REQUEST_ID;
use crate::server::transfers::{Abort, Outgoing, PIECE_BYTES, Transfer};
use bytes::Bytes;
use hyper::Response;
use hyper::body::Frame;
use hyper::header::HeaderValue;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tonic::Status;

type Next = Option<Result<Frame<Bytes>, Status>>;

pub(super) struct CountedBody {
    body: Body,
    /// The call is open as long as its reply is.
    call: Arc<Call>,
    transfer: Option<Arc<Transfer>>,
    /// Data that counts until it was sent.
    outgoing: Option<Outgoing>,
    /// The trailers, which follow the data.
    last: Option<Frame<Bytes>>,
}

impl CountedBody {
    pub fn of(response: Response<Body>, call: Arc<Call>) -> Response<Self> {
        let (head, body) = response.into_parts();
        let bytes = body.data_bytes();
        let mut answered = CountedBody { body, call, transfer: None, outgoing: None, last: None };
        if bytes > UNCOUNTED_BYTES_MAX {
            // Counted from now on, because the data is in memory, even before the client's flow
            // control allows sending it.
            let id = head.headers.get(REQUEST_ID).cloned();
            answered.outgoing =
                answered.transfer(id).map(|transfer| Outgoing::new(&transfer, bytes, Bytes::new()));
        }
        Response::from_parts(head, answered)
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
        if let (Body::Message { .. }, Some(outgoing)) = (&self.body, &mut self.outgoing) {
            // Its bytes were counted with the message.
            outgoing.push(data);
        } else {
            let Some(transfer) = self.transfer(None) else { return data };
            self.outgoing = Some(Outgoing::new(&transfer, data.len(), data));
        }
        self.outgoing.as_mut().and_then(Outgoing::next).unwrap_or_default()
    }
}

impl hyper::body::Body for CountedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Next> {
        let answered = &mut *self;
        if let Some(piece) = answered.outgoing.as_mut().and_then(Outgoing::next) {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if answered.last.is_none() {
            let frame = match ready!(Pin::new(&mut answered.body).poll_frame(context)) {
                Some(Ok(frame)) => frame,
                end => return Poll::Ready(end),
            };
            match frame.into_data() {
                Ok(data) if data.len() > UNCOUNTED_BYTES_MAX => {
                    return Poll::Ready(Some(Ok(Frame::data(answered.first_piece(data)))));
                }
                Ok(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Err(mut last) => {
                    // An OK has no message.
                    if let Some(trailers) = last.trailers_mut().filter(|trailers| trailers.len() > 1) {
                        status::make_readable(trailers);
                    }
                    answered.last = Some(last);
                }
            }
        }
        // A stream can be reset until its last frame is handed over, so a long reply holds it back.
        if let Some(outgoing) = answered.outgoing.as_ref().filter(|outgoing| outgoing.bytes() > PIECE_BYTES) {
            ready!(outgoing.poll_sent(context));
        }
        answered.outgoing = None;
        Poll::Ready(answered.last.take().map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        let is_out = self.outgoing.as_ref().is_none_or(|outgoing| outgoing.remaining() == 0);
        is_out && self.last.is_none() && self.body.is_end_stream()
    }
}
