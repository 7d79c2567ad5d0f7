//! The `pipeline` executor: runs graphs of models. Its workers are requests at once, not threads; its queue bounds the
//! rest.
//!
//! A request is admitted or refused here, once. What it then calls is never refused for want of a place: its steps wait
//! for theirs, before what is new, until the deadline. One task drives a request (`run`); a graph that begins with a single
//! step begins on a worker of that step's executor, so that a chain of steps there changes no thread.

mod account;
mod decide;
mod endings;
mod frame;
mod items;
mod limits;
mod metrics;
mod model;
mod nested;
mod outputs;
mod parts;
mod rows;
mod run;
mod snapshot;
mod step;
mod streams;

pub use limits::{PipelineLimits, StepLimit};
pub use metrics::{StepMetrics, StepOutcome};
pub use model::{Binding, Bucket, Pick, PipelineModel, StepRoute, StepTarget};

use super::call::{Call, Priority, STREAM_BUFFER, Submit, with_channels};
use super::callable::{self, BoxFuture, Callable};
use super::scheduler::{
    CallContexts, Completion, GuestTask, InFlight, InFlightGuard, PoolConfig, PoolMetrics, RunMode, Threads,
    WorkerLease, some_at_once,
};
use super::sink::Sink;
use super::source::Source;
use super::status::Status;
use super::traits::Executor;
use crate::error::{Error, Kind, Result};
use crate::metrics::Metrics;
use crate::predict::{CallContext, Response, Responses, Sender, channel};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

/// Threads on which requests go on that wait.
const THREADS_MIN: usize = 2;

pub struct PipelineExecutor {
    shared: Arc<Shared>,
}

struct Shared {
    name: Arc<str>,
    config: PoolConfig,
    places: Arc<InFlight>,
    state: Mutex<State>,
    metrics: PoolMetrics,
    /// Told when nothing runs.
    idle: tokio::sync::Notify,
    /// Started with the first request.
    threads: OnceLock<Threads>,
}

#[derive(Default)]
struct State {
    running: usize,
    queue: VecDeque<Admitted>,
}

/// What takes one place: a request, or a batch of them.
struct Admitted {
    calls: Vec<(Call, Sender)>,
    at: Instant,
}

impl PipelineExecutor {
    pub const KIND: &'static str = "pipeline";

    pub fn start(name: &str, config: PoolConfig, metrics: &Metrics) -> Self {
        let shared = Shared {
            name: name.into(),
            config,
            places: Arc::default(),
            state: Mutex::default(),
            metrics: PoolMetrics::new(metrics, name),
            idle: tokio::sync::Notify::new(),
            threads: OnceLock::new(),
        };
        PipelineExecutor { shared: Arc::new(shared) }
    }

    fn refused(&self, model: &str) -> Error {
        Error::invalid(format!(
            "executor \"{}\" is of kind pipeline and runs pipelines, but the model is {model}; name an executor of another \
             kind, such as \"cpu\" or \"onnx\"",
            self.shared.name
        ))
    }
}

impl Submit for PipelineExecutor {
    fn submit(&self, call: Call) -> Result<Responses> {
        let (sender, responses) = channel(Arc::clone(&call.context), STREAM_BUFFER);
        if call.priority == Priority::New {
            self.shared.admit(vec![(call, sender)])?;
        } else {
            self.shared.threads()?;
            self.shared.lock().running += 1;
            self.shared.begin(Admitted { calls: vec![(call, sender)], at: Instant::now() });
        }
        Ok(responses)
    }

    fn submit_batch(&self, calls: Vec<Call>) -> Result<Vec<Responses>> {
        let (calls, responses) = with_channels(calls);
        if !calls.is_empty() {
            self.shared.admit(calls)?;
        }
        Ok(responses)
    }
}

impl Executor for PipelineExecutor {
    fn name(&self) -> &str {
        &self.shared.name
    }

