//! Where calls are that wait and hold no worker, known by name.
//!
//! Those whose model waits by itself in an instance of its own are bounded by their model; a transformer around such
//! a model runs on threads of the room, where guests take turns, and so do the items of batches that wait. Calls of
//! plugins that call other models have their turns on the workers, and are here between them: as many as have room on
//! the executor, so that the workers are always free for what is waited for.

use super::guest_task::{Completion, GuestTask, InlineCall, ParkTarget, Requeue, RunMode, WorkerLease, current_worker};
use super::in_flight::InFlight;
use super::threads::{Threads, some_at_once};
use super::worker_pool::WorkerPool;
use crate::error::{Error, Result};
use crate::executor::call::{Call, Priority, STREAM_BUFFER, with_channels};
use crate::executor::callable::{self, CallProfile};
use crate::executor::sink::Sink;
use crate::executor::status::Status;
use crate::executor::streaming_callable;
use crate::plugin::Permit;
use crate::predict::{Payload, Response, Responses, channel};
use smallvec::smallvec;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// Threads for the guests of all calls, at least; one that computes keeps others waiting for a tick.
const THREADS_MIN: usize = 2;

/// The workers of an executor, and its calls that wait: each call goes where it belongs.
pub(in crate::executor) struct Workers {
    pool: Arc<WorkerPool>,
    parked: ParkedCalls,
}

impl Workers {
    pub fn new(pool: WorkerPool) -> Self {
        Workers { parked: ParkedCalls::new(pool.name()), pool: Arc::new(pool) }
    }

    pub fn name(&self) -> &str {
        self.pool.name()
    }

    pub fn submit(&self, call: Call) -> Result<Responses> {
        if call.callable.profile() == CallProfile::Shared {
            self.parked.submit(call)
        } else if call.may_wait() {
            self.parked.submit_suspending(call, &self.pool)
        } else {
            self.pool.submit(call)
        }
    }

    /// See [`Executor::submit_begun`](super::Executor::submit_begun).
    pub async fn submit_started(&self, call: Call, since: Instant) -> Result<Responses> {
        match call.callable.profile() {
            CallProfile::Shared => self.parked.submit_started(call, since).await,
            _ => self.submit(call),
        }
    }

    pub fn submit_batch(&self, calls: Vec<Call>) -> Result<Vec<Responses>> {
        match calls.first() {
            Some(first) if first.callable.profile() == CallProfile::Shared => self.parked.submit_batch(calls),
            Some(first) if first.may_wait() => self.parked.submit_suspending_batch(calls, &self.pool),
            _ => self.pool.submit_batch(calls),
        }
    }

    pub fn submit_guest(&self, order: Priority, task: GuestTask) -> Result<(), GuestTask> {
        self.pool.submit_guest(order, task)
    }

    pub fn status(&self) -> Status {
        let status = self.pool.status();
        Status { inflight: status.inflight + self.parked.in_flight(), ..status }
    }

    pub fn running(&self) -> Vec<String> {
        [self.pool.running(), self.parked.running()].concat()
    }
}

pub(in crate::executor) struct ParkedCalls {
    name: Arc<str>,
    in_flight: Arc<InFlight>,
    /// Of those that are between two turns on a worker.
    waiting: Arc<InFlight>,
    /// Started with the first call that has a guest here.
    threads: OnceLock<Threads>,
}

impl ParkedCalls {
    pub fn new(name: &str) -> Self {
        ParkedCalls {
            name: name.into(),
            in_flight: Arc::default(),
            waiting: Arc::default(),
            threads: OnceLock::new(),
        }
    }

    /// Begins a call whose model is shared, or refuses it, at once.
    pub fn submit(&self, call: Call) -> Result<Responses> {
        let permit = permit(&call)?;
        self.start(call, permit)
    }

    /// Begins all of them, or none.
    pub fn submit_batch(&self, calls: Vec<Call>) -> Result<Vec<Responses>> {
        let permits = calls.iter().map(permit).collect::<Result<Vec<_>>>()?;
        calls.into_iter().zip(permits).map(|(call, permit)| self.start(call, permit)).collect()
    }

    /// Begins a call of work that has begun at `since`, once its model has a place for it.
    pub async fn submit_started(&self, call: Call, since: Instant) -> Result<Responses> {
        let model = call.callable.streaming_model().expect("invariant: only calls of shared models come here");
        let permit = model.admit_started(since).await?;
        self.start(call, permit)
    }

    fn start(&self, call: Call, permit: Permit) -> Result<Responses> {
        let context = Arc::clone(&call.context);
        let (sender, responses) = channel(Arc::clone(&context), STREAM_BUFFER);
        let guard = self.in_flight.take(smallvec![Arc::clone(&context)])?;
        if call.transformer.is_none() {
            let Payload::Tensors(inputs) = call.input else {
                return Err(Error::invalid("this model has no transformer, so it takes tensors only"));
            };
            let model = call.callable.streaming_model().expect("invariant: its permit came from there");
            context.begin();
            model.start(permit, &context, inputs, sender, Box::new(guard));
            return Ok(responses);
        }
        let admitted = Instant::now();
        self.threads()?.spawn(async move {
            let mut sink = call.sink_now(sender, admitted);
            let Call { context, input, callable, .. } = call;
            let outcome = async {
                let inputs = sink.preprocess(input, callable.metadata()).await?;
                let model = callable.streaming_model().expect("invariant: its permit came from there");
                match streaming_callable::run(model, permit, &context, inputs, &mut sink).await? {
                    Some(outputs) => sink.respond(outputs).await.map(Some),
                    None => Ok(None),
                }
            };
            let last = outcome.await;
            drop(guard);
            sink.finish(last);
        });
        Ok(responses)
    }

