//! Executors: named places that run models.
//!
//! An executor loads models into callables and admits calls: each gets a place at once or is refused as
//! Overloaded. One worker runs preprocess, callable and postprocess of a call.

mod batch;
mod custom;
mod division;
mod guest_task;
mod idle;
mod in_flight;
mod inner_model;
mod load_limit;
mod onnx;
mod onnx_source;
mod own_stack;
mod parked;
pub mod pipeline;
mod queue;
mod run_error;
mod runs;
pub mod runtime;
mod session;
mod state;
mod streaming_model;
mod strings;
mod target;
mod thread_pool;
mod threads;
mod triton;
pub mod unload;
mod unsafe_ops;
mod worker_context;
mod worker_pool;
mod worker_run;
mod workers;

pub use batch::Batching;
pub use custom::{CustomConfig, CustomExecutor, OnFailure};
pub use guest_task::GuestTask;
pub use load_limit::LoadLimit;
pub use onnx::OnnxExecutor;
pub use onnx_source::{ExternalFiles, OnnxSource};
pub use pipeline::{PipelineExecutor, PipelineModel};
pub use runs::{Runs, RunsOfSize};
pub use session::{Device, SessionConfig};
pub use streaming_model::SharedCallable;
pub use target::ModelTarget;
pub use thread_pool::{PluginCallable, ThreadPoolExecutor};
pub use triton::{TlsFiles, TritonConfig, TritonExecutor};
pub use worker_pool::PoolConfig;

use crate::error::{Error, FaultOwner, Result};
use crate::plugin::{Transformer, TransformerSession};
use crate::predict::{
    CallContext, Makers, Metadata, Payload, Response, Responses, Sender, Service, Tensor, channel,
    check_outputs, explain_check,
};
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use worker_pool::STREAM_BUFFER;

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A named place that runs models.
pub trait Executor: Send + Sync {
    fn name(&self) -> &str;

    /// The word for its kind in the manifest.
    fn kind(&self) -> &'static str;

    /// Makes a model ready to run here, or says why it cannot run here and what would. Called by loader
    /// threads; may block for seconds.
    fn load(&self, source: &Source) -> Result<Arc<dyn Callable>>;

    /// Admits one call or refuses it, at once. Never blocks; called on I/O threads. Work in the background is
    /// made of such calls too (`jobs`), so what holds a call's `Sender` must hold it for as long as it works.
    fn submit(&self, call: Call) -> Result<Responses>;

    /// Admits all calls as one unit, or none. The answers are in the order of the calls.
    fn submit_batch(&self, calls: Vec<Call>) -> Result<Vec<Responses>>;

    /// Admits a call of work that has begun at `since`. It waits for its place, before calls that are new, and is never
    /// Overloaded: its deadline bounds it.
    fn submit_started(&self, call: Call, _since: Instant) -> BoxFuture<'_, Result<Responses>> {
        let submitted = self.submit(call);
        Box::pin(std::future::ready(submitted))
    }

    /// Lends a worker to work that will make a call here. Its place is that of a call. Gives the work back where
    /// there is no room, or are no workers. Never blocks.
    fn submit_guest(&self, _order: Priority, task: GuestTask) -> Result<(), GuestTask> {
        Err(task)
    }

    /// Runs one call outside of any queue, if it can: checks before a swap, `hostler predict`. For models that give
    /// exactly one response.
    fn run_alone(&self, call: Call) -> BoxFuture<'static, Result<Response>> {
        Box::pin(run_alone(call))
    }

    fn status(&self) -> Status;

    /// Whether the remote that it stands for is there; none if it runs models itself.
    fn is_connected(&self) -> Option<bool> {
        None
    }

    /// Returns once nothing runs here for which nobody waits any more. Asked when no request is to come.
    fn drained(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Ids of the calls that are running now, for a shutdown that names them.
    fn running(&self) -> Vec<String>;
}

