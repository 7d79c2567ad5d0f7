//! The callable of a plugin with the role `model`.

use super::callable::{BoxFuture, CallProfile, Callable};
use super::sink::Sink;
use crate::error::Result;
use crate::plugin::PluginModel;
use crate::predict::{Announced, CallContext, Metadata, Tensor, check_outputs};
use std::any::Any;
use std::sync::Arc;

pub struct PluginCallable(pub Arc<PluginModel>);

impl PluginCallable {
    /// Whether two callables are the same plugin.
    pub fn are_same(one: &dyn Callable, other: &dyn Callable) -> bool {
        let of = |callable: &dyn Callable| {
            callable.as_any().downcast_ref::<PluginCallable>().map(|callable| Arc::clone(&callable.0))
        };
        of(one).zip(of(other)).is_some_and(|(one, other)| Arc::ptr_eq(&one, &other))
    }
}

impl Callable for PluginCallable {
    fn metadata(&self) -> &Metadata {
        self.0.metadata()
    }

    fn reads_request(&self) -> bool {
        true
    }

    fn profile(&self) -> CallProfile {
        if self.0.waits() { CallProfile::Suspending } else { CallProfile::Computing }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn call<'a>(
        &'a self,
        context: &'a Arc<CallContext>,
        inputs: Vec<Tensor>,
        _sink: &'a mut Sink,
    ) -> BoxFuture<'a, Result<Option<Vec<Tensor>>>> {
        Box::pin(async move {
            let outputs = self.0.predict(context, inputs).await?;
            check_outputs(self.0.name(), Announced::ByPlugin, self.metadata(), &outputs)?;
            Ok(Some(outputs))
        })
    }
}
