//! The interfaces `callables` and `models`, through which guests of the synchronous roles call
//! models. Guest code sees blocking calls; in the host, the guest is a task that waits.
//!
//! The calls that a guest makes belong to its call into the plugin: when that ends for any reason,
//! calls that are still in flight are cancelled. Handles from an earlier call are refused.

use crate::error::{Error, FaultOwner};
use crate::plugin::bindings::{callables, models, types};
use crate::plugin::call_limit::CallLimit;
use crate::plugin::invocations::{CallAttempt, CallResult, INVOCATIONS_MAX, TARGETS_MAX, one_response};
use crate::plugin::resources::{CallableHandle, Invocation};
use crate::plugin::store_data::StoreData;
use crate::predict::{Target, Tensor};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use wasmtime::component::Resource;

type Trappable<T> = wasmtime::Result<T>;

type Lowered = std::result::Result<Vec<Resource<Tensor>>, types::Error>;

impl StoreData {
    /// Returns the tensors behind borrowed handles. Their bytes are shared, not copied.
    pub(in crate::plugin) fn borrowed(&self, handles: &[Resource<Tensor>]) -> Trappable<Vec<Tensor>> {
        handles.iter().map(|handle| Ok(self.handles.get(handle)?.clone())).collect()
    }

    /// Allows the guest of the call in progress to call `target`.
    pub(in crate::plugin) fn add_target(
        &mut self,
        target: Arc<dyn Target>,
    ) -> Trappable<Resource<CallableHandle>> {
        let key = self.next_key();
        self.call()?.calls.targets.push((key, target));
        Ok(Resource::new_own(key))
    }

    /// Returns a key that no handle in this instance has had.
    fn next_key(&mut self) -> u32 {
        self.keys_given += 1;
        self.keys_given
    }

    async fn call_within(
        &mut self,
        callable: &Resource<CallableHandle>,
        inputs: &[Resource<Tensor>],
        limit: CallLimit,
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
        limit: CallLimit,
    ) -> Trappable<std::result::Result<Resource<Invocation>, types::Error>> {
        if self.call()?.calls.invocations.len() >= INVOCATIONS_MAX {
            let message =
                format!("{INVOCATIONS_MAX} calls are already in flight; drop one before starting another");
            // This is a mistake of the guest, not an overload that the client could wait out.
            return Ok(Err(self.give_error(Error::overloaded(message).owned_by(FaultOwner::Misuse))));
        }
        let inputs = self.borrowed(inputs)?;
        let budget = Arc::clone(self.handles.held());
        let call = self.call()?;
        let target = call.calls.target(callable.rep())?;
        let attempt = match CallAttempt::start(&**target, &call.context, inputs, limit, budget) {
            Ok(attempt) => attempt,
            Err(error) => return Ok(Err(self.give_error(error))),
        };
        let key = self.next_key();
        self.call()?.calls.invocations.push((key, attempt));
        Ok(Ok(Resource::new_own(key)))
    }

    fn lower(&mut self, outcome: CallResult) -> Trappable<Lowered> {
        Ok(match outcome {
            Ok(tensors) => self.handles.push_all(tensors)?.map_err(|error| self.give_error(error)),
            Err(error) => Err(self.give_error(error)),
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
            wasmtime::bail!("wait-any would wait forever: it has neither an invocation nor a timeout");
        }
        let call = self.call()?;
        for handle in &handles {
            call.calls.attempt(handle.rep())?;
        }
        let latest = call.deadline;
        let calls = &mut call.calls;
        let first = poll_fn(|cx| {
            let mut ended = None;
            // All of them are polled, so that each can wake this wait.
            for (index, handle) in handles.iter().enumerate().rev() {
                if calls.attempt(handle.rep()).is_ok_and(|attempt| attempt.poll(cx)) {
                    ended = Some(index as u32);
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
            let message = "cannot answer the request: it was already answered, or it is an item of a batch";
            return Ok(Err(self.give_error(Error::unsupported(message))));
        };
        // The receiver may be gone; in that case the guest is stopped elsewhere.
        let _ = answer.send(tensors);
        // The task that polls this guest also sends the answer, so it must run now.
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
        StoreData::call_within(self, &callable, &inputs, CallLimit::new(None)).await
    }

    async fn call_within(
        &mut self,
        callable: Resource<CallableHandle>,
        inputs: Vec<Resource<Tensor>>,
        timeout_us: u64,
    ) -> Trappable<Lowered> {
        StoreData::call_within(self, &callable, &inputs, CallLimit::new(Some(timeout_us))).await
    }

    fn start(
        &mut self,
        callable: Resource<CallableHandle>,
        inputs: Vec<Resource<Tensor>>,
    ) -> Trappable<std::result::Result<Resource<Invocation>, types::Error>> {
        StoreData::start_within(self, &callable, &inputs, CallLimit::new(None))
    }

    fn start_within(
        &mut self,
        callable: Resource<CallableHandle>,
        inputs: Vec<Resource<Tensor>>,
        timeout_us: u64,
    ) -> Trappable<std::result::Result<Resource<Invocation>, types::Error>> {
        StoreData::start_within(self, &callable, &inputs, CallLimit::new(Some(timeout_us)))
    }

    fn drop(&mut self, _: Resource<CallableHandle>) -> Trappable<()> {
        Ok(())
    }
}

impl callables::HostInvocation for StoreData {
    fn outcome(&mut self, invocation: Resource<Invocation>) -> Trappable<Option<Lowered>> {
        let attempt = self.call()?.calls.attempt(invocation.rep())?;
        // Only a poll shows whether it has ended; this one does not need to wake anyone.
        let ended = attempt.poll(&mut Context::from_waker(Waker::noop()));
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
        // An invocation of an earlier request ended with that request.
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
            let message = "models can be called only during a request";
            return Ok(Err(self.give_error(Error::unsupported(message))));
        };
        if call.calls.targets.len() >= TARGETS_MAX {
            wasmtime::bail!("obtained more than {TARGETS_MAX} models in one call");
        }
        let plugin = Arc::clone(&self.spec.name);
        let call = self.call()?;
        match models.target(&model, version.as_deref(), &call.context, &plugin) {
            Ok(target) => self.add_target(target).map(Ok),
            Err(error) => Ok(Err(self.give_error(error))),
        }
    }
}