/// Where a model comes from.
pub enum Source {
    /// An ONNX file, with the bytes that were read (and hashed) from it and from its external data.
    Onnx(OnnxSource),
    /// A plugin in the role `model`.
    Plugin(Arc<crate::plugin::PluginModel>),
    /// A model of the remote that an executor stands for; without a version the only one that is there.
    Remote { name: String, version: Option<String>, reference: Option<ReferenceFile> },
    /// A plugin in the role `streaming-model`. A call of an idempotent one may run again after a fault beside it.
    Streaming { plugin: Arc<crate::plugin::StreamingModel>, idempotent: bool },
    /// A graph of models.
    Pipeline(Arc<PipelineModel>),
}

/// An ONNX file that is said to be the same model as a remote one.
pub struct ReferenceFile {
    pub path: PathBuf,
    pub bytes: bytes::Bytes,
}

/// What every executor says of a remote model that it cannot run.
fn refuse_remote(executor: &str, kind: &str, model: &str) -> Error {
    Error::invalid(format!(
        "executor \"{executor}\" is of kind {kind} and runs models itself, but the model is \"{model}\" of a remote; name \
         an executor of kind triton"
    ))
}

/// What every executor but `pipeline` says of a pipeline.
fn refuse_pipeline(executor: &str, kind: &str) -> Error {
    Error::invalid(format!(
        "executor \"{executor}\" is of kind {kind}, but the model is a pipeline; name an executor of kind pipeline, such as \
         \"pipeline\""
    ))
}

/// A model ready to run: inputs to a stream of 0..n responses.
pub trait Callable: Send + Sync {
    fn metadata(&self) -> &Metadata;

    /// Whether it looks at the request's parameters and note, not only at the inputs. Calls of such a model
    /// share a run only if these are equal.
    fn reads_request(&self) -> bool {
        false
    }

    /// Whether a call keeps the thread that polls it to its end, so that it must have a worker to itself.
    fn holds_thread(&self) -> bool {
        false
    }

    /// Whether it may wait for other models, so that no worker must be held for it meanwhile.
    fn may_wait(&self) -> bool {
        false
    }

    /// The model itself if its calls wait side by side in an instance that they share: they need no worker.
    fn shared(&self) -> Option<&SharedCallable> {
        None
    }

    /// The graph itself, if it is one.
    fn pipeline(&self) -> Option<&PipelineModel> {
        None
    }

    /// Whether it could run now. Asked by health checks; answers at once.
    fn ready(&self) -> Result<()> {
        Ok(())
    }

    /// Runs once. Returns the last response; earlier ones go to `sink`. A model that gives exactly one
    /// response returns it and never touches the sink. Polled on a worker; may block it. Ends early when
    /// the call is cancelled, as soon as it can.
    fn call<'a>(
        &'a self,
        context: &'a Arc<CallContext>,
        inputs: Vec<Tensor>,
        sink: &'a mut Sink,
    ) -> BoxFuture<'a, Result<Option<Vec<Tensor>>>>;
}

/// One request, complete: what to run, on what.
pub struct Call {
    pub context: Arc<CallContext>,
    pub input: Payload,
    pub transformer: Option<Arc<Transformer>>,
    pub callable: Arc<dyn Callable>,
    /// Whether it may share a run of the callable with others.
    pub batching: Option<Batching>,
    /// Where runs of the callable are counted; none for checks and copies.
    pub runs: Option<Arc<Runs>>,
    pub priority: Priority,
}

/// Which calls go first: those that go on with what has begun, the oldest request first; then what is new.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Priority {
    /// It is admitted or refused at once.
    #[default]
    New,
    /// Of a request that has begun then. It waits instead of being refused.
    Started(Instant),
    /// The same for what is repeated in a loop: it waits behind what is new now.
    Repeated(Instant),
}

/// The calls of a batch, each with its way back, and the callers' ends of these.
fn with_channels(calls: Vec<Call>) -> (Vec<(Call, Sender)>, Vec<Responses>) {
    let channels = calls.into_iter().map(|call| {
        let (sender, responses) = channel(Arc::clone(&call.context), STREAM_BUFFER);
        ((call, sender), responses)
    });
    channels.unzip()
}

/// Where a callable sends all responses but its last.
pub struct Sink {
    /// None for a run that several calls share, and once the stream has ended.
    sender: Option<Sender>,
    context: Arc<CallContext>,
    session: Option<TransformerSession>,
    queue_wait: Duration,
    runs: Option<Arc<Runs>>,
    /// What was done so far, and since when the next part is.
    service: Service,
    since: Instant,
}

