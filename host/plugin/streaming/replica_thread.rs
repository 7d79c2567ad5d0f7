//! The life of a replica: its thread makes an instance, runs its event loop (`turns`), and makes another one when it
//! is lost. Nothing here decides who is admitted.

use super::call_registry::{CallRegistry, HOST};
use super::driver::{Execute, Ready, poll_ready, run_calls};
use super::event_loop::EventLoop;
use super::{Replica, Shared, Ticket};
use crate::error::{Error, Result};
use crate::plugin::bindings::concurrent::StreamingModelPlugin;
use crate::plugin::engine::TICK;
use crate::plugin::host_errors::guest_error;
use crate::plugin::instance_pool::describe_trap;
use crate::plugin::store_data::StoreData;
use crate::plugin::tensor_specs;
use crate::predict::Metadata;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use wasmtime::component::TypedFunc;
use wasmtime::{AsContextMut, Store, StoreContextMut, UpdateDeadline};

/// Guests yield to I/O, as all workers do.
const GUEST_NICE: i32 = 5;

type Announced = Result<Arc<Metadata>>;

/// Starts the thread of a replica; says what its first instance is, or why there is none.
pub(super) fn spawn(
    shared: &Arc<Shared>,
    replica: &Arc<Replica>,
    index: usize,
    tickets: UnboundedReceiver<Ticket>,
) -> Result<oneshot::Receiver<Announced>> {
    let (announce, announced) = oneshot::channel();
    let thread = ReplicaThread { shared: Arc::clone(shared), replica: Arc::clone(replica), index };
    thread.spawn(tickets, Some(announce))?;
    Ok(announced)
}

#[derive(Clone)]
pub(super) struct ReplicaThread {
    pub shared: Arc<Shared>,
    pub replica: Arc<Replica>,
    index: usize,
}

/// A thread of a replica, as long as it lives.
struct ThreadGuard(Arc<Replica>);

impl ThreadGuard {
    fn new(replica: &Arc<Replica>) -> Self {
        replica.threads.send_modify(|threads| *threads += 1);
        ThreadGuard(Arc::clone(replica))
    }
}

impl Drop for ThreadGuard {
    fn drop(&mut self) {
        self.0.threads.send_modify(|threads| *threads -= 1);
    }
}

/// How the event loop of an instance ended, how many calls ended in order there, and the way to those to come.
pub(super) type EventLoopEnd = (EndReason, u64, Option<UnboundedReceiver<Ticket>>);

/// Why an event loop ended.
pub(super) enum EndReason {
    /// Nobody can send calls any more, and all that were there are done.
    Drained,
    /// The instance cannot be used any more.
    Lost(Error),
}

