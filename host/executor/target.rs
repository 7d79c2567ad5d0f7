//! A model on its executor, as plugins and pipelines call it.

use super::batching::Batching;
use super::call::{Call, Precedence};
use super::callable::{CallProfile, Callable};
use super::runs::Runs;
use super::scheduler::{InlineCall, WorkerLease, inline_lease, owned_worker};
use super::traits::Executor;
use crate::error::{Error, Result};
use crate::predict::{CallContext, Outputs, Payload, Responses, Target, Tensor, check_inputs, explain_check};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub struct ModelTarget {
    pub model: Arc<str>,
    pub version: Arc<str>,
    pub executor: Arc<dyn Executor>,
    pub callable: Arc<dyn Callable>,
    pub batching: Option<Batching>,
    /// Counts the model's runs.
    pub runs: Option<Arc<Runs>>,
    /// The model's own timeout, if it has one.
    pub timeout: Option<Duration>,
    /// Whether the caller is a custom executor's plugin, and this is the model behind it.
    pub is_inner: bool,
    /// The precedence of the model's calls: whether they belong to started work.
    pub precedence: Precedence,
}

impl Target for ModelTarget {
    fn model(&self) -> &str {
        &self.model
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn is_streaming(&self) -> bool {
        self.callable.metadata().streaming
    }

    fn start(&self, caller: &CallContext, inputs: Vec<Tensor>) -> Result<Responses> {
        self.executor.submit(self.admitted(caller, inputs, None)?).map_err(|error| self.refused(error))
    }

    fn call<'a>(&'a self, caller: &'a CallContext, inputs: Vec<Tensor>, until: Instant) -> Outputs<'a> {
        let profile = self.callable.profile();
        let is_shared = profile == CallProfile::Shared;
        if matches!(profile, CallProfile::Shared | CallProfile::Suspending)
            && let Some(lease) = owned_worker(self.executor.name(), is_shared)
        {
            return Box::pin(async move { self.start_here(&lease, caller, inputs, until).await });
        }
        match inline_lease(self.executor.name()).filter(|_| self.runs_inline()) {
            Some(lease) => Box::pin(async move { self.run_here(&lease, caller, inputs, until).await }),
            None => Box::pin(async move {
                let response = self.start(caller, inputs)?.one().await;
                response.map_err(|error| self.named(error))?.tensors()
            }),
        }
    }
}

impl ModelTarget {
    fn admitted(&self, caller: &CallContext, inputs: Vec<Tensor>, until: Option<Instant>) -> Result<Call> {
        // A pipeline's request is admitted already, so calls that its steps make wait instead of
        // being refused.
        let precedence = match self.precedence {
            Precedence::New if caller.is_within_pipeline() => Precedence::Started(Instant::now()),
            precedence => precedence,
        };
        let context = Arc::new(self.admit(caller, &inputs, until)?);
        Ok(self.call(context, inputs, precedence))
    }

    fn call(&self, context: Arc<CallContext>, inputs: Vec<Tensor>, precedence: Precedence) -> Call {
        Call {
            context,
            input: Payload::Tensors(inputs),
            transformer: None,
            callable: Arc::clone(&self.callable),
            batching: self.batching,
            runs: self.runs.clone(),
            precedence,
        }
    }

    /// Starts a call of a pipeline step. It is never refused as Overloaded unless it is `New`.
    /// `context` is that of the call itself.
    pub(super) async fn start_step(
        &self,
        context: &Arc<CallContext>,
        inputs: Vec<Tensor>,
        precedence: Precedence,
    ) -> Result<Responses> {
        let call = self.call(Arc::clone(context), inputs, precedence);
        match precedence {
            Precedence::New => self.executor.submit(call),
            Precedence::Started(since) | Precedence::Repeated(since) => {
                self.executor.submit_started(call, since).await
            }
        }
    }

