//! The `custom` executor: a plugin that decides how calls reach an inner executor.
//!
//! Guests wait: for the inner executor, for each other, for timers. So they run as tasks on the
//! executor's own threads, each call with its own instance; a guest that computes yields to the
//! others. If guests mostly begin with a call to their model, they start on a worker of the inner
//! executor instead, as a [`GuestTask`]. The transformer of a call runs where its guest runs, since
//! the inner executor takes only tensors.

use super::inner_model::{InlineHeuristic, InnerModel};
use crate::error::{Error, Kind, Result};
use crate::executor::call::{Call, STREAM_BUFFER, Submit, with_channels};
use crate::executor::callable::{BoxFuture, CallProfile, Callable};
use crate::executor::scheduler::{
    Completion, GuestTask, InFlight, InFlightGuard, PoolMetrics, RunMode, Threads, WorkerLease, some_at_once,
};
use crate::executor::sink::Sink;
use crate::executor::source::Source;
use crate::executor::status::Status;
use crate::executor::target::ModelTarget;
use crate::executor::traits::Executor;
use crate::metrics::Metrics;
use crate::plugin::{GuestAnswer, PluginExecutor};
use crate::predict::{Announced, CallContext, Response, Responses, Target, Tensor, channel, check_outputs};
use smallvec::smallvec;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tokio::sync::oneshot;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CustomConfig {
    /// The maximum number of admissions in flight, each with its own instance of the plugin.
    pub workers: usize,
    /// The number of OS threads that all guests share.
    pub threads: usize,
    /// What happens to a call whose guest trapped or overran.
    pub on_failure: OnFailure,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnFailure {
    /// The call fails.
    Fail,
    /// The call goes to the inner executor, as if there were no plugin.
    Inner,
}

impl OnFailure {
    pub fn as_str(self) -> &'static str {
        match self {
            OnFailure::Fail => "fail",
            OnFailure::Inner => "inner",
        }
    }
}

pub struct CustomExecutor {
    shared: Arc<Shared>,
}

struct Shared {
    name: Arc<str>,
    config: CustomConfig,
    plugin: Arc<PluginExecutor>,
    inner: Arc<dyn Executor>,
    in_flight: Arc<InFlight>,
    /// The guest has reported that it takes no batches.
    one_by_one: AtomicBool,
    inline_heuristic: InlineHeuristic,
    metrics: PoolMetrics,
    fallbacks: prometheus::IntCounter,
    threads: Threads,
}

impl CustomExecutor {
    pub const KIND: &'static str = "custom";

    pub fn start(
        name: &str,
        config: CustomConfig,
        plugin: Arc<PluginExecutor>,
        inner: Arc<dyn Executor>,
        metrics: &Metrics,
    ) -> Result<Self> {
        let threads = Threads::start(name, name, config.threads)?;
        let pool = PoolMetrics::new(metrics, name);
        let shared = Shared {
            name: name.into(),
            config,
            plugin,
            inner,
            in_flight: InFlight::bounded(name.into(), config.workers, &pool),
            one_by_one: AtomicBool::new(false),
            inline_heuristic: InlineHeuristic::default(),
            metrics: pool,
            fallbacks: metrics.executors.fallbacks.with_label_values(&[name]),
            threads,
        };
        Ok(CustomExecutor { shared: Arc::new(shared) })
    }
}

impl Submit for CustomExecutor {
    fn submit(&self, call: Call) -> Result<Responses> {
        let guard = self.shared.in_flight.take(smallvec![Arc::clone(&call.context)])?;
        Ok(self.begin(call, guard))
    }

    fn submit_started(&self, call: Call, since: Instant) -> BoxFuture<'_, Result<Responses>> {
        Box::pin(async move {
            let guard = self.shared.in_flight.take_started(Arc::clone(&call.context), since).await;
            Ok(self.begin(call, guard))
        })
    }

    fn submit_batch(&self, calls: Vec<Call>) -> Result<Vec<Responses>> {
        let contexts = calls.iter().map(|call| Arc::clone(&call.context)).collect();
        let guard = self.shared.in_flight.take(contexts)?;
        let (calls, responses) = with_channels(calls);
        let (shared, admitted) = (Arc::clone(&self.shared), Instant::now());
        self.shared.threads.spawn(async move {
            let now = Instant::now();
            let queue_wait = now.saturating_duration_since(admitted);
            shared.metrics.queue_wait.observe(queue_wait.as_secs_f64());
            let items = calls.into_iter().map(|(call, sender)| {
                let sink = call.sink(sender, queue_wait, now);
                (call, sink)
            });
            shared.run_batch(items.collect(), guard).await;
        });
        Ok(responses)
    }
}

impl Executor for CustomExecutor {
    fn name(&self) -> &str {
        &self.shared.name
    }

