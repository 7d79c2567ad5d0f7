//! How plugins whose calls wait side by side call models: the interface `models` of `hostler:concurrent`.
//!
//! What is called belongs to the request that it was asked for and ends with it, whatever becomes of its handle.

use super::active_call::ActiveCall;
use super::host_calls::current;
use crate::error::{Error, Kind, Result};
use crate::plugin::bindings::{concurrent_models as models, types};
use crate::plugin::retained::InstanceRetained;
use crate::plugin::store_data::StoreData;
use crate::predict::{Budget, Response, Responses, Target, Tensor};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use wasmtime::component::{Access, Accessor, HasSelf, Resource};

/// A model, for the request that it was asked for. What a guest keeps of it after that request keeps nothing alive:
/// neither the request nor the policy that the model is a part of.
pub struct CallableHandle {
    model: Box<str>,
    version: Box<str>,
    streaming: bool,
    target: Weak<dyn Target>,
    caller: Weak<ActiveCall>,
}

impl CallableHandle {
    fn new(target: Arc<dyn Target>, caller: &Arc<ActiveCall>) -> Self {
        let callable = CallableHandle {
            model: target.model().into(),
            version: target.version().into(),
            streaming: target.is_streaming(),
            target: Arc::downgrade(&target),
            caller: Arc::downgrade(caller),
        };
        caller.remember_task(target);
        callable
    }

    /// The model, and the request that is still answered.
    fn live(&self) -> Result<(Arc<dyn Target>, Arc<ActiveCall>)> {
        self.target.upgrade().zip(self.caller.upgrade()).ok_or_else(|| {
            let CallableHandle { model, version, .. } = self;
            Error::cancelled(format!(
                "model \"{model}:{version}\": the request that it was to be called for has ended"
            ))
        })
    }
}

/// A call under way.
#[derive(Clone)]
pub struct Invocation {
    running: Arc<RunningCall>,
    caller: Weak<ActiveCall>,
    limit: Limit,
}

/// The responses of a call under way; none once it has ended.
pub(super) type RunningCall = tokio::sync::Mutex<Option<Responses>>;

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

/// Handles of what a call has given.
fn lowered(
    state: &mut StoreData,
    caller: &ActiveCall,
    tensors: Vec<Tensor>,
) -> Trappable<Lowered<Vec<Resource<Tensor>>>> {
    Ok(state.handles.push_all(tensors)?.map_err(|error| caller.record_error(error)))
}

/// The budget of the instance, for responses that wait.
fn budget(state: &StoreData) -> Arc<dyn Budget> {
    Arc::<InstanceRetained>::clone(state.handles.held())
}

impl models::Host for StoreData {}

impl<T: Send + 'static> models::HostWithStore<T> for HasSelf<StoreData> {
    fn get(
        mut access: Access<'_, T, Self>,
        model: String,
        version: Option<String>,
    ) -> Trappable<Lowered<Resource<CallableHandle>>> {
        let caller = current(&mut access)?;
        let Some(caller) = caller.call() else {
            let error = Error::unsupported("models can be called while a request is answered");
            return Ok(Err(access.get().hand(error)));
        };
        let Some(models) = &caller.context.models else {
            return Ok(Err(caller.record_error(Error::unsupported("this request can call no models"))));
        };
        match models.target(&model, version.as_deref(), &caller.context) {
            Ok(target) => Ok(Ok(access.get().handles.table().push(CallableHandle::new(target, &caller))?)),
            Err(error) => Ok(Err(caller.record_error(error))),
        }
    }
}

impl models::HostCallable for StoreData {
    fn model(&mut self, callable: Resource<CallableHandle>) -> Trappable<String> {
        Ok(self.handles.other(&callable)?.model.to_string())
    }

    fn version(&mut self, callable: Resource<CallableHandle>) -> Trappable<String> {
        Ok(self.handles.other(&callable)?.version.to_string())
    }

    fn streaming(&mut self, callable: Resource<CallableHandle>) -> Trappable<bool> {
        Ok(self.handles.other(&callable)?.streaming)
    }

    fn start(
        &mut self,
        callable: Resource<CallableHandle>,
        inputs: Vec<Resource<Tensor>>,
        timeout_us: Option<u64>,
    ) -> Trappable<Lowered<Resource<Invocation>>> {
        let live = self.handles.other(&callable)?.live();
        let inputs = self.borrowed(&inputs)?;
        let (target, caller) = match live {
            Ok(live) => live,
            Err(error) => return Ok(Err(self.hand(error))),
        };
        let responses = match target.start(&caller.context, inputs) {
            Ok(responses) => responses,
            Err(error) => return Ok(Err(caller.record_error(error))),
        };
        responses.charge(budget(self));
        let running = Arc::new(RunningCall::new(Some(responses)));
        caller.calls(&running);
        let (caller, limit) = (Arc::downgrade(&caller), Limit::new(timeout_us));
        Ok(Ok(self.handles.table().push(Invocation { running, caller, limit })?))
    }

    fn drop(&mut self, callable: Resource<CallableHandle>) -> Trappable<()> {
        let CallableHandle { target, caller, .. } = self.handles.table().delete(callable)?;
        if let Some(caller) = caller.upgrade() {
            caller.forget(&target);
        }
        Ok(())
    }
}

impl<T: Send + 'static> models::HostCallableWithStore<T> for HasSelf<StoreData> {
    async fn call(
        accessor: &Accessor<T, Self>,
        callable: Resource<CallableHandle>,
        inputs: Vec<Resource<Tensor>>,
        timeout_us: Option<u64>,
    ) -> Trappable<Lowered<Vec<Resource<Tensor>>>> {
        let (live, inputs, budget) = accessor.with(|mut access| -> Trappable<_> {
            let state = access.get();
            Ok((state.handles.other(&callable)?.live(), state.borrowed(&inputs)?, budget(state)))
        })?;
        let (target, caller) = match live {
            Ok(live) => live,
            Err(error) => return Ok(Err(accessor.with(|mut access| access.get().hand(error)))),
        };
        let answer = async {
            if target.is_streaming() {
                let (model, version) = (target.model(), target.version());
                let message =
                    format!("model \"{model}:{version}\" gives any number of responses; start a call");
                return Err(Error::unsupported(message));
            }
            let mut responses = target.start(&caller.context, inputs)?;
            responses.charge(budget);
            responses.one().await.and_then(Response::tensors)
        };
        let outcome = caller.wait(Limit::new(timeout_us).hold(answer)).await.and_then(|outcome| outcome);
        match outcome {
            Ok(tensors) => accessor.with(|mut access| lowered(access.get(), &caller, tensors)),
            Err(error) => Ok(Err(caller.record_error(error))),
        }
    }
}

impl models::HostInvocation for StoreData {
    fn drop(&mut self, invocation: Resource<Invocation>) -> Trappable<()> {
        self.handles.table().delete(invocation)?;
        Ok(())
    }
}

impl<T: Send + 'static> models::HostInvocationWithStore<T> for HasSelf<StoreData> {
    async fn next(
        accessor: &Accessor<T, Self>,
        invocation: Resource<Invocation>,
    ) -> Trappable<Option<Lowered<Vec<Resource<Tensor>>>>> {
        let invocation = accessor.with(|mut access| access.get().handles.other(&invocation).cloned())?;
        let Invocation { running, caller, limit } = invocation;
        // The call has ended with its request.
        let Some(caller) = caller.upgrade() else { return Ok(None) };
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
                accessor.with(|mut access| lowered(access.get(), &caller, tensors)).map(Some)
            }
            Some(Err(error)) => Ok(Some(Err(caller.record_error(error)))),
        }
    }
}
