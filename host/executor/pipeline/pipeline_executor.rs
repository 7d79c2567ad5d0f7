//! `PipelineExecutor`: admits requests of pipelines, and starts their runs. Its workers are
//! concurrent requests, not threads; its queue bounds the requests that wait.
//!
//! A request is admitted or refused once, here. Its steps are never refused as Overloaded: they
//! wait for capacity, ahead of new requests, until the deadline. One task drives a request. If the
//! graph begins with a single step, the task starts on a worker of that step's executor, so that a
//! chain of steps on one executor stays on one thread.

use super::admission_queue::{AdmissionQueue, Admitted, expired};
use super::model::PipelineModel;
use crate::error::{Error, Kind, Result};
use crate::executor::call::{Call, Precedence, STREAM_BUFFER, Submit, with_channels};
use crate::executor::callable::{self, BoxFuture, Callable};
use crate::executor::scheduler::{
    CallContexts, Completion, GuestTask, InFlight, InFlightGuard, PoolConfig, PoolMetrics, RunMode, Threads,
    WorkerLease, some_at_once,
};
use crate::executor::sink::Sink;
use crate::executor::source::Source;
use crate::executor::status::Status;
use crate::executor::traits::Executor;
use crate::lock::LockUnpoisoned;
use crate::metrics::Metrics;
use crate::predict::{Response, Responses, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::time::Instant;

/// The minimum number of threads for requests that do not run on a worker of another executor.
const THREADS_MIN: usize = 2;

pub struct PipelineExecutor {
    shared: Arc<Shared>,
}

struct Shared {
    name: Arc<str>,
    config: PoolConfig,
    in_flight: Arc<InFlight>,
    state: Mutex<State>,
    metrics: PoolMetrics,
    /// Notified when the last running request ends.
    idle: tokio::sync::Notify,
    /// Started with the first request.
    threads: OnceLock<Threads>,
    /// The executors on whose workers requests begin.
    first_executors: Mutex<Vec<Weak<dyn Executor>>>,
}

#[derive(Default)]
struct State {
    running: usize,
    queue: AdmissionQueue,
}

impl PipelineExecutor {
    pub const KIND: &'static str = "pipeline";

    pub fn start(name: &str, config: PoolConfig, metrics: &Metrics) -> Self {
        let shared = Shared {
            name: name.into(),
            config,
            in_flight: Arc::default(),
            state: Mutex::default(),
            metrics: PoolMetrics::new(metrics, name),
            idle: tokio::sync::Notify::new(),
            threads: OnceLock::new(),
            first_executors: Mutex::default(),
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
        if call.precedence == Precedence::New {
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

    /// Returns the status. `busy` is capped: nested pipelines run in addition to the workers, as
    /// parts of requests that were admitted already.
    fn status(&self) -> Status {
        let state = self.shared.lock();
        let in_flight = self.shared.in_flight.status();
        Status {
            workers: self.shared.config.workers,
            busy: state.running.min(self.shared.config.workers),
            inflight: in_flight.inflight + state.queue.calls(),
            overdue: in_flight.overdue,
            queue_length: state.queue.len(),
            queue_capacity: self.shared.config.queue,
        }
    }

    fn drained(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            loop {
                let mut idle = std::pin::pin!(self.shared.idle.notified());
                // From here on, no notification is missed.
                idle.as_mut().enable();
                if self.shared.lock().running == 0 {
                    return;
                }
                idle.await;
            }
        })
    }

    fn running(&self) -> Vec<String> {
        self.shared.in_flight.running()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock_unpoisoned()
    }

    /// Starts the calls, queues them, or refuses them.
    fn admit(self: &Arc<Self>, calls: Vec<(Call, Sender)>) -> Result<()> {
        self.threads()?;
        let admitted = Admitted { calls, at: Instant::now() };
        if self.is_full() {
            self.drop_abandoned_first_steps();
        }
        let mut state = self.lock();
        if state.running < self.config.workers {
            state.queue.charge(&admitted);
            state.running += 1;
            drop(state);
            self.begin(admitted);
            return Ok(());
        }
        let is_full = |state: &State| state.queue.len() >= self.config.queue;
        let mut abandoned = Vec::new();
        if is_full(&state) {
            abandoned = state.queue.forget_abandoned();
            self.metrics.timeouts.inc_by(expired(&abandoned));
        }
        let outcome = match is_full(&state) {
            true => state.queue.evict_for(admitted).map(Some),
            false => {
                state.queue.push(admitted);
                Ok(None)
            }
        };
        // What is dropped or answered may come back here.
        drop(state);
        drop(abandoned);
        match outcome {
            Ok(None) => Ok(()),
            Ok(Some(evicted)) => {
                self.metrics.overloaded.inc();
                evicted.evict();
                Ok(())
            }
            Err(_) => {
                self.metrics.overloaded.inc();
                let PoolConfig { workers, queue } = self.config;
                Err(Error::overloaded(format!(
                    "executor \"{}\": {workers} requests run and the queue of {queue} is full",
                    self.name
                )))
            }
        }
    }

    fn is_full(&self) -> bool {
        let state = self.lock();
        state.running >= self.config.workers && state.queue.len() >= self.config.queue
    }

    /// Lets the executors of first steps drop what waits there for a client that has left, which
    /// frees the places of these requests. Must be called without the lock.
    fn drop_abandoned_first_steps(&self) {
        let executors: Vec<_> =
            self.first_executors.lock_unpoisoned().iter().filter_map(Weak::upgrade).collect();
        for executor in executors {
            // Drops abandoned work.
            executor.status();
        }
    }

    /// Remembers an executor on which requests begin.
    fn note_first_executor(&self, executor: &Arc<dyn Executor>) {
        let mut known = self.first_executors.lock_unpoisoned();
        if !known.iter().any(|known| std::ptr::addr_eq(known.as_ptr(), Arc::as_ptr(executor))) {
            known.retain(|known| known.strong_count() > 0);
            known.push(Arc::downgrade(executor));
        }
    }

    fn threads(&self) -> Result<&Threads> {
        if self.threads.get().is_none() {
            let count = crate::config::cores().max(THREADS_MIN);
            let threads = Threads::start(&self.name, &self.name, count)?;
            // Two concurrent first requests may both start threads; one set is dropped.
            let _ = self.threads.set(threads);
        }
        Ok(self.threads.get().expect("invariant: just set"))
    }

    /// Starts an admission, which is already counted as running.
    fn begin(self: &Arc<Self>, mut admitted: Admitted) {
        let members: CallContexts =
            admitted.calls.iter().map(|(call, _)| Arc::clone(&call.context)).collect();
        let guard = self.in_flight.take(members).ok();
        let running = BegunRequest { shared: Arc::clone(self), guard };
        let at = admitted.at;
        if admitted.calls.len() == 1 {
            let (call, sender) = admitted.calls.remove(0);
            return self.begin_one(call, sender, at, running);
        }
        let (shared, runtime) = (Arc::clone(self), self.runtime());
        runtime.spawn(async move {
            let runs = admitted.calls.into_iter().map(|(call, sender)| {
                let shared = Arc::clone(&shared);
                async move { shared.run(call, sender, at, None).await.send() }
            });
            some_at_once(runs).await;
            drop(running);
        });
    }

    fn runtime(&self) -> tokio::runtime::Handle {
        let threads = self.threads.get().expect("invariant: started when the request was admitted");
        threads.handle().clone()
    }

    fn begin_one(self: &Arc<Self>, call: Call, sender: Sender, at: Instant, running: BegunRequest) {
        let (context, runtime) = (Arc::clone(&call.context), self.runtime());
        // A transformer may wait and compute without bounds, so it must not run on a worker of
        // another executor.
        let first =
            call.transformer.is_none().then(|| PipelineModel::of(&*call.callable)?.begins_on()).flatten();
        let executor = first.map(|target| Arc::clone(&target.executor));
        let shared = Arc::clone(self);
        let work = Box::pin(async move { shared.run(call, sender, at, Some(running)).await });
        let Some(executor) = executor else {
            runtime.spawn(async move { work.await.send() });
            return;
        };
        self.note_first_executor(&executor);
        let task = GuestTask::new(
            context,
            Arc::<WorkerLease>::default(),
            RunMode::PipelineSteps,
            work,
            runtime.into(),
        );
        if let Err(refused) = executor.submit_guest(Precedence::Started(at), task) {
            refused.detach();
        }
    }

    /// Runs one request. Its slot is freed before the last response is sent, unless the response
    /// was sent early because detached steps continue.
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

    /// Called when an admission has ended: starts the first one in the queue that is not cancelled
    /// or expired.
    fn start_next(self: &Arc<Self>) {
        let mut dropped = Vec::new();
        let next = {
            let mut state = self.lock();
            // False after a nested pipeline has ended, which ran in addition to the workers.
            let has_capacity = state.running <= self.config.workers;
            let next = loop {
                if !has_capacity {
                    break None;
                }
                let Some(admitted) = state.queue.pop() else { break None };
                match admitted.calls.iter().any(|(call, _)| call.context.check().is_ok()) {
                    true => break Some(admitted),
                    false => dropped.push(admitted),
                }
            };
            if next.is_none() {
                state.running -= 1;
                if state.running == 0 {
                    state.queue.reset();
                    self.idle.notify_waiters();
                }
            }
            next
        };
        for (call, sender) in dropped.into_iter().flat_map(|admitted| admitted.calls) {
            let why =
                call.context.check().err().unwrap_or_else(|| Error::cancelled("cancelled by the caller"));
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

/// An admission that runs. Starts the next one when dropped.
struct BegunRequest {
    shared: Arc<Shared>,
    guard: Option<InFlightGuard>,
}

impl Drop for BegunRequest {
    fn drop(&mut self) {
        drop(self.guard.take());
        self.shared.start_next();
    }
}
