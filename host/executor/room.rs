//! Where calls are that wait and hold no worker, known by name.
//!
//! Those whose model waits by itself in an instance of its own are bounded by their model; a transformer around such
//! a model runs on threads of the room, where guests take turns. Those of plugins that call other models have their
//! turn on a worker, and come here when they wait: as many as have room on the executor, so that the workers are
//! always free for what is waited for.

use super::custom::BATCH_AT_ONCE;
use super::lend::{Answer, Home, Lease, LentCall, Terms};
use super::pool::{STREAM_BUFFER, WORKER_NICE, WorkerPool};
use super::{Call, Lent, Sink};
use crate::error::{Error, Result};
use crate::plugin::{Permit, share_this_thread};
use crate::predict::{Context, Payload, Response, Responses, channel};
use smallvec::SmallVec;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;
use tokio::task::JoinSet;

/// Threads for the guests of all calls, at least; one that computes keeps others waiting for a tick.
const THREADS_MIN: usize = 2;

pub(super) struct Room {
    name: Arc<str>,
    places: Arc<Places>,
    /// Of those that have begun on a worker.
    waiting: Arc<Places>,
    /// Started with the first call that has a guest here.
    runtime: OnceLock<Background>,
}

struct Background(Option<tokio::runtime::Runtime>);

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

#[derive(Default)]
pub(super) struct Places(Mutex<Taken>);

#[derive(Default)]
struct Taken {
    next: u64,
    calls: HashMap<u64, Members>,
}

/// The calls of one admission.
type Members = SmallVec<[Arc<Context>; 1]>;

impl Places {
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn take(self: &Arc<Self>, calls: impl IntoIterator<Item = Arc<Context>>) -> Place {
        let mut taken = self.lock();
        let key = taken.next;
        taken.next += 1;
        taken.calls.insert(key, calls.into_iter().collect());
        drop(taken);
        Place { places: Arc::clone(self), key }
    }
}

/// Calls are here for as long as this lives.
pub(super) struct Place {
    places: Arc<Places>,
    key: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().calls.remove(&self.key);
    }
}