impl Sink {
    fn new(sender: Sender, call: &Call, queue_wait: Duration, now: Instant) -> Self {
        call.context.begin();
        let session = call.transformer.as_ref().map(Transformer::session);
        let runs = call.runs.clone();
        Sink { sender: Some(sender), session, queue_wait, runs, ..Sink::shared(&call.context, now) }
    }

    /// For a call that begins now.
    fn started(sender: Sender, call: &Call, admitted: Instant) -> Self {
        let now = Instant::now();
        Sink::new(sender, call, now.saturating_duration_since(admitted), now)
    }

    /// For a run that several calls share: nobody could say whose response it is.
    fn shared(context: &Arc<CallContext>, now: Instant) -> Self {
        Sink {
            sender: None,
            context: Arc::clone(context),
            session: None,
            queue_wait: Duration::ZERO,
            runs: None,
            service: Service { rows: 1, ..Service::default() },
            since: now,
        }
    }

    /// The time since the last part of the work.
    fn lap(&mut self, now: Instant) -> Duration {
        now.saturating_duration_since(std::mem::replace(&mut self.since, now))
    }

    /// Sends one response of several. Waits while the caller is behind; fails once it has left.
    pub async fn send(&mut self, outputs: Vec<Tensor>) -> Result<()> {
        if self.sender.is_none() {
            return Err(Error::failed("a model that gives several responses cannot run in batches"));
        }
        let response = self.respond(outputs).await?;
        let sent = match &mut self.sender {
            Some(sender) => sender.send(response).await,
            None => Ok(()),
        };
        // A caller that is behind costs the model no time.
        self.lap(Instant::now());
        sent
    }

    /// Ends the stream with an error, though the work holds on to something still.
    fn fail(&mut self, error: &Error) {
        if let Some(sender) = &mut self.sender {
            sender.fail(error.clone());
        }
    }

    /// Gives the last response now, though the work goes on: the caller waits no longer and cancels nothing.
    async fn answer(&mut self, outputs: Result<Vec<Tensor>>) {
        let response = match outputs {
            Ok(outputs) => self.respond(outputs).await,
            Err(error) => Err(error),
        };
        self.session = None;
        if let Some(sender) = self.sender.take() {
            sender.finish(response.map(Some));
        }
    }

    /// From a call's input to the model's.
    async fn preprocess(&mut self, input: Payload, callable: &dyn Callable) -> Result<Vec<Tensor>> {
        let inputs = match (&mut self.session, input) {
            (Some(session), input) => {
                let sent = if let Payload::Tensors(tensors) = &input { tensors.len() } else { 0 };
                self.context.check()?;
                let inputs = session.preprocess(&self.context, input).await?;
                crate::predict::check_inputs(callable.metadata(), &inputs).map_err(|error| {
                    let error = match inputs.len() == sent && inputs.iter().all(Tensor::is_callers) {
                        true => error.owned_by(FaultOwner::Caller),
                        false => explain_check(error, &inputs),
                    };
                    if error.owner() == FaultOwner::Caller {
                        return error;
                    }
                    // The tensors are the plugin's making, so the fault is not the caller's.
                    Error::failed(error.message().to_owned())
                        .context(format!("plugin \"{}\": preprocess", session.name()))
                        .plugin(&**session.name())
                })?;
                let now = Instant::now();
                self.context.check_at(now)?;
                self.service.input = self.lap(now);
                inputs
            }
            (None, Payload::Tensors(inputs)) => {
                self.context.check_at(self.since)?;
                inputs
            }
            (None, _) => {
                return Err(Error::invalid("this model has no transformer, so it takes tensors only"));
            }
        };
        if let Some(runs) = &self.runs {
            self.service.rows = runs.rows(&inputs);
        }
        Ok(inputs)
    }

    /// Lets others have the transformer's instance while this call waits, if it is one of `waiting` and
    /// another can be had as cheaply: few that are warm serve better than one for each.
    fn yield_instance(&mut self, waiting: usize) {
        if let Some(session) = &mut self.session
            && session.reusable_max(waiting) == 0
        {
            session.release_instance();
        }
    }

