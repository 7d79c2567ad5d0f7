//! One call of a model, and the trait [`Submit`] that admits calls.

use super::batching::Batching;
use super::callable::{self, BoxFuture, CallProfile, Callable};
use super::runs::Runs;
use super::sink::Sink;
use crate::error::Result;
use crate::plugin::Transformer;
use crate::predict::{CallContext, Payload, Response, Responses, Sender, channel};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How many responses of a stream are buffered for a slow reader.
pub(super) const STREAM_BUFFER: usize = 16;

/// One call of a model, with everything that it needs.
pub struct Call {
    pub context: Arc<CallContext>,
    pub input: Payload,
    pub transformer: Option<Arc<Transformer>>,
    pub callable: Arc<dyn Callable>,
    /// How the call may share a run of the callable with others; `None` if it must run alone.
    pub batching: Option<Batching>,
    /// Counts runs of the callable. `None` for checks and shadow copies.
    pub runs: Option<Arc<Runs>>,
    pub precedence: Precedence,
}

/// The order in which calls are served: first calls of started requests, the oldest request first;
/// then new calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precedence {
    /// A new request. The call is admitted or refused immediately.
    #[default]
    New,
    /// Part of a request that started at this instant. The call waits instead of being refused.
    Started(Instant),
    /// Like `Started`, for a call that is repeated in a loop: it waits behind the calls that are
    /// new now.
    Repeated(Instant),
}

/// Admits calls.
pub trait Submit: Send + Sync {
    /// Admits one call or refuses it, immediately. Never blocks; called on I/O threads. Background
    /// work (`jobs`) is made of such calls too, so the call's `Sender` must be held for as long as
    /// the work continues.
    fn submit(&self, call: Call) -> Result<Responses>;

    /// Admits all calls as one unit, or none. Returns the responses in the order of the calls.
    fn submit_batch(&self, calls: Vec<Call>) -> Result<Vec<Responses>>;

    /// Admits a call of work that started at `since`. The call waits for a slot, before new calls,
    /// and is never refused as Overloaded: its deadline limits the wait.
    fn submit_started(&self, call: Call, _since: Instant) -> BoxFuture<'_, Result<Responses>> {
        let submitted = self.submit(call);
        Box::pin(std::future::ready(submitted))
    }
}

impl Call {
    /// Returns true if a guest of the call may wait for other models or for servers.
    pub(super) fn may_wait(&self) -> bool {
        self.callable.profile() == CallProfile::Suspending
            || self.transformer.as_ref().is_some_and(|transformer| transformer.waits())
    }

    /// Returns the sink of the call, which starts to run at `now`.
    pub(super) fn sink(&self, sender: Sender, queue_wait: Duration, now: Instant) -> Sink {
        Sink::new(sender, &self.context, self.transformer.as_ref(), self.runs.clone(), queue_wait, now)
    }

    /// Returns the sink of a call that starts to run now and was admitted at `admitted`.
    pub(super) fn sink_now(&self, sender: Sender, admitted: Instant) -> Sink {
        let now = Instant::now();
        self.sink(sender, now.saturating_duration_since(admitted), now)
    }

    /// Runs preprocess, the callable and postprocess, in this order, on the worker that polls the
    /// future.
    pub(super) async fn run(self, sink: &mut Sink) -> Result<Option<Response>> {
        let inputs = sink.preprocess(self.input, self.callable.metadata()).await?;
        callable::run(sink, &*self.callable, inputs).await
    }
}

/// Creates a response channel for each call of a batch. Returns the calls with their senders, and
/// the receivers.
pub(super) fn with_channels(calls: Vec<Call>) -> (Vec<(Call, Sender)>, Vec<Responses>) {
    let channels = calls.into_iter().map(|call| {
        let (sender, responses) = channel(Arc::clone(&call.context), STREAM_BUFFER);
        ((call, sender), responses)
    });
    channels.unzip()
}

/// Runs one call on the calling thread, without a queue: for checks before a swap and for `hostler
/// predict`. Must be called within a multi-threaded tokio runtime, because another thread watches
/// the deadline.
pub async fn run_alone(call: Call) -> Result<Response> {
    let context = Arc::clone(&call.context);
    let watch = tokio::spawn(async move {
        if let Some(deadline) = context.deadline {
            tokio::time::sleep_until(deadline.into()).await;
            context.cancellation.expire();
        }
    });
    let (sender, mut responses) = channel(Arc::clone(&call.context), 1024);
    let mut sink = call.sink_now(sender, Instant::now());
    let last = call.run(&mut sink).await;
    watch.abort();
    sink.finish(last);
    responses.one().await
}
