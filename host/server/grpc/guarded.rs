//! The body of a call that tonic reads: counted while it is received, and with a deadline if it is
//! one message.

use super::status;
use crate::error::{Error, Result};
use crate::server::http2::call_body::CallBody;
use crate::server::transfers::{Receiving, Transfers};
use crate::task_timer;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tonic::Status;

pub(super) struct GuardedBody {
    body: CallBody,
    /// `None` if the call reads many small messages, for as long as its client likes.
    single: Option<Single>,
}

/// The limits of a call with one message.
struct Single {
    receiving: Receiving<Arc<Transfers>>,
    received: usize,
    limit: Duration,
    late: task_timer::Until,
}

impl GuardedBody {
    pub fn new(body: CallBody, transfers: &Arc<Transfers>, is_single: bool) -> Self {
        let single = || {
            let limit = transfers.limits().body_timeout;
            let (receiving, late) =
                (Receiving::new(Arc::clone(transfers)), task_timer::until(Instant::now() + limit));
            Single { receiving, received: 0, limit, late }
        };
        GuardedBody { body, single: is_single.then(single) }
    }
}

impl Single {
    fn take(&mut self, bytes: usize, is_last: bool) -> Result<()> {
        self.received += bytes;
        if is_last { Ok(()) } else { self.receiving.try_hold(self.received, None) }
    }

    fn poll_refused(&mut self, context: &mut Context<'_>) -> Poll<Error> {
        if Pin::new(&mut self.late).poll(context).is_ready() {
            let ms = self.limit.as_millis();
            return Poll::Ready(Error::deadline(format!("the message did not arrive within {ms} ms")));
        }
        self.receiving.poll_aborted(context)
    }
}

impl Body for GuardedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let GuardedBody { body, single } = self.get_mut();
        match (Pin::new(&mut *body).poll_frame(context), single) {
            (Poll::Ready(Some(Ok(frame))), Some(single)) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                let taken = single.take(bytes, body.is_end_stream());
                Poll::Ready(Some(taken.map(|()| frame).map_err(|error| status::status_of(&error))))
            }
            (Poll::Ready(Some(Ok(frame))), None) => Poll::Ready(Some(Ok(frame))),
            (Poll::Ready(Some(Err(error))), _) => Poll::Ready(Some(Err(Status::from_error(error.into())))),
            (Poll::Ready(None), _) => Poll::Ready(None),
            (Poll::Pending, Some(single)) => {
                single.poll_refused(context).map(|error| Some(Err(status::status_of(&error))))
            }
            (Poll::Pending, None) => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
