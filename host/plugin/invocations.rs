//! How a guest calls models: the interfaces `callables` and `models`. It is written as if it blocked; the guest is a
//! task that waits.
//!
//! What a guest has called belongs to its call into the plugin: when that ends, in whatever way, calls
//! that are still under way are cancelled. Handles of an earlier call lead nowhere.

use super::bindings::{callables, models, types};
use super::store_data::StoreData;
use super::streaming::Limit;
use crate::error::{Error, FaultOwner, Result};
use crate::predict::{Budget, CallContext, Response, Responses, Target, Tensor};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use wasmtime::component::Resource;

/// The handle of a model; its number is the key in `Calls::targets`.
pub struct CallableHandle;

/// The handle of a call under way; its number is the key in `Calls::invocations`.
pub struct Invocation;

/// Calls that one guest may have under way at once.
const INVOCATIONS_MAX: usize = 1024;

/// What one call into a plugin may call, and what it has called.
#[derive(Default)]
pub(super) struct InvocationTable {
    targets: Vec<(u32, Arc<dyn Target>)>,
    invocations: Vec<(u32, CallAttempt)>,
    /// Where an early answer goes; none where there can be none.
    pub answer: Option<oneshot::Sender<Vec<Tensor>>>,
    /// The requests of a batch; none for a single one.
    pub batch: Vec<Arc<CallContext>>,
}

/// Models that one call into a plugin may ask for.
const TARGETS_MAX: usize = 1024;

type CallResult = Result<Vec<Tensor>>;

/// A started call. Dropping it cancels.
struct CallAttempt {
    now: NextState,
    limit: Limit,
    budget: Arc<dyn Budget>,
    /// What the response in `now` is charged with.
    charged: usize,
    /// What to say where there is room for one response only; none if there is only one.
    refusal: Option<Error>,
}

enum NextState {
    /// For the next response.
    Waits(Next),
    /// It is there; or the end is.
    Has(Responses, Option<CallResult>),
    Ended,
}

type Next = Pin<Box<dyn Future<Output = (Responses, Option<CallResult>)> + Send>>;

fn next(mut responses: Responses, limit: Limit) -> NextState {
    NextState::Waits(Box::pin(async move {
        let next = async { responses.next().await.transpose()?.map(Response::tensors).transpose() };
        let item = limit.hold(next).await.transpose();
        (responses, item)
    }))
}

impl CallAttempt {
    fn start(
        target: &dyn Target,
        caller: &CallContext,
        inputs: Vec<Tensor>,
        limit: Limit,
        budget: Arc<dyn Budget>,
    ) -> Result<Self> {
        let responses = target.start(caller, inputs)?;
        responses.charge(Arc::clone(&budget));
        let now = next(responses, limit);
        Ok(CallAttempt { now, limit, budget, charged: 0, refusal: one_response(target).err() })
    }

