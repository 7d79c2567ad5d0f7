//! The workers of an executor, and its calls that wait and hold no worker.
//!
//! Calls of a streaming model are limited by that model. A transformer around such a model runs on
//! the threads of [`ParkedCalls`], where guests take turns, and so do the items of batches that
//! wait. Calls of plugins that call other models take turns on the workers and are parked between
//! them. As many may be parked as the executor has workers and queue slots, so that the workers are
//! always free for what these calls wait for.

use super::guest_task::{
    Completion, GuestTask, InlineCall, ParkTarget, Requeue, RunMode, WorkerLease, current_worker,
};
use super::in_flight::InFlight;
use super::threads::{Threads, some_at_once};
use super::worker_pool::WorkerPool;
use crate::error::{Error, Result};
use crate::executor::call::{Call, Precedence, STREAM_BUFFER, with_channels};
use crate::executor::callable::{self, CallProfile};
use crate::executor::sink::{Sink, end_call};
use crate::executor::status::Status;
use crate::executor::streaming_callable;
use crate::plugin::Permit;
use crate::predict::{CallContext, Payload, Response, Responses, channel};
use crate::tenants::{SHARE_TIME, SharedSlots, TenantSlot};
use smallvec::smallvec;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// The minimum number of threads for guests. A guest that computes delays the others by one tick.
const THREADS_MIN: usize = 2;

/// The workers of an executor, and its parked calls. Sends each call to one of the two.
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

    /// See [`Submit::submit_started`](crate::executor::Submit::submit_started).
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

    pub fn submit_guest(&self, precedence: Precedence, task: GuestTask) -> Result<(), GuestTask> {
        self.pool.submit_guest(precedence, task)
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
    /// Calls that wait between two turns on a worker, and batches of such calls.
    parked: Arc<InFlight>,
    /// The calls that may wait, by tenant.
    shares: Arc<SharedSlots>,
    /// Started with the first call that has a guest here.
    threads: OnceLock<Threads>,
}

impl ParkedCalls {
    pub fn new(name: &str) -> Self {
        ParkedCalls {
            name: name.into(),
            in_flight: Arc::default(),
            parked: Arc::default(),
            shares: Arc::default(),
            threads: OnceLock::new(),
        }
    }

    /// Starts a call of a streaming model, or refuses it, immediately.
    pub fn submit(&self, call: Call) -> Result<Responses> {
        let admitted = admit(&call)?;
        self.start(call, admitted)
    }

    /// Starts all of the calls, or none.
    pub fn submit_batch(&self, calls: Vec<Call>) -> Result<Vec<Responses>> {
        let admitted = calls.iter().map(admit).collect::<Result<Vec<_>>>()?;
        calls.into_iter().zip(admitted).map(|(call, admitted)| self.start(call, admitted)).collect()
    }

    /// Starts a call of work that started at `since`, once its model has a slot for it.
    pub async fn submit_started(&self, call: Call, since: Instant) -> Result<Responses> {
        let model =
            call.callable.streaming_model().expect("invariant: only calls of shared models come here");
        let admitted = model.admit_started(&call.context.tenant, since).await?;
        self.start(call, admitted)
    }