    /// Begins a call with a guest that may wait for other models, or refuses it, at once.
    pub fn submit_suspending(&self, call: Call, pool: &Arc<WorkerPool>) -> Result<Responses> {
        let order = call.priority;
        if order == Priority::New {
            self.check_capacity(pool)?;
        }
        let context = Arc::clone(&call.context);
        let (sender, responses) = channel(Arc::clone(&context), STREAM_BUFFER);
        let (lease, admitted) = (Arc::<WorkerLease>::default(), Instant::now());
        let work = {
            let (lease, pool) = (Arc::clone(&lease), Arc::clone(pool));
            async move {
                let mut sink = call.sink_now(sender, admitted);
                // Large, so it is made by the thread that runs it, which then frees it cheaply.
                let last = Box::pin(run(call, &mut sink, &pool, Some(&*lease))).await;
                Completion { sink, last }
            }
        };
        let requeue = Requeue { queue: Arc::clone(pool) as _, parked: Arc::clone(&self.waiting) };
        let park_target = ParkTarget { runtime: self.threads()?.handle().clone(), requeue: Some(requeue) };
        let task = GuestTask::new(context, lease, RunMode::OwnWorker, Box::pin(work), park_target);
        match current_worker(pool.name()) {
            // The guest that calls waits for nothing else.
            Some(worker) => pool.run_here(task, &worker),
            None => pool.submit_guest(order, task).map_err(|_| pool.refusal())?,
        }
        Ok(responses)
    }

    /// The same for a batch, as one admission. Its calls begin here, some at a time.
    pub fn submit_suspending_batch(
        &self,
        calls: Vec<Call>,
        pool: &Arc<WorkerPool>,
    ) -> Result<Vec<Responses>> {
        self.check_capacity(pool)?;
        let threads = self.threads()?;
        let guard = self.waiting.take(calls.iter().map(|call| Arc::clone(&call.context)).collect())?;
        let (calls, responses) = with_channels(calls);
        let (pool, admitted) = (Arc::clone(pool), Instant::now());
        threads.spawn(async move {
            let runs = calls.into_iter().map(|(call, sender)| {
                let pool = Arc::clone(&pool);
                async move {
                    let mut sink = call.sink_now(sender, admitted);
                    let last = run(call, &mut sink, &pool, None).await;
                    sink.finish(last);
                }
            });
            some_at_once(runs).await;
            drop(guard);
        });
        Ok(responses)
    }

    /// Refuses calls while as many wait as have room on the executor.
    fn check_capacity(&self, pool: &WorkerPool) -> Result<()> {
        let (waiting, config) = (self.waiting.len(), pool.config());
        if waiting < config.workers + config.queue {
            return Ok(());
        }
        Err(pool.overloaded(format!("{waiting} calls wait for other models, as many as have room here")))
    }

    fn threads(&self) -> Result<&Threads> {
        if self.threads.get().is_none() {
            let count = crate::config::cores().max(THREADS_MIN);
            let threads = Threads::start(&self.name, &format!("{}-room", self.name), count)?;
            // Made twice at worst, by two first calls at once; one of them stays.
            let _ = self.threads.set(threads);
        }
        Ok(self.threads.get().expect("invariant: just set"))
    }

    /// Calls that are here now.
    pub fn in_flight(&self) -> usize {
        self.in_flight.in_flight() + self.waiting.in_flight()
    }

    pub fn running(&self) -> Vec<String> {
        [self.in_flight.running(), self.waiting.running()].concat()
    }
}

/// Preprocess, the model and postprocess, of which some may wait. The model itself runs on the worker that the lease
/// is for, or has a turn of its own there, unless it is a guest that may wait.
async fn run(
    call: Call,
    sink: &mut Sink,
    pool: &WorkerPool,
    lease: Option<&WorkerLease>,
) -> Result<Option<Response>> {
    let Call { context, input, callable, batching, runs, priority: order, .. } = call;
    let inputs = sink.preprocess(input, callable.metadata()).await?;
    if callable.profile() == CallProfile::Suspending {
        return callable::run(sink, &*callable, inputs).await;
    }
    let lease = lease.filter(|lease| batching.is_none() && lease.is_held());
    let outputs = match lease {
        Some(lease) => {
            lease.run(InlineCall { context: Arc::clone(&context), callable, inputs, runs }).await?
        }
        None => {
            sink.yield_instance(pool.config().workers);
            let part = Arc::new(context.part(context.deadline));
            let _leaving = context.cancellation.cancels(&part);
            let input = Payload::Tensors(inputs);
            let call = Call {
                context: Arc::clone(&part),
                input,
                transformer: None,
                callable,
                batching,
                runs,
                priority: order,
            };
            let mut responses = pool.submit(call)?;
            let outcome = responses.one().await.and_then(Response::tensors);
            // Whoever waits for the end of this work waits for that of its part.
            responses.released().await;
            context.check()?;
            context.set_note(part.note());
            Some(outcome?)
        }
    };
    context.check()?;
    let outputs = outputs.ok_or_else(|| Error::failed("the model gave no response"))?;
    sink.respond(outputs).await.map(Some)
}

fn permit(call: &Call) -> Result<Permit> {
    call.callable.streaming_model().expect("invariant: only calls of shared models come here").admit()
}
