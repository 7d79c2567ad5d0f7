//! Handles of streaming models to other models and to calls of them. Plain data: the host calls on
//! them are in `host_calls`.

use super::active_call::{ActiveCall, RunningCall};
use crate::error::{Error, Result};
use crate::plugin::call_limit::CallLimit;
use crate::predict::Target;
use std::sync::{Arc, Weak};

/// A model, for the request that it was obtained for. If a guest keeps the handle after that
/// request, it keeps neither the request alive nor the policy that the model is a part of.
pub struct CallableHandle {
    pub model: Box<str>,
    pub version: Box<str>,
    pub streaming: bool,
    pub target: Weak<dyn Target>,
    pub caller: Weak<ActiveCall>,
}

impl CallableHandle {
    pub fn new(target: Arc<dyn Target>, caller: &Arc<ActiveCall>) -> Self {
        let callable = CallableHandle {
            model: target.model().into(),
            version: target.version().into(),
            streaming: target.is_streaming(),
            target: Arc::downgrade(&target),
            caller: Arc::downgrade(caller),
        };
        caller.keep_target(target);
        callable
    }

    /// Returns the model and the call that it was obtained for. Fails if that call has ended.
    pub fn live(&self) -> Result<(Arc<dyn Target>, Arc<ActiveCall>)> {
        self.target.upgrade().zip(self.caller.upgrade()).ok_or_else(|| {
            let CallableHandle { model, version, .. } = self;
            Error::cancelled(format!("model \"{model}:{version}\": the request that obtained it has ended"))
        })
    }
}

/// A call in flight.
#[derive(Clone)]
pub struct Invocation {
    pub running: Arc<RunningCall>,
    pub caller: Weak<ActiveCall>,
    pub limit: CallLimit,
}
