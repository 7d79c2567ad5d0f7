//! The models that one call into a plugin may call, and the calls that it has made. They end with
//! the call.

use super::call_limit::CallLimit;
use crate::error::{Error, Result};
use crate::predict::{Budget, CallContext, Response, Responses, Target, Tensor};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::oneshot;

/// Maximum calls that one guest may have in flight.
pub(super) const INVOCATIONS_MAX: usize = 1024;

/// What one call into a plugin may call, and what it has called.
#[derive(Default)]
pub(super) struct InvocationTable {
    pub targets: Vec<(u32, Arc<dyn Target>)>,
    pub invocations: Vec<(u32, CallAttempt)>,
    /// Where an early answer goes; `None` if no early answer is possible.
    pub answer: Option<oneshot::Sender<Vec<Tensor>>>,
    /// The requests of a batch; empty for a single request.
    pub batch: Vec<Arc<CallContext>>,
}

/// Maximum models that one call into a plugin may look up.
pub(super) const TARGETS_MAX: usize = 1024;

pub(super) type CallResult = Result<Vec<Tensor>>;

/// A started call. Dropping it cancels the call.
pub(super) struct CallAttempt {
    now: NextState,
    limit: CallLimit,
    budget: Arc<dyn Budget>,
    /// The bytes charged for the response in `now`.
    charged: usize,
    /// The error to return where exactly one response is expected; `None` if the model returns
    /// exactly one.
    refusal: Option<Error>,
}

enum NextState {
    /// Waiting for the next response.
    Waits(Next),
    /// The next response has arrived, or the end of the responses, which is `None`.
    Has(Responses, Option<CallResult>),
    Ended,
}

type Next = Pin<Box<dyn Future<Output = (Responses, Option<CallResult>)> + Send>>;

fn next(mut responses: Responses, limit: CallLimit) -> NextState {
    NextState::Waits(Box::pin(async move {
        let next = async { responses.next().await.transpose()?.map(Response::tensors).transpose() };
        let item = limit.hold(next).await.transpose();
        (responses, item)
    }))
}

impl CallAttempt {
    pub fn start(
        target: &dyn Target,
        caller: &CallContext,
        inputs: Vec<Tensor>,
        limit: CallLimit,
        budget: Arc<dyn Budget>,
    ) -> Result<Self> {
        let responses = target.start(caller, inputs)?;
        responses.charge(Arc::clone(&budget));
        let now = next(responses, limit);
        Ok(CallAttempt { now, limit, budget, charged: 0, refusal: one_response(target).err() })
    }

    /// Returns whether a response or the end has arrived.
    pub fn poll(&mut self, task: &mut Context<'_>) -> bool {
        if let NextState::Waits(work) = &mut self.now
            && let Poll::Ready((responses, mut item)) = work.as_mut().poll(task)
        {
            if let Some(Ok(tensors)) = &item {
                let bytes = Tensor::bytes_kept(tensors);
                match self.budget.charge(bytes) {
                    Ok(()) => self.charged = bytes,
                    Err(error) => item = Some(Err(error)),
                }
            }
            self.now = NextState::Has(responses, item);
        }
        !matches!(self.now, NextState::Waits(_))
    }

    /// Takes what has arrived and releases its charge: from now on the caller accounts for it.
    fn take(&mut self) -> NextState {
        self.budget.release(std::mem::take(&mut self.charged));
        std::mem::replace(&mut self.now, NextState::Ended)
    }

    /// Returns the outcome of a call that [`poll`](Self::poll) has reported as ended; `None` if it
    /// was taken before.
    pub fn outcome(&mut self) -> Option<CallResult> {
        if let (Some(refusal), false) = (&self.refusal, matches!(self.now, NextState::Ended)) {
            let refusal = refusal.clone();
            self.take();
            return Some(Err(refusal));
        }
        match self.take() {
            NextState::Has(_, item) => {
                Some(item.unwrap_or_else(|| Err(Error::failed("the model returned no response"))))
            }
            _ => None,
        }
    }

    pub async fn next(&mut self) -> Option<CallResult> {
        poll_fn(|cx| if self.poll(cx) { Poll::Ready(()) } else { Poll::Pending }).await;
        match self.take() {
            NextState::Has(responses, Some(Ok(tensors))) => {
                self.now = next(responses, self.limit);
                Some(Ok(tensors))
            }
            NextState::Has(_, item) => item,
            _ => None,
        }
    }
}

impl Drop for CallAttempt {
    fn drop(&mut self) {
        self.take();
    }
}

/// Refuses a streaming model where exactly one response is expected.
pub(super) fn one_response(target: &dyn Target) -> Result<()> {
    if !target.is_streaming() {
        return Ok(());
    }
    Err(Error::unsupported(format!(
        "model \"{}:{}\" returns any number of responses; start a call and read its responses one at a time",
        target.model(),
        target.version()
    )))
}

impl InvocationTable {
    pub fn target(&self, handle: u32) -> wasmtime::Result<&Arc<dyn Target>> {
        self.targets
            .iter()
            .find(|(key, _)| *key == handle)
            .map(|(_, target)| target)
            .ok_or_else(|| wasmtime::Error::msg("used a callable of an earlier request"))
    }

    pub fn attempt(&mut self, handle: u32) -> wasmtime::Result<&mut CallAttempt> {
        self.invocations
            .iter_mut()
            .find(|(key, _)| *key == handle)
            .map(|(_, attempt)| attempt)
            .ok_or_else(|| wasmtime::Error::msg("used an invocation of an earlier request"))
    }
}