    fn kind(&self) -> &'static str {
        Self::KIND
    }

    fn load(&self, source: &Source) -> Result<Arc<dyn Callable>> {
        let name = &self.shared.name;
        let inner = self.shared.inner.load(source);
        let callable = inner.map_err(|error| error.context(format!("inner executor of \"{name}\"")))?;
        if callable.metadata().streaming {
            return Err(Error::unsupported(format!(
                "executor \"{name}\" is of kind custom: its plugin returns one response to a request, but the model \
                 returns any number of responses; put the model on \"{}\" itself",
                self.shared.inner.name()
            )));
        }
        Ok(callable)
    }

    fn run_alone(&self, call: Call) -> BoxFuture<'static, Result<Response>> {
        let submitted = self.submit(call);
        Box::pin(async move { submitted?.one().await })
    }

    fn status(&self) -> Status {
        self.shared.in_flight.status()
    }

    fn running(&self) -> Vec<String> {
        self.shared.in_flight.running()
    }
}

impl CustomExecutor {
    /// Starts an admitted call.
    fn begin(&self, call: Call, guard: InFlightGuard) -> Responses {
        let context = Arc::clone(&call.context);
        let (sender, responses) = channel(Arc::clone(&context), STREAM_BUFFER);
        let admitted = Instant::now();
        let runs_inline = call.batching.is_none()
            && call.callable.profile() == CallProfile::Blocking
            && self.shared.inline_heuristic.runs_inline();
        let lease = runs_inline.then(Arc::<WorkerLease>::default);
        let (task_lease, precedence) = (lease.clone(), call.precedence);
        let shared = Arc::clone(&self.shared);
        let work = async move {
            let sink = call.sink_now(sender, admitted);
            shared.metrics.queue_wait.observe(sink.queue_wait.as_secs_f64());
            // The future is large, so the thread that runs it allocates it, and can free it
            // cheaply.
            Box::pin(shared.run(call, sink, lease, Some(guard))).await
        };
        match task_lease {
            None => drop(self.shared.threads.spawn(async move { work.await.send() })),
            Some(lease) => {
                let park_target = self.shared.threads.handle().clone();
                let task =
                    GuestTask::new(context, lease, RunMode::OneCall, Box::pin(work), park_target.into());
                if let Err(refused) = self.shared.inner.submit_guest(precedence, task) {
                    refused.detach();
                }
            }
        }
        responses
    }
}

impl Shared {
    fn inner_model(&self, call: &Call, lease: Option<Arc<WorkerLease>>) -> Arc<InnerModel> {
        let target = ModelTarget {
            model: Arc::clone(&call.context.model),
            version: Arc::clone(&call.context.version),
            executor: Arc::clone(&self.inner),
            callable: Arc::clone(&call.callable),
            batching: call.batching,
            runs: call.runs.clone(),
            timeout: None,
            is_inner: true,
            precedence: call.precedence,
        };
        InnerModel::new(target, lease)
    }

    /// Runs one call. Its slot is freed before the answer is sent, unless the guest answers early
    /// and continues.
    async fn run(
        self: Arc<Self>,
        call: Call,
        mut sink: Sink,
        lease: Option<Arc<WorkerLease>>,
        guard: Option<InFlightGuard>,
    ) -> Completion {
        let inner_model = self.inner_model(&call, lease);
        let Call { context, input, callable, .. } = call;
        let last = match sink.preprocess(input, callable.metadata()).await {
            Ok(inputs) => {
                if !inner_model.has_worker() {
                    sink.yield_instance(self.config.workers);
                }
                let outcome =
                    self.answer(&context, inputs, Arc::clone(&inner_model) as _, &*callable, &mut sink).await;
                self.inline_heuristic.learn(&inner_model);
                outcome
            }
            Err(error) => Err(error),
        };
        inner_model.released(&context).await;
        self.count(&last);
        drop(guard);
        Completion { sink, last }
    }

    /// Runs the guest and postprocesses its answer. Returns `None` if the guest answered before it
    /// ended, so that the answer was already sent.
    async fn answer(
        &self,
        context: &Arc<CallContext>,
        inputs: Vec<Tensor>,
        target: Arc<dyn Target>,
        callable: &dyn Callable,
        sink: &mut Sink,
    ) -> Result<Option<Response>> {
        let (early, answered) = oneshot::channel();
        // Cheap, since tensors share their bytes.
        let spare = (self.config.on_failure == OnFailure::Inner).then(|| inputs.clone());
        let guest = self.plugin.submit(context, inputs, Arc::clone(&target), early);
        tokio::pin!(guest);
        let outcome = tokio::select! {
            biased;
            outcome = &mut guest => outcome,
            Ok(outputs) = answered => {
                // Rare, and large: boxed, so that the future of every other call is smaller.
                Box::pin(sink.answer(self.checked(callable, outputs))).await;
                if let Err(error) = guest.await {
                    let (request, plugin) = (&*context.id, &**self.plugin.name());
                    tracing::warn!(request, plugin, detail = error.detail(), "plugin failed after its answer: {error}");
                }
                return Ok(None);
            }
        };
        let outputs = match (outcome, spare) {
            (Ok(answered), _) => self.checked(callable, answered?)?,
            (Err(fault), Some(inputs)) => Box::pin(self.fall_back(context, fault, inputs, &*target)).await?,
            (Err(fault), None) => return Err(fault),
        };
        context.check()?;
        sink.respond(outputs).await.map(Some)
    }