impl ReplicaThread {
    pub fn spawn(
        self,
        tickets: UnboundedReceiver<Ticket>,
        announce: Option<oneshot::Sender<Announced>>,
    ) -> Result<()> {
        let name = format!("{}-{}", self.shared.spec.name, self.index);
        let failed =
            |error: std::io::Error| Error::io(&error).context(format!("cannot start the thread {name}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(failed)?;
        let thread = std::thread::Builder::new().name(name.clone());
        let alive = ThreadGuard::new(&self.replica);
        let body = move || {
            let _alive = alive;
            crate::config::lower_priority(GUEST_NICE);
            runtime.block_on(self.run_instances(tickets, announce));
        };
        thread.spawn(body).map(drop).map_err(failed)
    }

    async fn run_instances(
        self,
        tickets: UnboundedReceiver<Ticket>,
        mut announce: Option<oneshot::Sender<Announced>>,
    ) {
        let mut tickets = Some(tickets);
        let health = &self.replica.health;
        loop {
            let (fault, served) = match Instance::build(&self.shared).await {
                Ok(instance) => {
                    health.set_ready(instance.is_ready);
                    self.replica.waiting.freed();
                    if let Some(announce) = announce.take() {
                        let _ = announce.send(Ok(Arc::clone(&instance.metadata)));
                    }
                    let event_loop = EventLoop::new(instance.serve(self.clone(), tickets.take()));
                    self.replica.set_event_loop(&event_loop);
                    let (ended, served, left) = event_loop.run().await;
                    tickets = left;
                    match ended {
                        EndReason::Drained => return,
                        EndReason::Lost(fault) => (fault, served > 0),
                    }
                }
                Err(fault) => (fault, false),
            };
            if let Some(announce) = announce.take() {
                let _ = announce.send(Err(fault));
                return;
            }
            let Some(queue) = &mut tickets else { return };
            let drained = |queue: &UnboundedReceiver<Ticket>| queue.is_closed() && queue.is_empty();
            let pause = health.record_loss(&fault, served);
            if pause.is_zero() && !drained(queue) {
                continue;
            }
            let (plugin, pause_ms) = (&*self.shared.spec.name, pause.as_millis() as u64);
            if health.is_quarantined() {
                tracing::error!(plugin, pause_ms, detail = fault.detail(), "quarantined: {fault}");
                self.refuse_queued(queue);
            } else if !pause.is_zero() {
                tracing::warn!(plugin, pause_ms, detail = fault.detail(), "no instance: {fault}");
            }
            let over = |queue: &UnboundedReceiver<Ticket>| drained(queue) || *self.replica.stop.borrow();
            if !over(queue) {
                health.pause(pause).await;
            }
            if over(queue) {
                return;
            }
        }
    }

    /// Calls that wait for an instance that will not come.
    fn refuse_queued(&self, queue: &mut UnboundedReceiver<Ticket>) {
        let why = self.replica.health.refusal().unwrap_or_else(|| Error::unavailable("it is gone"));
        let why =
            why.context(format!("plugin \"{}\"", self.shared.spec.name)).plugin(&*self.shared.spec.name);
        while let Some(mut ticket) = self.replica.pop_retry().or_else(|| queue.try_recv().ok()) {
            if let Some(sender) = ticket.sender.take() {
                drop(ticket);
                sender.finish(Err(why.clone()));
            }
        }
    }
}

struct Instance {
    store: Store<StoreData>,
    exports: StreamingModelPlugin,
    execute: Execute,
    ready: Ready,
    /// What it said when it was made.
    is_ready: bool,
    registry: Arc<CallRegistry>,
    metadata: Arc<Metadata>,
    _alive: InstanceGuard,
}

struct InstanceGuard(prometheus::IntGauge);

impl Drop for InstanceGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Instance {
    /// Makes an instance, initializes it and asks what it is.
    async fn build(shared: &Shared) -> Result<Self> {
        let limits = &shared.spec.limits;
        let registry = CallRegistry::new();
        // Until it takes calls it may compute for as long as a call may take.
        match tokio::time::timeout(limits.timeout, Self::try_build(shared, &registry)).await {
            Ok(built) => built,
            Err(_) => Err(Error::deadline(format!(
                "initialize has not returned after {} ms, its timeout_ms",
                limits.timeout.as_millis()
            ))),
        }
    }

    async fn try_build(shared: &Shared, registry: &Arc<CallRegistry>) -> Result<Self> {
        let engine = shared.engine.concurrent()?;
        let failed = |error: wasmtime::Error| {
            Error::failed(format!("cannot make an instance: {}", describe_trap(&error)))
                .with_detail(format!("{error:?}"))
        };
        let started = Instant::now();
        let limits = &shared.spec.limits;
        let state =
            StoreData::shared(Arc::clone(&shared.spec), Arc::clone(registry), limits.shared.in_flight);
        let mut store = Store::new(&engine.wasmtime, state);
        store.limiter(|state| state);
        store.set_hostcall_fuel(limits.result_bytes);
        let patience = limits.timeout;
        store.epoch_deadline_callback(move |store| on_epoch_tick(store, patience));
        store.set_epoch_deadline(1);
        let _ticking = engine.tick();
        let instance = shared.pre.instance_pre().instantiate_async(&mut store).await.map_err(failed)?;
        let exports = StreamingModelPlugin::new(&mut store, &instance).map_err(failed)?;
        shared.metrics.instantiate.observe(started.elapsed().as_secs_f64());
        shared.metrics.instances.inc();
        let _alive = InstanceGuard(shared.metrics.instances.clone());
        let execute = export(&mut store, &instance, "execute").map_err(failed)?;
        let ready = export(&mut store, &instance, "ready").map_err(failed)?;
        let model = exports.hostler_concurrent_streaming_model();
        let made = store
            .run_concurrent(async |accessor| {
                registry
                    .driven(async {
                        let initialized = model.call_initialize(accessor).await?;
                        if let Err(error) = initialized {
                            return Ok(Err(error));
                        }
                        let metadata = model.call_metadata(accessor).await?;
                        wasmtime::error::Ok(Ok((metadata, model.call_ready(accessor).await?)))
                    })
                    .await
            })
            .await
            .and_then(|made| made)
            .map_err(failed)?;
        let (metadata, is_ready) = made.map_err(|error| guest_error(error).context("initialize"))?;
        let (inputs, outputs) = (tensor_specs(metadata.inputs), tensor_specs(metadata.outputs));
        let metadata = Arc::new(Metadata { inputs, outputs, streaming: metadata.streaming });
        let turn = limits.shared.turn;
        store.epoch_deadline_callback(move |store| on_epoch_tick(store, turn));
        let registry = Arc::clone(registry);
        Ok(Instance { store, exports, execute, ready, is_ready, registry, metadata, _alive })
    }

    /// Takes calls until there can be no more or the instance is lost.
    async fn serve(
        mut self,
        thread: ReplicaThread,
        mut tickets: Option<UnboundedReceiver<Ticket>>,
    ) -> EventLoopEnd {
        let thread = &thread;
        let shared = &thread.shared;
        let (registry, limits) = (Arc::clone(&self.registry), &shared.spec.limits);
        let model = self.exports.hostler_concurrent_streaming_model();
        let outcome = {
            let work = self.store.run_concurrent(async |accessor| {
                registry.driven(async {
                    tokio::select! {
                        biased;
                        taken = run_calls(accessor, thread, &mut tickets, &registry, &self.execute, &self.metadata) => taken?,
                        fault = poll_ready(accessor, thread, &registry, self.ready) => return Err(fault),
                    }
                    let finalized = tokio::time::timeout(limits.timeout, model.call_finalize(accessor)).await;
                    finalized.unwrap_or_else(|_| {
                        let (plugin, limit_ms) = (&*shared.spec.name, limits.timeout.as_millis() as u64);
                        tracing::warn!(plugin, limit_ms, "finalize has not returned within timeout_ms");
                        Ok(())
                    })
                })
                .await
            });
            let mut work = pin!(work);
            let engine = shared.engine.concurrent();
            let ticked = std::future::poll_fn(|task| {
                let _ticking = engine.as_ref().map(|engine| engine.tick());
                work.as_mut().poll(task)
            });
            tokio::select! {
                biased;
                outcome = ticked => outcome.and_then(|outcome| outcome),
                () = registry.stuck(limits.shared.turn) => {
                    Err(wasmtime::Error::msg("waited in a way that stops all others: not through hostler:concurrent"))
                }
            }
        };
        let Err(error) = outcome else { return (EndReason::Drained, registry.served(), tickets) };
        shared.metrics.traps.inc();
        if let Ok(stack) = self.store.as_context_mut().async_call_stack() {
            let stack: Vec<_> = stack.collect();
            registry.blame(stack);
        }
        let fault = self.explain(shared, &error);
        // What the instance held is gone before its callers know.
        drop(self.store);
        fail_calls(thread, &registry, &fault);
        (EndReason::Lost(fault), registry.served(), tickets)
    }

    fn explain(&self, shared: &Shared, error: &wasmtime::Error) -> Error {
        let (name, limits) = (&shared.spec.name, &shared.spec.limits);
        let state = self.store.data();
        let last_words = state.log.end();
        let words = if error.downcast_ref() == Some(&wasmtime::Trap::Interrupt) {
            format!("computed for more than {} ms in one go; see turn_ms", limits.shared.turn.as_millis())
        } else if state.memory_refused {
            format!("wanted more than its {} MB of memory; see memory_mb", limits.memory_bytes >> 20)
        } else if let Some(own) = error.downcast_ref::<Error>() {
            return Error::failed(own.message())
                .plugin(&**name)
                .with_detail(format!("{last_words}{error:?}"));
        } else {
            describe_trap(error)
        };
        Error::failed(format!("plugin \"{name}\" {words}"))
            .plugin(&**name)
            .with_detail(format!("{last_words}{error:?}"))
    }
}

/// Tells all whose instance is lost, or sends them to the next one.
fn fail_calls(thread: &ReplicaThread, registry: &CallRegistry, fault: &Error) {
    let name = &thread.shared.spec.name;
    let culprit_known = registry.blamed();
    let calls = registry.take_all();
    tracing::warn!(plugin = &**name, calls = calls.len(), detail = fault.detail(), "instance lost: {fault}");
    for (culprit, call) in calls {
        if !culprit && let Some(ticket) = call.retry_ticket() {
            thread.replica.push_retry(ticket);
            continue;
        }
        let to = match culprit_known {
            Some(HOST) => " in the middle of this request",
            Some(_) if !culprit => " to another request, in the middle of this one",
            _ => {
                call.fail_lost(fault.clone());
                continue;
            }
        };
        let message = format!("plugin \"{name}\" lost its instance{to}: {fault}");
        call.fail_lost(Error::unavailable(message).plugin(&**name));
    }
}

/// Asked at each tick of the epoch while the guest runs.
fn on_epoch_tick(
    mut store: StoreContextMut<'_, StoreData>,
    turn: Duration,
) -> wasmtime::Result<UpdateDeadline> {
    let registry = store.data().registry.clone().expect("invariant: set when the store was made");
    if TICK * registry.tick() < turn {
        return Ok(UpdateDeadline::Continue(1));
    }
    let stack: Vec<_> = store.async_call_stack()?.collect();
    registry.blame(stack);
    Ok(UpdateDeadline::Interrupt)
}

/// The function behind the generated binding: only it tells which task a call is.
fn export<P, R>(
    store: &mut Store<StoreData>,
    instance: &wasmtime::component::Instance,
    name: &str,
) -> wasmtime::Result<TypedFunc<P, R>>
where
    P: wasmtime::component::ComponentNamedList + wasmtime::component::Lower,
    R: wasmtime::component::ComponentNamedList + wasmtime::component::Lift,
{
    const ROLE: &str = "hostler:concurrent/streaming-model@0.1.0";
    let role = instance.get_export_index(&mut *store, None, ROLE);
    let function = instance.get_export_index(&mut *store, role.as_ref(), name);
    let function = function.ok_or_else(|| wasmtime::Error::msg(format!("it has no {name}")))?;
    instance.get_typed_func(store, function)
}