    fn start(&self, call: Call, (permit, slot): (Permit, TenantSlot)) -> Result<Responses> {
        let context = Arc::clone(&call.context);
        let (sender, responses) = channel(Arc::clone(&context), STREAM_BUFFER);
        let guard = self.in_flight.take(smallvec![Arc::clone(&context)])?;
        if call.transformer.is_none() {
            let Payload::Tensors(inputs) = call.input else {
                return Err(Error::invalid("this model has no transformer, so it takes tensors only"));
            };
            let model = call.callable.streaming_model().expect("invariant: its permit came from there");
            context.begin();
            model.start(
                permit,
                &context,
                inputs,
                sender,
                Box::new((guard, slot, TracedCall(Arc::clone(&context)))),
            );
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
            drop((guard, slot));
            sink.finish(last);
        });
        Ok(responses)
    }

    /// Starts a call with a guest that may wait for other models, or refuses it, immediately.
    pub fn submit_suspending(&self, call: Call, pool: &Arc<WorkerPool>) -> Result<Responses> {
        let precedence = call.precedence;
        let slot = match precedence {
            Precedence::New => self.take_slot(pool, &call)?,
            _ => self.shares.take_started(&call.context.tenant, Instant::now()),
        };
        let context = Arc::clone(&call.context);
        let (sender, responses) = channel(Arc::clone(&context), STREAM_BUFFER);
        let (lease, admitted) = (Arc::<WorkerLease>::default(), Instant::now());
        let work = {
            let (lease, pool) = (Arc::clone(&lease), Arc::clone(pool));
            async move {
                let mut sink = call.sink_now(sender, admitted);
                // The future is large: the thread that runs it allocates it, and then frees it
                // cheaply.
                let last = Box::pin(run(call, &mut sink, &pool, Some(&*lease))).await;
                drop(slot);
                Completion { sink, last }
            }
        };
        let requeue = Requeue { queue: Arc::clone(pool) as _, parked: Arc::clone(&self.parked) };
        let park_target = ParkTarget { runtime: self.threads()?.handle().clone(), requeue: Some(requeue) };
        let task = GuestTask::new(context, lease, RunMode::OwnWorker, Box::pin(work), park_target);
        match current_worker(pool.name()) {
            // The calling guest waits for nothing else, so its worker is free for this task.
            Some(worker) => pool.run_here(task, &worker),
            None => pool.submit_guest(precedence, task).map_err(|_| pool.refusal())?,
        }
        Ok(responses)
    }

    /// Like `submit_suspending`, for a batch as one admission. Its calls start here, a limited
    /// number at a time.
    pub fn submit_suspending_batch(
        &self,
        calls: Vec<Call>,
        pool: &Arc<WorkerPool>,
    ) -> Result<Vec<Responses>> {
        let slot = calls.first().map(|call| self.take_slot(pool, call)).transpose()?;
        let threads = self.threads()?;
        let guard = self.parked.take(calls.iter().map(|call| Arc::clone(&call.context)).collect())?;
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
            drop((guard, slot));
        });
        Ok(responses)
    }

    /// Refuses calls while as many are parked as the executor has workers and queue slots, or while
    /// their tenant has its share of these.
    fn take_slot(&self, pool: &WorkerPool, call: &Call) -> Result<TenantSlot> {
        let (parked, config) = (self.parked.len(), pool.config());
        let slots = config.workers + config.queue;
        if parked >= slots {
            return Err(
                pool.overloaded(format!("at capacity: {parked} calls wait for other models; raise `queue`"))
            );
        }
        let tenant = &call.context.tenant;
        if call.context.continues {
            return Ok(self.shares.take_started(tenant, Instant::now()));
        }
        self.shares.take(tenant, slots, slots - parked, Instant::now()).ok_or_else(|| {
            let name = tenant.name().unwrap_or_default();
            pool.overloaded(format!(
                "tenant \"{name}\" has its share of {slots} calls that may wait for other models"
            ))
            .retry_after(SHARE_TIME)
        })
    }

    fn threads(&self) -> Result<&Threads> {
        if self.threads.get().is_none() {
            let count = crate::config::cores().max(THREADS_MIN);
            let threads = Threads::start(&self.name, &format!("{}-parked", self.name), count)?;
            // Two concurrent first calls may both start threads; only one set is kept.
            let _ = self.threads.set(threads);
        }
        Ok(self.threads.get().expect("invariant: just set"))
    }

    /// Returns how many calls are here now.
    pub fn in_flight(&self) -> usize {
        self.in_flight.in_flight() + self.parked.in_flight()
    }

    pub fn running(&self) -> Vec<String> {
        [self.in_flight.running(), self.parked.running()].concat()
    }
}

/// Runs preprocess, the model and postprocess, some of which may wait. A model that may wait runs
/// within this future. Any other runs on the worker of the lease, or is queued as a call of its
/// own.
async fn run(
    call: Call,
    sink: &mut Sink,
    pool: &WorkerPool,
    lease: Option<&WorkerLease>,
) -> Result<Option<Response>> {
    let Call { context, input, callable, batching, runs, precedence, .. } = call;
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
            let _on_cancel = context.cancellation.cancels(&part);
            let input = Payload::Tensors(inputs);
            let call = Call {
                context: Arc::clone(&part),
                input,
                transformer: None,
                callable,
                batching,
                runs,
                precedence,
            };
            let mut responses = pool.submit(call)?;
            let outcome = responses.one().await.and_then(Response::tensors);
            // This call must not end before its part has released its worker.
            responses.released().await;
            context.check()?;
            context.set_note(part.note());
            Some(outcome?)
        }
    };
    context.check()?;
    let outputs = outputs.ok_or_else(|| Error::failed("the model returned no response"))?;
    sink.respond(outputs).await.map(Some)
}

/// Ends the span of a call that has no sink when this is dropped.
struct TracedCall(Arc<CallContext>);

impl Drop for TracedCall {
    fn drop(&mut self) {
        end_call(&self.0, self.0.stopped().as_ref());
    }
}

fn admit(call: &Call) -> Result<(Permit, TenantSlot)> {
    let model = call.callable.streaming_model().expect("invariant: only calls of shared models come here");
    model.admit(&call.context.tenant)
}
