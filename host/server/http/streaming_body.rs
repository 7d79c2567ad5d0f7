//! Content that is streamed: each part is sent when it is made. If the client disconnects, the
//! content is dropped, which cancels the work.

use super::reply::ReplyContent;
use bytes::Bytes;
use hyper::body::{Body, Frame};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Makes the next part and returns it with the source of further parts, `None` after the last. An
/// empty part is not sent.
pub(in crate::server) type Step<S> = Pin<Box<dyn Future<Output = (Bytes, Option<S>)> + Send>>;

/// Returns content whose first part is `first`. `step` makes each further part from the source that
/// the step before returned, beginning with `source`.
pub(in crate::server) fn content<S>(first: Bytes, source: S, step: fn(S) -> Step<S>) -> ReplyContent
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
