//! The body of a call, as its handler reads it, and the rest that the handler leaves.
//!
//! A call can be answered before its client has sent the whole body. The rest is then read and
//! dropped. A reset would tell the client the same, but the frames that it has sent by then arrive
//! at a stream that no longer exists. HTTP/2 counts each of them as an error of the connection, and
//! the connection ends at 1,024 of them, with all other calls on it.

use super::call::Call;
use crate::server::connection::Connection;
use crate::server::stop::stopped;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::runtime::Handle;

/// How long the rest of a body is read, and the most bytes of it. A call that goes on is reset
/// then. The bytes are dropped as they arrive, so only the window of the call is in memory.
const REST_TIMEOUT: Duration = Duration::from_secs(5);
const REST_BYTES_MAX: usize = 64 << 20;

/// The body of a call. If it is dropped before its end, the rest is read and dropped.
pub(in crate::server) struct CallBody {
    /// `None` after its end.
    body: Option<Incoming>,
    call: Arc<Call>,
}

impl CallBody {
    pub fn new(body: Incoming, call: &Arc<Call>) -> Self {
        CallBody { body: Some(body), call: Arc::clone(call) }
    }
}

impl CallBody {
    pub fn connection(&self) -> &Connection {
        self.call.connection()
    }
}

impl Body for CallBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(context);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.body = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}

impl Drop for CallBody {
    fn drop(&mut self) {
        let Some(rest) = self.body.take().filter(|body| !body.is_end_stream()) else { return };
        // An aborted call is to be reset at once.
        if self.call.is_aborted() {
            return;
        }
        // Without a runtime the process ends.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(read_rest(rest, Arc::clone(&self.call)));
        }
    }
}

/// Reads and drops a body until its end, the limits, an abort of the call or the listener's stop.
/// If the client has not ended it by then, dropping it resets the call.
async fn read_rest(mut body: Incoming, call: Arc<Call>) {
    let mut stop = call.stop().clone();
    let read = async {
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.frame().await {
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if bytes > REST_BYTES_MAX {
                return;
            }
        }
    };
    tokio::select! {
        _ = tokio::time::timeout(REST_TIMEOUT, read) => {}
        () = poll_fn(|context| call.poll_aborted(context)) => {}
        () = stopped(&mut stop) => {}
    }
}
