//! One call of a model, and how it is submitted.

use super::batching::Batching;
use super::callable::{self, BoxFuture, CallProfile, Callable};
use super::runs::Runs;
use super::sink::Sink;
use crate::error::Result;
use crate::plugin::Transformer;
use crate::predict::{CallContext, Payload, Response, Responses, Sender, channel};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Responses of a stream that may wait for a slow reader.
pub(super) const STREAM_BUFFER: usize = 16;

/// One request, complete: what to run, on what.
pub struct Call {
    pub context: Arc<CallContext>,
    pub input: Payload,
    pub transformer: Option<Arc<Transformer>>,
    pub callable: Arc<dyn Callable>,
    /// Whether it may share a run of the callable with others.
    pub batching: Option<Batching>,
    /// Where runs of the callable are counted; none for checks and copies.
    pub runs: Option<Arc<Runs>>,
    pub priority: Priority,
}

/// Which calls go first: those that go on with what has begun, the oldest request first; then what is new.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Priority {
    /// It is admitted or refused at once.
    #[default]
    New,
    /// Of a request that has begun then. It waits instead of being refused.
    Started(Instant),
    /// The same for what is repeated in a loop: it waits behind what is new now.
    Repeated(Instant),
}

/// Admits calls.
pub trait Submit: Send + Sync {
    /// Admits one call or refuses it, at once. Never blocks; called on I/O threads. Work in the background is
    /// made of such calls too (`jobs`), so what holds a call's `Sender` must hold it for as long as it works.
    fn submit(&self, call: Call) -> Result<Responses>;

    /// Admits all calls as one unit, or none. The answers are in the order of the calls.
    fn submit_batch(&self, calls: Vec<Call>) -> Result<Vec<Responses>>;

    /// Admits a call of work that has begun at `since`. It waits for its place, before calls that are new, and is never
    /// Overloaded: its deadline bounds it.
    fn submit_started(&self, call: Call, _since: Instant) -> BoxFuture<'_, Result<Responses>> {
        let submitted = self.submit(call);
        Box::pin(std::future::ready(submitted))
    }
}

impl Call {
    /// Whether a guest of it may wait for other models.
    pub(super) fn may_wait(&self) -> bool {
        self.callable.profile() == CallProfile::Suspending || self.transformer.as_ref().is_some_and(|transformer| transformer.waits())
    }

    /// Its sink, when it begins to run.
    pub(super) fn sink(&self, sender: Sender, queue_wait: Duration, now: Instant) -> Sink {
        Sink::new(sender, &self.context, self.transformer.as_ref(), self.runs.clone(), queue_wait, now)
    }

    /// The sink of a call that begins now.
    pub(super) fn sink_now(&self, sender: Sender, admitted: Instant) -> Sink {
        let now = Instant::now();
        self.sink(sender, now.saturating_duration_since(admitted), now)
    }

    /// Runs preprocess, the callable and postprocess, in this order, on the worker that polls it.
    pub(super) async fn run(self, sink: &mut Sink) -> Result<Option<Response>> {
        let inputs = sink.preprocess(self.input, self.callable.metadata()).await?;
        callable::run(sink, &*self.callable, inputs).await
    }
}

/// The calls of a batch, each with its way back, and the callers' ends of these.
pub(super) fn with_channels(calls: Vec<Call>) -> (Vec<(Call, Sender)>, Vec<Responses>) {
    let channels = calls.into_iter().map(|call| {
        let (sender, responses) = channel(Arc::clone(&call.context), STREAM_BUFFER);
        ((call, sender), responses)
    });
    channels.unzip()
}

/// Runs one call on the calling thread, outside of any queue: checks before a swap, `hostler predict`.
/// Needs a tokio runtime with threads of its own around it: one of them watches the deadline.
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