impl Room {
    pub fn new(name: &str) -> Self {
        Room { name: name.into(), places: Arc::default(), waiting: Arc::default(), runtime: OnceLock::new() }
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

    fn start(&self, call: Call, permit: Permit) -> Result<Responses> {
        let context = Arc::clone(&call.context);
        let (sender, responses) = channel(Arc::clone(&context), STREAM_BUFFER);
        let place = self.places.take([Arc::clone(&context)]);
        if call.transformer.is_none() {
            let Payload::Tensors(inputs) = call.input else {
                return Err(Error::invalid("this model has no transformer, so it takes tensors only"));
            };
            let model = call.callable.shared().expect("invariant: its permit came from there");
            model.start(permit, &context, inputs, sender, Box::new(place));
            return Ok(responses);
        }
        let admitted = Instant::now();
        self.runtime()?.spawn(async move {
            let mut sink = Sink::new(sender, &call, admitted.elapsed());
            let Call { context, input, callable, .. } = call;
            let outcome = async {
                let inputs = sink.preprocess(input, &*callable).await?;
                let model = callable.shared().expect("invariant: its permit came from there");
                match model.run(permit, &context, inputs, &mut sink).await? {
                    Some(outputs) => sink.respond(outputs).await.map(Some),
                    None => Ok(None),
                }
            };
            let last = outcome.await;
            drop(place);
            sink.finish(last);
        });
        Ok(responses)
    }

    /// Begins a call with a guest that may wait for other models, or refuses it, at once.
    pub fn begin(&self, call: Call, pool: &Arc<WorkerPool>) -> Result<Responses> {
        self.check_space(pool)?;
        let context = Arc::clone(&call.context);
        let (sender, responses) = channel(Arc::clone(&context), STREAM_BUFFER);
        let (lease, admitted) = (Arc::<Lease>::default(), Instant::now());
        let work = {
            let (lease, pool) = (Arc::clone(&lease), Arc::clone(pool));
            async move {
                let mut sink = Sink::new(sender, &call, admitted.elapsed());
                let last = run(call, &mut sink, &pool, Some(&*lease)).await;
                Answer { sink, last }
            }
        };
        let home =
            Home { runtime: self.runtime()?.handle().clone(), places: Some(Arc::clone(&self.waiting)) };
        let lent = Lent { context, lease, terms: Terms::Turn, work: Box::pin(work), home };
        pool.lend(lent).map_err(|_| pool.refusal())?;
        Ok(responses)
    }

    /// The same for a batch, as one admission. Its calls begin here, some at a time.
    pub fn begin_batch(&self, calls: Vec<Call>, pool: &Arc<WorkerPool>) -> Result<Vec<Responses>> {
        self.check_space(pool)?;
        let runtime = self.runtime()?;
        let place = self.waiting.take(calls.iter().map(|call| Arc::clone(&call.context)));
        let channels = calls.into_iter().map(|call| {
            let (sender, responses) = channel(Arc::clone(&call.context), STREAM_BUFFER);
            ((call, sender), responses)
        });
        let (calls, responses): (Vec<_>, Vec<_>) = channels.unzip();
        let (pool, admitted) = (Arc::clone(pool), Instant::now());
        runtime.spawn(async move {
            let mut running = JoinSet::new();
            for (call, sender) in calls {
                if running.len() >= BATCH_AT_ONCE {
                    running.join_next().await;
                }
                let pool = Arc::clone(&pool);
                running.spawn(async move {
                    let mut sink = Sink::new(sender, &call, admitted.elapsed());
                    let last = run(call, &mut sink, &pool, None).await;
                    sink.finish(last);
                });
            }
            while running.join_next().await.is_some() {}
            drop(place);
        });
        Ok(responses)
    }

    /// Refuses calls while as many wait as have room on the executor.
    fn check_space(&self, pool: &WorkerPool) -> Result<()> {
        let (waiting, config) = (self.waiting.lock().calls.len(), pool.config());
        if waiting < config.workers + config.queue {
            return Ok(());
        }
        Err(pool.overloaded(format!("{waiting} calls wait for other models, as many as have room here")))
    }

    fn runtime(&self) -> Result<&tokio::runtime::Runtime> {
        let failed = |error: std::io::Error| {
            Error::failed(format!("executor \"{}\": cannot start threads: {error}", self.name))
        };
        if self.runtime.get().is_none() {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(crate::config::cores().max(THREADS_MIN))
                .thread_name(format!("{}-room", self.name))
                .on_thread_start(|| {
                    crate::config::lower_priority(WORKER_NICE);
                    share_this_thread();
                })
                .enable_time()
                .build()
                .map_err(failed)?;
            // Made twice at worst, by two first calls at once; one of them stays.
            let _ = self.runtime.set(Background(Some(runtime)));
        }
        let runtime = self.runtime.get().and_then(|background| background.0.as_ref());
        Ok(runtime.expect("invariant: just set, and taken on drop only"))
    }

    /// Calls that are here now.
    pub fn in_flight(&self) -> usize {
        let calls = |places: &Places| places.lock().calls.values().map(|calls| calls.len()).sum::<usize>();
        calls(&self.places) + calls(&self.waiting)
    }

    pub fn running(&self) -> Vec<String> {
        let ids = |places: &Places| -> Vec<_> {
            places.lock().calls.values().flatten().map(|context| context.id.to_string()).collect()
        };
        [ids(&self.places), ids(&self.waiting)].concat()
    }
}

/// Preprocess, the model and postprocess, of which some may wait. The model itself runs on the worker that the lease
/// is for, or has a turn of its own there, unless it is a guest that may wait.
async fn run(
    call: Call,
    sink: &mut Sink,
    pool: &WorkerPool,
    lease: Option<&Lease>,
) -> Result<Option<Response>> {
    let Call { context, input, callable, batching, runs, .. } = call;
    let inputs = sink.preprocess(input, &*callable).await?;
    if callable.waits() {
        return sink.run(&*callable, inputs).await;
    }
    let lease = lease.filter(|lease| batching.is_none() && lease.is_held());
    let outputs = match lease {
        Some(lease) => lease.run(LentCall { context: Arc::clone(&context), callable, inputs, runs }).await?,
        None => {
            sink.lend_instance(pool.config().workers);
            let part = Arc::new(context.part(context.deadline));
            let cancelled = Arc::clone(&part);
            let _leaving = context.cancellation.on_cancel(move || cancelled.cancellation.cancel());
            let input = Payload::Tensors(inputs);
            let call =
                Call { context: Arc::clone(&part), input, transformer: None, callable, batching, runs };
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
    call.callable.shared().expect("invariant: only calls of shared models come here").admit()
}