    /// Whether it has a response or has ended.
    fn poll(&mut self, task: &mut Task<'_>) -> bool {
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

    /// Once it has ended; then it has been asked.
    fn outcome(&mut self) -> Option<CallResult> {
        if let (Some(refusal), false) = (&self.refusal, matches!(self.now, NextState::Ended)) {
            let refusal = refusal.clone();
            self.take();
            return Some(Err(refusal));
        }
        match self.take() {
            NextState::Has(_, item) => {
                Some(item.unwrap_or_else(|| Err(Error::failed("the model gave no response"))))
            }
            _ => None,
        }
    }

    async fn next(&mut self) -> Option<CallResult> {
        poll_fn(|task| if self.poll(task) { Poll::Ready(()) } else { Poll::Pending }).await;
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

/// Refuses a model with any number of responses, where there is room for one only.
fn one_response(target: &dyn Target) -> Result<()> {
    if !target.is_streaming() {
        return Ok(());
    }
    Err(Error::unsupported(format!(
        "model \"{}:{}\" gives any number of responses; start a call and ask it for one after the other",
        target.model(),
        target.version()
    )))
}

impl InvocationTable {
    fn target(&self, handle: u32) -> wasmtime::Result<&Arc<dyn Target>> {
        self.targets
            .iter()
            .find(|(key, _)| *key == handle)
            .map(|(_, target)| target)
            .ok_or_else(|| wasmtime::Error::msg("used a callable of an earlier request"))
    }

    fn attempt(&mut self, handle: u32) -> wasmtime::Result<&mut CallAttempt> {
        self.invocations
            .iter_mut()
            .find(|(key, _)| *key == handle)
            .map(|(_, attempt)| attempt)
            .ok_or_else(|| wasmtime::Error::msg("used an invocation of an earlier request"))
    }
}

type Trappable<T> = wasmtime::Result<T>;
type Lowered = std::result::Result<Vec<Resource<Tensor>>, types::Error>;

impl StoreData {
    /// The tensors behind borrowed handles; their bytes are shared.
    pub(super) fn borrowed(&self, handles: &[Resource<Tensor>]) -> Trappable<Vec<Tensor>> {
        handles.iter().map(|handle| Ok(self.handles.get(handle)?.clone())).collect()
    }

    /// Lets the guest of the call in progress call `target`.
    pub(super) fn give(&mut self, target: Arc<dyn Target>) -> Trappable<Resource<CallableHandle>> {
        let key = self.next_key();
        self.call()?.calls.targets.push((key, target));
        Ok(Resource::new_own(key))
    }

    /// A key that no handle in this instance has had.
    fn next_key(&mut self) -> u32 {
        self.keys_given += 1;
        self.keys_given
    }

    async fn call_within(
        &mut self,
        callable: &Resource<CallableHandle>,
        inputs: &[Resource<Tensor>],
        limit: Limit,
    ) -> Trappable<Lowered> {
        let inputs = self.borrowed(inputs)?;
        let call = self.call()?;
        let target = call.calls.target(callable.rep())?;
        let until = limit.until.map_or(call.deadline, |until| until.min(call.deadline));
        let outcome = match one_response(&**target) {
            Ok(()) => limit.hold(target.call(&call.context, inputs, until)).await,
            Err(error) => Err(error),
        };
        self.lower(outcome)
    }

    fn start_within(
        &mut self,
        callable: &Resource<CallableHandle>,
        inputs: &[Resource<Tensor>],
        limit: Limit,
    ) -> Trappable<std::result::Result<Resource<Invocation>, types::Error>> {
        if self.call()?.calls.invocations.len() >= INVOCATIONS_MAX {
            let message = format!("{INVOCATIONS_MAX} calls are under way; drop some before the next one");
            // A mistake of the guest's, and no overload that the caller could wait out.
            return Ok(Err(self.hand(Error::overloaded(message).owned_by(FaultOwner::Misuse))));
        }
        let inputs = self.borrowed(inputs)?;
        let budget = Arc::clone(self.handles.held());
        let call = self.call()?;
        let target = call.calls.target(callable.rep())?;
        let attempt = match CallAttempt::start(&**target, &call.context, inputs, limit, budget) {
            Ok(attempt) => attempt,
            Err(error) => return Ok(Err(self.hand(error))),
        };
        let key = self.next_key();
        self.call()?.calls.invocations.push((key, attempt));
        Ok(Ok(Resource::new_own(key)))
    }

    fn lower(&mut self, outcome: CallResult) -> Trappable<Lowered> {
        Ok(match outcome {
            Ok(tensors) => self.handles.push_all(tensors)?.map_err(|error| self.hand(error)),
            Err(error) => Err(self.hand(error)),
        })
    }
}

impl callables::Host for StoreData {
    async fn wait_any(
        &mut self,
        handles: Vec<Resource<Invocation>>,
        timeout_us: Option<u64>,
    ) -> Trappable<Option<u32>> {
        if handles.is_empty() && timeout_us.is_none() {
            wasmtime::bail!("waits for nothing and for ever: wait-any has no invocation and no timeout");
        }
        let call = self.call()?;
        for handle in &handles {
            call.calls.attempt(handle.rep())?;
        }
        let latest = call.deadline;
        let calls = &mut call.calls;
        let first = poll_fn(|task| {
            let mut ended = None;
            // All of them are asked, so that each can wake this wait.
            for (place, handle) in handles.iter().enumerate().rev() {
                if calls.attempt(handle.rep()).is_ok_and(|attempt| attempt.poll(task)) {
                    ended = Some(place as u32);
                }
            }
            ended.map_or(Poll::Pending, Poll::Ready)
        });
        let Some(us) = timeout_us else { return Ok(Some(first.await)) };
        // No wait outlasts the call that it is part of.
        let until =
            Instant::now().checked_add(Duration::from_micros(us)).map_or(latest, |until| until.min(latest));
        Ok(tokio::time::timeout_at(until.into(), first).await.ok())
    }

    async fn answer(
        &mut self,
        handles: Vec<Resource<Tensor>>,
    ) -> Trappable<std::result::Result<(), types::Error>> {
        let tensors = self.borrowed(&handles)?;
        let Some(answer) = self.call()?.calls.answer.take() else {
            let message = "there is nobody to answer: the request was answered already, or is one of a batch";
            return Ok(Err(self.hand(Error::unsupported(message))));
        };
        // Nobody may wait any more; the guest is stopped for that elsewhere.
        let _ = answer.send(tensors);
        // The task that polls this guest also sends the answer: let it.
        tokio::task::yield_now().await;
        Ok(Ok(()))
    }
}

impl callables::HostCallable for StoreData {
    fn model(&mut self, callable: Resource<CallableHandle>) -> Trappable<String> {
        Ok(self.call()?.calls.target(callable.rep())?.model().to_owned())
    }

    fn version(&mut self, callable: Resource<CallableHandle>) -> Trappable<String> {
        Ok(self.call()?.calls.target(callable.rep())?.version().to_owned())
    }

    fn streaming(&mut self, callable: Resource<CallableHandle>) -> Trappable<bool> {
        Ok(self.call()?.calls.target(callable.rep())?.is_streaming())
    }

    async fn call(
        &mut self,
        callable: Resource<CallableHandle>,
        inputs: Vec<Resource<Tensor>>,
    ) -> Trappable<Lowered> {
        StoreData::call_within(self, &callable, &inputs, Limit::new(None)).await
    }

    async fn call_within(
        &mut self,
        callable: Resource<CallableHandle>,
        inputs: Vec<Resource<Tensor>>,
        timeout_us: u64,
    ) -> Trappable<Lowered> {
        StoreData::call_within(self, &callable, &inputs, Limit::new(Some(timeout_us))).await
    }

    fn start(
        &mut self,
        callable: Resource<CallableHandle>,
        inputs: Vec<Resource<Tensor>>,
    ) -> Trappable<std::result::Result<Resource<Invocation>, types::Error>> {
        StoreData::start_within(self, &callable, &inputs, Limit::new(None))
    }

    fn start_within(
        &mut self,
        callable: Resource<CallableHandle>,
        inputs: Vec<Resource<Tensor>>,
        timeout_us: u64,
    ) -> Trappable<std::result::Result<Resource<Invocation>, types::Error>> {
        StoreData::start_within(self, &callable, &inputs, Limit::new(Some(timeout_us)))
    }

    fn drop(&mut self, _: Resource<CallableHandle>) -> Trappable<()> {
        Ok(())
    }
}

impl callables::HostInvocation for StoreData {
    fn outcome(&mut self, invocation: Resource<Invocation>) -> Trappable<Option<Lowered>> {
        let attempt = self.call()?.calls.attempt(invocation.rep())?;
        // Whether it has ended shows only when it is asked; nobody is woken by this question.
        let ended = attempt.poll(&mut Task::from_waker(std::task::Waker::noop()));
        match ended.then(|| attempt.outcome()).flatten() {
            Some(outcome) => self.lower(outcome).map(Some),
            None => Ok(None),
        }
    }

    async fn next(&mut self, invocation: Resource<Invocation>) -> Trappable<Option<Lowered>> {
        match self.call()?.calls.attempt(invocation.rep())?.next().await {
            Some(outcome) => self.lower(outcome).map(Some),
            None => Ok(None),
        }
    }

    fn drop(&mut self, invocation: Resource<Invocation>) -> Trappable<()> {
        // One of an earlier request ended with it.
        if let Some(call) = &mut self.call {
            let key = invocation.rep();
            call.calls.invocations.retain(|(other, _)| *other != key);
        }
        Ok(())
    }
}

impl models::Host for StoreData {
    fn get(
        &mut self,
        model: String,
        version: Option<String>,
    ) -> Trappable<std::result::Result<Resource<CallableHandle>, types::Error>> {
        let call = self.call()?;
        let Some(models) = call.context.models.clone() else {
            let message = "models can be called while a request is answered";
            return Ok(Err(self.hand(Error::unsupported(message))));
        };
        if call.calls.targets.len() >= TARGETS_MAX {
            wasmtime::bail!("asked for more than {TARGETS_MAX} models in one call");
        }
        match models.target(&model, version.as_deref(), &call.context) {
            Ok(target) => self.give(target).map(Ok),
            Err(error) => Ok(Err(self.hand(error))),
        }
    }
}