    fn kind(&self) -> &'static str {
        Self::KIND
    }

    fn load(&self, source: &Source) -> Result<Arc<dyn Callable>> {
        Err(match source {
            Source::Pipeline(model) => return Ok(Arc::clone(model) as _),
            Source::Onnx(_) => self.refused("an ONNX file"),
            Source::Plugin(plugin) => self.refused(&format!("the plugin \"{}\"", plugin.name())),
            Source::Streaming { plugin, .. } => self.refused(&format!("the plugin \"{}\"", plugin.name())),
            Source::Remote { name, .. } => self.refused(&format!("\"{name}\" of a remote")),
        })
    }

    /// What is a part of another request runs in the place of that.
    fn status(&self) -> Status {
        let state = self.shared.lock();
        let queued: usize = state.queue.iter().map(|admitted| admitted.calls.len()).sum();
        let places = self.shared.places.status();
        Status {
            workers: self.shared.config.workers,
            busy: state.running.min(self.shared.config.workers),
            inflight: places.inflight + queued,
            overdue: places.overdue,
            queue_length: state.queue.len(),
            queue_capacity: self.shared.config.queue,
        }
    }

    fn drained(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            loop {
                let mut idle = std::pin::pin!(self.shared.idle.notified());
                // From here on no wake-up is missed.
                idle.as_mut().enable();
                if self.shared.lock().running == 0 {
                    return;
                }
                idle.await;
            }
        })
    }

    fn running(&self) -> Vec<String> {
        self.shared.places.running()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins it, lets it wait in the queue, or refuses it.
    fn admit(self: &Arc<Self>, calls: Vec<(Call, Sender)>) -> Result<()> {
        self.threads()?;
        let admitted = Admitted { calls, at: Instant::now() };
        {
            let mut state = self.lock();
            let is_waiting = state.running >= self.config.workers;
            let mut abandoned = VecDeque::new();
            if is_waiting && state.queue.len() >= self.config.queue {
                abandoned = forget_abandoned(&mut state.queue);
                self.metrics.timeouts.inc_by(expired(&abandoned));
            }
            if is_waiting && state.queue.len() >= self.config.queue {
                drop(state);
                drop(abandoned);
                self.metrics.overloaded.inc();
                let PoolConfig { workers, queue } = self.config;
                return Err(Error::overloaded(format!(
                    "executor \"{}\": {workers} requests run and the queue of {queue} is full",
                    self.name
                )));
            }
            if is_waiting {
                state.queue.push_back(admitted);
                return Ok(());
            }
            state.running += 1;
        }
        self.begin(admitted);
        Ok(())
    }

    fn threads(&self) -> Result<&Threads> {
        if self.threads.get().is_none() {
            let count = crate::config::cores().max(THREADS_MIN);
            let threads = Threads::start(&self.name, &self.name, count)?;
            // Made twice at worst, by two first requests at once; one of them stays.
            let _ = self.threads.set(threads);
        }
        Ok(self.threads.get().expect("invariant: just set"))
    }

    /// Begins what has one of the places that run.
    fn begin(self: &Arc<Self>, mut admitted: Admitted) {
        let members: CallContexts =
            admitted.calls.iter().map(|(call, _)| Arc::clone(&call.context)).collect();
        let place = self.places.take(members).ok();
        let running = BegunRequest { shared: Arc::clone(self), _place: place };
        let at = admitted.at;
        if admitted.calls.len() == 1 {
            let (call, sender) = admitted.calls.remove(0);
            return self.begin_one(call, sender, at, running);
        }
        let (shared, threads) = (Arc::clone(self), self.handle());
        threads.spawn(async move {
            let runs = admitted.calls.into_iter().map(|(call, sender)| {
                let shared = Arc::clone(&shared);
                async move { shared.run(call, sender, at, None).await.send() }
            });
            some_at_once(runs).await;
            drop(running);
        });
    }

    fn handle(&self) -> tokio::runtime::Handle {
        let threads = self.threads.get().expect("invariant: started when the request was admitted");
        threads.handle().clone()
    }

    fn begin_one(self: &Arc<Self>, call: Call, sender: Sender, at: Instant, running: BegunRequest) {
        let (context, home) = (Arc::clone(&call.context), self.handle());
        // A transformer may wait and compute as it likes; that is not for another executor's worker.
        let first = call.transformer.is_none().then(|| PipelineModel::of(&*call.callable)?.begins_on()).flatten();
        let executor = first.map(|target| Arc::clone(&target.executor));
        let shared = Arc::clone(self);
        let work = Box::pin(async move { shared.run(call, sender, at, Some(running)).await });
        let Some(executor) = executor else {
            home.spawn(async move { work.await.send() });
            return;
        };
        let task =
            GuestTask::new(context, Arc::<WorkerLease>::default(), RunMode::PipelineSteps, work, home.into());
        if let Err(refused) = executor.submit_guest(Priority::Started(at), task) {
            refused.detach();
        }
    }

    /// Runs one request. Its place is free before the caller knows, unless detached steps go on.
    async fn run(
        self: Arc<Self>,
        call: Call,
        sender: Sender,
        admitted: Instant,
        running: Option<BegunRequest>,
    ) -> Completion {
        let mut sink = call.sink_now(sender, admitted);
        self.metrics.queue_wait.observe(sink.queue_wait.as_secs_f64());
        let last = self.answer(call, &mut sink).await;
        if last.as_ref().is_err_and(|error| error.kind() == Kind::Deadline) {
            self.metrics.timeouts.inc();
        }
        drop(running);
        Completion { sink, last }
    }

    async fn answer(&self, call: Call, sink: &mut Sink) -> Result<Option<Response>> {
        let inputs = sink.preprocess(call.input, call.callable.metadata()).await?;
        sink.yield_instance(self.config.workers);
        callable::run(sink, &*call.callable, inputs).await
    }

    /// One that ran is over: the first in the queue whose caller still waits begins.
    fn next(self: &Arc<Self>) {
        let mut dropped = Vec::new();
        let next = {
            let mut state = self.lock();
            // What runs in the place of another request leaves none.
            let has_place = state.running <= self.config.workers;
            let next = loop {
                if !has_place {
                    break None;
                }
                let Some(admitted) = state.queue.pop_front() else { break None };
                match admitted.calls.iter().any(|(call, _)| call.context.check().is_ok()) {
                    true => break Some(admitted),
                    false => dropped.push(admitted),
                }
            };
            if next.is_none() {
                state.running -= 1;
                if state.running == 0 {
                    self.idle.notify_waiters();
                }
            }
            next
        };
        for (call, sender) in dropped.into_iter().flat_map(|admitted| admitted.calls) {
            let why = call.context.check().err().unwrap_or_else(|| Error::cancelled("nobody waits for it"));
            if why.kind() == Kind::Deadline {
                self.metrics.timeouts.inc();
            }
            sender.finish(Err(why));
        }
        if let Some(next) = next {
            self.begin(next);
        }
    }
}

/// Takes away what nobody waits for any more.
fn forget_abandoned(queue: &mut VecDeque<Admitted>) -> VecDeque<Admitted> {
    let is_wanted =
        |admitted: &Admitted| admitted.calls.iter().any(|(call, _)| call.context.stopped().is_none());
    let (wanted, abandoned) = std::mem::take(queue).into_iter().partition(is_wanted);
    *queue = wanted;
    abandoned
}

/// How many of these calls have run out of time.
fn expired(abandoned: &VecDeque<Admitted>) -> u64 {
    let contexts = abandoned.iter().flat_map(|admitted| &admitted.calls).map(|(call, _)| &call.context);
    let is_late =
        |context: &&Arc<CallContext>| context.stopped().is_some_and(|why| why.kind() == Kind::Deadline);
    contexts.filter(is_late).count() as u64
}

/// One of the requests that run.
struct BegunRequest {
    shared: Arc<Shared>,
    _place: Option<InFlightGuard>,
}

impl Drop for BegunRequest {
    fn drop(&mut self) {
        self._place = None;
        self.shared.next();
    }
}