    /// Runs a call of a step on the worker that polls this future, if the worker belongs to the
    /// model's executor and the lease allows it; returns the inputs if not. The caller must have
    /// nothing else to do meanwhile.
    pub(super) async fn run_step(
        &self,
        context: &Arc<CallContext>,
        inputs: Vec<Tensor>,
    ) -> std::result::Result<Result<Vec<Tensor>>, Vec<Tensor>> {
        let lease = inline_lease(self.executor.name()).filter(|_| self.runs_inline());
        let Some(lease) = lease else { return Err(inputs) };
        let callable = Arc::clone(&self.callable);
        let call = InlineCall { context: Arc::clone(context), callable, inputs, runs: self.runs.clone() };
        let outputs = lease.run(call).await;
        Ok(outputs.and_then(|outputs| outputs.ok_or_else(|| Error::failed("the model returned no response"))))
    }

    /// Returns true if the model's calls may run on the worker that polls the caller.
    pub(super) fn runs_inline(&self) -> bool {
        self.batching.is_none()
            && !matches!(self.callable.profile(), CallProfile::Shared | CallProfile::Suspending)
    }

    /// Checks inputs against the model's metadata.
    pub(super) fn check_step(&self, inputs: &[Tensor]) -> Result<()> {
        check_inputs(self.callable.metadata(), inputs).map_err(|error| explain_check(error, inputs))
    }

    /// Returns the context of a call with these inputs. Fails if the caller was cancelled, if the
    /// inputs do not match the metadata, or if the calls form a cycle or are nested too deeply.
    fn admit(&self, caller: &CallContext, inputs: &[Tensor], until: Option<Instant>) -> Result<CallContext> {
        caller.check()?;
        check_inputs(self.callable.metadata(), inputs)
            .map_err(|error| self.refused(explain_check(error, inputs)))?;
        let own = self.timeout.map(|timeout| Instant::now() + timeout);
        let deadline = caller.deadline.into_iter().chain(own).chain(until).min();
        let mut context = match self.is_inner {
            true => caller.part(deadline),
            false => caller.child(Arc::clone(&self.model), Arc::clone(&self.version), deadline)?,
        };
        context.trace.on_executor(self.executor.name());
        Ok(context)
    }

    /// Makes one call of a model that may wait. It starts on the caller's worker.
    async fn start_here(
        &self,
        lease: &WorkerLease,
        caller: &CallContext,
        inputs: Vec<Tensor>,
        until: Instant,
    ) -> Result<Vec<Tensor>> {
        let call = self.admitted(caller, inputs, Some(until))?;
        // The code that would otherwise cancel the call may be polled by this same worker.
        let _on_cancel = caller.cancellation.cancels(&call.context);
        let begun = lease.start(Arc::clone(&self.executor) as _, call).await;
        let response = begun.map_err(|error| self.refused(error))?.one().await;
        response.map_err(|error| self.named(error))?.tensors()
    }

    /// Makes one call and runs it on the caller's worker.
    pub(super) async fn run_here(
        &self,
        lease: &WorkerLease,
        caller: &CallContext,
        inputs: Vec<Tensor>,
        until: Instant,
    ) -> Result<Vec<Tensor>> {
        let context = Arc::new(self.admit(caller, &inputs, Some(until))?);
        let _on_cancel = caller.cancellation.cancels(&context);
        let callable = Arc::clone(&self.callable);
        let outcome = lease.run(InlineCall { context, callable, inputs, runs: self.runs.clone() }).await;
        let outputs = outcome.map_err(|error| self.named(error))?;
        outputs.ok_or_else(|| Error::failed("the model returned no response"))
    }

    /// Completes the error of a call that did not start. The message names the model, for guests
    /// that call several; a custom executor's plugin has only its inner model.
    fn refused(&self, error: Error) -> Error {
        let error = match self.is_inner {
            true => error,
            false => error.context(format!("model \"{}:{}\"", self.model, self.version)),
        };
        self.named(error)
    }

    fn named(&self, error: Error) -> Error {
        error.model(format!("{}:{}", self.model, self.version))
    }
}
