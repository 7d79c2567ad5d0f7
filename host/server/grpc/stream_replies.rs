//! The replies of a stream, as its client reads them.

use crate::proto::inference::ModelStreamInferResponse;
use crate::server::transfers::Hold;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::AbortHandle;
use tonic::Status;
use tonic::codegen::tokio_stream::Stream;

pub(super) type StreamReply = Result<ModelStreamInferResponse, Status>;

/// A reply that waits for the client, with its share of the limits.
pub(super) struct QueuedReply {
    pub reply: StreamReply,
    pub _bytes: Option<OwnedSemaphorePermit>,
    pub hold: Hold,
}

/// The replies that the client reads. Dropped if the client disconnects, which aborts the stream's
/// work.
pub(super) struct StreamReplies {
    pub receiver: mpsc::Receiver<QueuedReply>,
    pub driver: AbortHandle,
}

impl Stream for StreamReplies {
    type Item = StreamReply;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<StreamReply>> {
        self.receiver.poll_recv(task).map(|queued| {
            let QueuedReply { reply, hold, .. } = queued?;
            hold.moved();
            Some(reply)
        })
    }
}

impl Drop for StreamReplies {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
