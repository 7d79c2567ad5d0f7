//! How plugins whose calls wait side by side call models: the interface `models` of `hostler:concurrent`.
//!
//! What is called belongs to the request that it was asked for and ends with it, whatever becomes of its handle.

use super::desk::InFlight;
use super::host_calls::current;
use crate::error::{Error, Kind, Result};
use crate::plugin::bindings::{concurrent_models as models, types};
use crate::plugin::state::State;
use crate::predict::{Response, Responses, Target, Tensor};
use std::sync::Arc;
use std::time::{Duration, Instant};
use wasmtime::component::{Access, Accessor, HasSelf, Resource};

/// A model, for the request that it was asked for.
#[derive(Clone)]
pub struct Callable {
    target: Arc<dyn Target>,
    caller: Arc<InFlight>,
}

/// A call under way.
#[derive(Clone)]
pub struct Invocation {
    running: Arc<Running>,
    caller: Arc<InFlight>,
    limit: Limit,
}

/// The responses of a call under way; none once it has ended.
pub(super) type Running = tokio::sync::Mutex<Option<Responses>>;

/// The time that the guest gives a call.
#[derive(Clone, Copy)]
pub(in crate::plugin) struct Limit {
    us: Option<u64>,
    pub until: Option<Instant>,
}

impl Limit {
    pub fn new(us: Option<u64>) -> Self {
        // What is too far away to be told is no limit.
        Limit { us, until: us.and_then(|us| Instant::now().checked_add(Duration::from_micros(us))) }
    }

    pub async fn hold<T>(self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let Some(until) = self.until else { return work.await };
        match tokio::time::timeout_at(until.into(), work).await {
            // What is called may know of the limit, and notice it first.
            Ok(Err(error)) if error.kind() == Kind::Deadline && Instant::now() >= until => {}
            Ok(outcome) => return outcome,
            Err(_) => {}
        }
        let us = self.us.unwrap_or_default();
        Err(Error::deadline(format!("the model has not answered within {us} us")))
    }
}

type Trappable<T> = wasmtime::Result<T>;
type Lowered<T> = std::result::Result<T, types::Error>;

impl State {
    fn push_all(&mut self, tensors: Vec<Tensor>) -> Trappable<Vec<Resource<Tensor>>> {
        tensors.into_iter().map(|tensor| Ok(self.table.push(tensor)?)).collect()
    }
}

impl models::Host for State {}

impl<T: Send + 'static> models::HostWithStore<T> for HasSelf<State> {
    fn get(
        mut access: Access<'_, T, Self>,
        model: String,
        version: Option<String>,
    ) -> Trappable<Lowered<Resource<Callable>>> {
        let caller = current(&mut access)?;
        let Some(caller) = caller.call() else {
            let error = Error::unsupported("models can be called while a request is answered");
            return Ok(Err(access.get().hand(error)));
        };
        let Some(models) = &caller.context.models else {
            return Ok(Err(caller.hand(Error::unsupported("this request can call no models"))));
        };
        match models.target(&model, version.as_deref(), &caller.context) {
            Ok(target) => Ok(Ok(access.get().table.push(Callable { target, caller })?)),
            Err(error) => Ok(Err(caller.hand(error))),
        }
    }
}

impl models::HostCallable for State {
    fn model(&mut self, callable: Resource<Callable>) -> Trappable<String> {
        Ok(self.table.get(&callable)?.target.model().to_owned())
    }

    fn version(&mut self, callable: Resource<Callable>) -> Trappable<String> {
        Ok(self.table.get(&callable)?.target.version().to_owned())
    }

    fn streaming(&mut self, callable: Resource<Callable>) -> Trappable<bool> {
        Ok(self.table.get(&callable)?.target.is_streaming())
    }

    fn start(
        &mut self,
        callable: Resource<Callable>,
        inputs: Vec<Resource<Tensor>>,
        timeout_us: Option<u64>,
    ) -> Trappable<Lowered<Resource<Invocation>>> {
        let Callable { target, caller } = self.table.get(&callable)?.clone();
        let inputs = self.borrowed(&inputs)?;
        let responses = match target.start(&caller.context, inputs) {
            Ok(responses) => responses,
            Err(error) => return Ok(Err(caller.hand(error))),
        };
        let running = Arc::new(Running::new(Some(responses)));
        caller.calls(&running);
        Ok(Ok(self.table.push(Invocation { running, caller, limit: Limit::new(timeout_us) })?))
    }

    fn drop(&mut self, callable: Resource<Callable>) -> Trappable<()> {
        self.table.delete(callable)?;
        Ok(())
    }
}

impl<T: Send + 'static> models::HostCallableWithStore<T> for HasSelf<State> {
    async fn call(
        accessor: &Accessor<T, Self>,
        callable: Resource<Callable>,
        inputs: Vec<Resource<Tensor>>,
        timeout_us: Option<u64>,
    ) -> Trappable<Lowered<Vec<Resource<Tensor>>>> {
        let (Callable { target, caller }, inputs) = accessor.with(|mut access| -> Trappable<_> {
            let state = access.get();
            Ok((state.table.get(&callable)?.clone(), state.borrowed(&inputs)?))
        })?;
        let answer = async {
            if target.is_streaming() {
                let (model, version) = (target.model(), target.version());
                let message =
                    format!("model \"{model}:{version}\" gives any number of responses; start a call");
                return Err(Error::unsupported(message));
            }
            target.start(&caller.context, inputs)?.one().await.and_then(Response::tensors)
        };
        let outcome = caller.wait(Limit::new(timeout_us).hold(answer)).await.and_then(|outcome| outcome);
        match outcome {
            Ok(tensors) => accessor.with(|mut access| access.get().push_all(tensors)).map(Ok),
            Err(error) => Ok(Err(caller.hand(error))),
        }
    }
}

impl models::HostInvocation for State {
    fn drop(&mut self, invocation: Resource<Invocation>) -> Trappable<()> {
        self.table.delete(invocation)?;
        Ok(())
    }
}

impl<T: Send + 'static> models::HostInvocationWithStore<T> for HasSelf<State> {
    async fn next(
        accessor: &Accessor<T, Self>,
        invocation: Resource<Invocation>,
    ) -> Trappable<Option<Lowered<Vec<Resource<Tensor>>>>> {
        let invocation = accessor.with(|mut access| access.get().table.get(&invocation).cloned())?;
        let Invocation { running, caller, limit } = invocation;
        let next = async {
            let mut running = running.lock().await;
            let Some(responses) = &mut *running else { return Ok(None) };
            let next = responses.next().await.transpose();
            if !matches!(next, Ok(Some(_))) {
                *running = None;
            }
            next?.map(Response::tensors).transpose()
        };
        let outcome = caller.wait(limit.hold(next)).await.and_then(|outcome| outcome);
        if outcome.is_err()
            && let Ok(mut running) = running.try_lock()
        {
            *running = None;
        }
        match outcome.transpose() {
            None => Ok(None),
            Some(Ok(tensors)) => {
                accessor.with(|mut access| access.get().push_all(tensors)).map(|all| Some(Ok(all)))
            }
            Some(Err(error)) => Ok(Some(Err(caller.hand(error)))),
        }
    }
}
