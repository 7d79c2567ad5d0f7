//! Content that comes in parts as they are made. A client that leaves drops it, and with it the work.

use super::http::ReplyContent;
use bytes::Bytes;
use hyper::body::{Body, Frame};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

/// The next part, and what makes those behind it; no part at all is an empty one.
pub(super) type Step<S> = Pin<Box<dyn Future<Output = (Bytes, Option<S>)> + Send>>;

/// `first` is there already; `step` makes each further one, from `source` as the step before has left it.
pub(super) fn content<S>(first: Bytes, source: S, step: fn(S) -> Step<S>) -> ReplyContent
where
    S: Send + Unpin + 'static,
{
    ReplyContent::Parts(Box::pin(StreamingBody { first, state: State::Idle(source), step }))
}

struct StreamingBody<S> {
    first: Bytes,
    state: State<S>,
    step: fn(S) -> Step<S>,
}

enum State<S> {
    Idle(S),
    Waiting(Step<S>),
    Over,
}

impl<S: Unpin> Body for StreamingBody<S> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let parts = self.get_mut();
        if !parts.first.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut parts.first)))));
        }
        loop {
            let mut step = match std::mem::replace(&mut parts.state, State::Over) {
                State::Idle(source) => (parts.step)(source),
                State::Waiting(step) => step,
                State::Over => return Poll::Ready(None),
            };
            let Poll::Ready((part, source)) = step.as_mut().poll(task) else {
                parts.state = State::Waiting(step);
                return Poll::Pending;
            };
            parts.state = source.map_or(State::Over, State::Idle);
            if !part.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(part))));
            }
        }
    }
}