    async fn respond(&mut self, outputs: Vec<Tensor>) -> Result<Response> {
        self.respond_at(Instant::now(), outputs).await
    }

    /// `now` is when the outputs came.
    async fn respond_at(&mut self, now: Instant, outputs: Vec<Tensor>) -> Result<Response> {
        let infer = self.lap(now);
        self.service.infer += infer;
        let payload = match &mut self.session {
            Some(session) => {
                let payload = session.postprocess(&self.context, outputs).await?;
                let output = self.lap(Instant::now());
                self.service.output += output;
                payload
            }
            None => Payload::Tensors(outputs),
        };
        Ok(Response { payload, queue_wait: self.queue_wait, service: self.service })
    }

    /// Runs the callable for one call that was just checked, and postprocesses what it gives.
    async fn run(&mut self, callable: &dyn Callable, inputs: Vec<Tensor>) -> Result<Option<Response>> {
        let context = Arc::clone(&self.context);
        let makers = Makers::of(&inputs);
        let outputs = callable.call(&context, inputs, self).await;
        let response = match outputs.map_err(|error| makers.explain(error))? {
            Some(outputs) => {
                let now = Instant::now();
                match context.check_at(now) {
                    Ok(()) => self.respond_at(now, outputs).await.map(Some),
                    Err(reason) => Err(reason),
                }
            }
            None => Ok(None),
        };
        // The model has run, whatever became of its outputs.
        if let Some(runs) = &self.runs {
            runs.record(self.service);
        }
        response
    }

    /// Gives the answer, after the worker has let go of its slot and the plugin of its instance.
    fn finish(mut self, last: Result<Option<Response>>) {
        self.session = None;
        if let Some(sender) = self.sender {
            sender.finish(last);
        }
    }
}

impl Call {
    /// Whether a guest of it may wait for other models.
    fn waits(&self) -> bool {
        self.callable.may_wait() || self.transformer.as_ref().is_some_and(|transformer| transformer.waits())
    }

    /// Runs preprocess, the callable and postprocess, in this order, on the worker that polls it.
    async fn run(self, sink: &mut Sink) -> Result<Option<Response>> {
        let inputs = sink.preprocess(self.input, &*self.callable).await?;
        sink.run(&*self.callable, inputs).await
    }
}

/// What an executor is doing now.
#[derive(Clone, Copy, Debug)]
pub struct Status {
    pub workers: usize,
    pub busy: usize,
    /// Calls admitted and not ended.
    pub inflight: usize,
    /// Busy workers whose call is past its deadline.
    pub overdue: usize,
    /// Admissions that wait. A batch is one.
    pub queue_length: usize,
    pub queue_capacity: usize,
}

/// Sets the gauges of an executor. Called when they are read, so that they cannot drift.
pub fn export_gauges(executor: &dyn Executor, metrics: &crate::metrics::Metrics) {
    let (status, label) = (executor.status(), [executor.name()]);
    metrics.executor_workers.with_label_values(&label).set(status.workers as i64);
    metrics.executor_busy.with_label_values(&label).set(status.busy as i64);
    metrics.executor_inflight.with_label_values(&label).set(status.inflight as i64);
    metrics.executor_queue_length.with_label_values(&label).set(status.queue_length as i64);
    metrics.executor_queue_capacity.with_label_values(&label).set(status.queue_capacity as i64);
    if let Some(is_connected) = executor.is_connected() {
        metrics.triton_connected.with_label_values(&label).set(i64::from(is_connected));
    }
}

/// Runs one call on the calling thread, outside of any queue: checks before a swap, `hostler predict`.
/// Needs a tokio runtime with threads of its own around it: one of them watches the deadline.
pub async fn run_alone(call: Call) -> Result<Response> {
    let context = Arc::clone(&call.context);
    let watch = tokio::spawn(async move {
        if let Some(deadline) = context.deadline {
            tokio::time::sleep_until(deadline.into()).await;
            context.cancellation.expire();
        }
    });
    let (sender, mut responses) = channel(Arc::clone(&call.context), 1024);
    let mut sink = Sink::started(sender, &call, Instant::now());
    let last = call.run(&mut sink).await;
    watch.abort();
    sink.finish(last);
    responses.one().await
}
