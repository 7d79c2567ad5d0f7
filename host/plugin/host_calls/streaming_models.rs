//! The interface `models` of `hostler:concurrent`, through which streaming models call other
//! models.
//!
//! A callable and its calls belong to the request that the callable was obtained for, and end with
//! it even if the guest keeps the handles.

use super::streaming::current;
use crate::error::Error;
use crate::plugin::bindings::{concurrent_models as models, types};
use crate::plugin::call_limit::CallLimit;
use crate::plugin::retained::InstanceRetained;
use crate::plugin::store_data::StoreData;
use crate::plugin::streaming::ActiveCall;
use crate::plugin::streaming::model_handles::{CallableHandle, Invocation};
use crate::predict::{Budget, Response, Tensor};
use std::sync::Arc;
use wasmtime::component::{Access, Accessor, HasSelf, Resource};

type Trappable<T> = wasmtime::Result<T>;
type Lowered<T> = std::result::Result<T, types::Error>;

/// Adds handles of the tensors that a call has returned.
fn lowered(
    state: &mut StoreData,
    caller: &ActiveCall,
    tensors: Vec<Tensor>,
) -> Trappable<Lowered<Vec<Resource<Tensor>>>> {
    Ok(state.handles.push_all(tensors)?.map_err(|error| caller.record_error(error)))
}

/// Returns the budget of the instance, for responses that wait to be read.
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
            let error = Error::unsupported("models can be called only during a request");
            return Ok(Err(access.get().give_error(error)));
        };
        let Some(models) = &caller.context.models else {
            return Ok(Err(caller.record_error(Error::unsupported("this request cannot call models"))));
        };
        let plugin = Arc::clone(&access.get().spec.name);
        match models.target(&model, version.as_deref(), &caller.context, &plugin) {
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
        let resolved = self.handles.other(&callable)?.live();
        let inputs = self.borrowed(&inputs)?;
        let (target, caller) = match resolved {
            Ok(resolved) => resolved,
            Err(error) => return Ok(Err(self.give_error(error))),
        };
        let responses = match target.start(&caller.context, inputs) {
            Ok(responses) => responses,
            Err(error) => return Ok(Err(caller.record_error(error))),
        };
        responses.charge(budget(self));
        let running = Arc::new(tokio::sync::Mutex::new(Some(responses)));
        caller.calls(&running);
        let (caller, limit) = (Arc::downgrade(&caller), CallLimit::new(timeout_us));
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
        let (resolved, inputs, budget) = accessor.with(|mut access| -> Trappable<_> {
            let state = access.get();
            Ok((state.handles.other(&callable)?.live(), state.borrowed(&inputs)?, budget(state)))
        })?;
        let (target, caller) = match resolved {
            Ok(resolved) => resolved,
            Err(error) => return Ok(Err(accessor.with(|mut access| access.get().give_error(error)))),
        };
        let answer = async {
            if target.is_streaming() {
                let (model, version) = (target.model(), target.version());
                let message = format!(
                    "model \"{model}:{version}\" returns any number of responses; start a call and read its responses \
                     one at a time"
                );
                return Err(Error::unsupported(message));
            }
            let mut responses = target.start(&caller.context, inputs)?;
            responses.charge(budget);
            responses.one().await.and_then(Response::tensors)
        };
        let outcome = caller.wait(CallLimit::new(timeout_us).hold(answer)).await.and_then(|outcome| outcome);
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
        // The invocation ended with its request.
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