    /// Returns the guest's outputs. Fails if they do not match the metadata of the model.
    fn checked(&self, callable: &dyn Callable, outputs: Vec<Tensor>) -> Result<Vec<Tensor>> {
        check_outputs(self.plugin.name(), Announced::ByModel, callable.metadata(), &outputs)?;
        Ok(outputs)
    }

    /// Returns the answer of the inner executor, after the guest has failed.
    async fn fall_back(
        &self,
        context: &Arc<CallContext>,
        fault: Error,
        inputs: Vec<Tensor>,
        target: &dyn Target,
    ) -> GuestAnswer {
        // The call was cancelled, or its deadline has passed.
        context.check().map_err(|_| fault.clone())?;
        self.fallbacks.inc();
        let (request, plugin) = (&*context.id, &**self.plugin.name());
        tracing::warn!(
            request,
            plugin,
            detail = fault.detail(),
            "request passed to the inner executor: {fault}"
        );
        target.start(context, inputs)?.one().await?.tensors()
    }

    fn count(&self, outcome: &Result<Option<Response>>) {
        if outcome.as_ref().is_err_and(|error| error.kind() == Kind::Deadline) {
            self.metrics.timeouts.inc();
        }
    }

    /// Runs a batch: with one call of the guest if it takes batches, or each item separately if
    /// not.
    async fn run_batch(self: Arc<Self>, items: Vec<(Call, Sink)>, guard: InFlightGuard) {
        if items.is_empty() {
            return;
        }
        if self.one_by_one.load(Ordering::Relaxed) {
            return self.run_each(items).await;
        }
        let inner_model = self.inner_model(&items[0].0, None);
        let model = Arc::clone(&items[0].0.callable);
        let mut ready = Vec::with_capacity(items.len());
        for (call, mut sink) in items {
            let Call { context, input, callable, .. } = call;
            match sink.preprocess(input, callable.metadata()).await {
                Ok(inputs) => {
                    sink.yield_instance(self.config.workers);
                    ready.push((context, inputs, sink));
                }
                Err(error) => sink.finish(Err(error)),
            }
        }
        if ready.is_empty() {
            return;
        }
        let members: Vec<_> = ready.iter().map(|(context, ..)| Arc::clone(context)).collect();
        let inputs = ready.iter().map(|(_, inputs, _)| inputs.clone()).collect();
        let (joint, _guards) = CallContext::joint(members.iter(), |joint| {
            if let Some((batch, _)) = joint.id.rsplit_once('/') {
                joint.id = batch.into();
            }
        });
        let target: Arc<dyn Target> = Arc::clone(&inner_model) as _;
        let outcomes = self.plugin.submit_batch(&joint, members.clone(), inputs, Arc::clone(&target)).await;
        if matches!(outcomes, Ok(None)) {
            self.one_by_one.store(true, Ordering::Relaxed);
        }
        let mut answered = match outcomes {
            Ok(Some(outcomes)) => outcomes.into_iter().map(Some).collect(),
            Ok(None) => vec![None; ready.len()],
            Err(fault) if self.config.on_failure == OnFailure::Fail => vec![Some(Err(fault)); ready.len()],
            Err(fault) => {
                let plugin = &**self.plugin.name();
                tracing::warn!(plugin, detail = fault.detail(), "batch split into single requests: {fault}");
                vec![None; ready.len()]
            }
        }
        .into_iter();
        for (context, inputs, mut sink) in ready {
            let outcome = match answered.next().flatten() {
                Some(Ok(outputs)) => match self.checked(&*model, outputs) {
                    Ok(outputs) => sink.respond(outputs).await.map(Some),
                    Err(error) => Err(error),
                },
                Some(Err(error)) => Err(error),
                None => self.answer(&context, inputs, Arc::clone(&target), &*model, &mut sink).await,
            };
            self.count(&outcome);
            sink.finish(outcome);
        }
        inner_model.released(&joint).await;
        drop(guard);
    }

    async fn run_each(self: Arc<Self>, items: Vec<(Call, Sink)>) {
        let runs = items.into_iter().map(|(call, sink)| {
            let run = Arc::clone(&self).run(call, sink, None, None);
            async move { run.await.send() }
        });
        some_at_once(runs).await;
    }
}
