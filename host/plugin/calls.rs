//! How a guest calls models: the interfaces `callables` and `models`.
//!
//! What a guest has called belongs to its call into the plugin: when that ends, in whatever way, calls
//! that are still under way are cancelled. Handles of an earlier call lead nowhere.

use super::bindings::{callables, models, types};
use super::state::State;
use crate::error::{Error, Kind, Result};
use crate::predict::{Context, Response, Target, Tensor};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use wasmtime::component::Resource;

/// The handle of a model; its number is the key in `Calls::targets`.
pub struct Callable;

/// The handle of a call under way; its number is the key in `Calls::invocations`.
pub struct Invocation;

/// Calls that one guest may have under way at once.
const INVOCATIONS_MAX: usize = 1024;

/// What one call into a plugin may call, and what it has called.
#[derive(Default)]
pub(super) struct Calls {
    targets: Vec<(u32, Arc<dyn Target>)>,
    invocations: Vec<(u32, Attempt)>,
    /// Where an early answer goes; none where there can be none.
    pub answer: Option<oneshot::Sender<Vec<Tensor>>>,
    /// The requests of a batch; none for a single one.
    pub batch: Vec<Arc<Context>>,
}

/// Models that one call into a plugin may ask for.
const TARGETS_MAX: usize = 1024;

type Outcome = Result<Vec<Tensor>>;

/// A started call. Dropping it cancels.
enum Attempt {
    Running(Pin<Box<dyn Future<Output = Outcome> + Send>>),
    Ended(Outcome),
    Asked,
}

impl Attempt {
    /// Whether it has ended.
    fn poll(&mut self, task: &mut Task<'_>) -> bool {
        if let Attempt::Running(work) = self
            && let Poll::Ready(outcome) = work.as_mut().poll(task)
        {
            *self = Attempt::Ended(outcome);
        }
        !matches!(self, Attempt::Running(_))
    }
}

impl Calls {
    fn target(&self, handle: u32) -> wasmtime::Result<&Arc<dyn Target>> {
        self.targets
            .iter()
            .find(|(key, _)| *key == handle)
            .map(|(_, target)| target)
            .ok_or_else(|| wasmtime::Error::msg("used a callable of an earlier request"))
    }

    fn attempt(&mut self, handle: u32) -> wasmtime::Result<&mut Attempt> {
        self.invocations
            .iter_mut()
            .find(|(key, _)| *key == handle)
            .map(|(_, attempt)| attempt)
            .ok_or_else(|| wasmtime::Error::msg("used an invocation of an earlier request"))
    }
}

type Trappable<T> = wasmtime::Result<T>;
type Lowered = std::result::Result<Vec<Resource<Tensor>>, types::Error>;

impl State {
    /// The tensors behind borrowed handles; their bytes are shared.
    pub(super) fn borrowed(&self, handles: &[Resource<Tensor>]) -> Trappable<Vec<Tensor>> {
        handles.iter().map(|handle| Ok(self.table.get(handle)?.clone())).collect()
    }

    /// Lets the guest of the call in progress call `target`.
    pub(super) fn give(&mut self, target: Arc<dyn Target>) -> Trappable<Resource<Callable>> {
        let key = self.next_key();
        self.call()?.calls.targets.push((key, target));
        Ok(Resource::new_own(key))
    }

    /// A key that no handle in this instance has had.
    fn next_key(&mut self) -> u32 {
        self.keys_given += 1;
        self.keys_given
    }

    fn lower(&mut self, outcome: Outcome) -> Trappable<Lowered> {
        Ok(match outcome {
            Ok(tensors) => Ok(tensors
                .into_iter()
                .map(|tensor| Ok(self.table.push(tensor)?))
                .collect::<Trappable<_>>()?),
            Err(error) => Err(error.into()),
        })
    }
}

impl callables::Host for State {
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
            return Ok(Err(Error::new(Kind::Unsupported, message).into()));
        };
        // Nobody may wait any more; the guest is stopped for that elsewhere.
        let _ = answer.send(tensors);
        // The task that polls this guest also sends the answer: let it.
        tokio::task::yield_now().await;
        Ok(Ok(()))
    }
}

impl callables::HostCallable for State {
    fn model(&mut self, callable: Resource<Callable>) -> Trappable<String> {
        Ok(self.call()?.calls.target(callable.rep())?.model().to_owned())
    }

    fn version(&mut self, callable: Resource<Callable>) -> Trappable<String> {
        Ok(self.call()?.calls.target(callable.rep())?.version().to_owned())
    }

    async fn call(
        &mut self,
        callable: Resource<Callable>,
        inputs: Vec<Resource<Tensor>>,
    ) -> Trappable<Lowered> {
        let inputs = self.borrowed(&inputs)?;
        let call = self.call()?;
        let outcome = call.calls.target(callable.rep())?.call(&call.context, inputs).await;
        self.lower(outcome)
    }

    fn start(
        &mut self,
        callable: Resource<Callable>,
        inputs: Vec<Resource<Tensor>>,
    ) -> Trappable<std::result::Result<Resource<Invocation>, types::Error>> {
        if self.call()?.calls.invocations.len() >= INVOCATIONS_MAX {
            let message = format!("{INVOCATIONS_MAX} calls are under way; drop some before the next one");
            return Ok(Err(Error::overloaded(message).into()));
        }
        let inputs = self.borrowed(&inputs)?;
        let call = self.call()?;
        let mut responses = match call.calls.target(callable.rep())?.start(&call.context, inputs) {
            Ok(responses) => responses,
            Err(error) => return Ok(Err(error.into())),
        };
        let work = Box::pin(async move { responses.one().await.and_then(Response::tensors) });
        let key = self.next_key();
        self.call()?.calls.invocations.push((key, Attempt::Running(work)));
        Ok(Ok(Resource::new_own(key)))
    }

    fn drop(&mut self, _: Resource<Callable>) -> Trappable<()> {
        Ok(())
    }
}

impl callables::HostInvocation for State {
    fn outcome(&mut self, invocation: Resource<Invocation>) -> Trappable<Option<Lowered>> {
        let attempt = self.call()?.calls.attempt(invocation.rep())?;
        // Whether it has ended shows only when it is asked; nobody is woken by this question.
        let ended = attempt.poll(&mut Task::from_waker(std::task::Waker::noop()));
        match ended.then(|| std::mem::replace(attempt, Attempt::Asked)) {
            Some(Attempt::Ended(outcome)) => self.lower(outcome).map(Some),
            _ => Ok(None),
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

impl models::Host for State {
    fn get(
        &mut self,
        model: String,
        version: Option<String>,
    ) -> Trappable<std::result::Result<Resource<Callable>, types::Error>> {
        let call = self.call()?;
        let Some(models) = call.context.models.clone() else {
            let message = "models can be called while a request is answered, by plugins in the role executor";
            return Ok(Err(Error::new(Kind::Unsupported, message).into()));
        };
        if call.calls.targets.len() >= TARGETS_MAX {
            wasmtime::bail!("asked for more than {TARGETS_MAX} models in one call");
        }
        match models.target(&model, version.as_deref(), &call.context) {
            Ok(target) => self.give(target).map(Ok),
            Err(error) => Ok(Err(error.into())),
        }
    }
}
