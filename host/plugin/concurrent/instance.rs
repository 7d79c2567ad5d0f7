//! The life of a replica: its thread makes an instance, runs its event loop, and makes another one when it is
//! lost. Nothing here decides who is admitted.

use super::desk::{Desk, InFlight};
use super::host_calls::Sink;
use super::{Replica, Shared, Ticket};
use crate::error::{Error, Result};
use crate::plugin::bindings::concurrent::StreamingModelPlugin;
use crate::plugin::bindings::types;
use crate::plugin::engine::TICK;
use crate::plugin::host_calls::Request;
use crate::plugin::instance::in_words;
use crate::plugin::state::State;
use crate::plugin::tensor_specs;
use crate::predict::{Metadata, Tensor};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use wasmtime::component::{Accessor, AccessorTask, Resource, TypedFunc};
use wasmtime::{AsContextMut, Store, StoreContextMut, UpdateDeadline};

/// Guests yield to I/O, as all workers do.
const GUEST_NICE: i32 = 5;

/// Calls that were given up and stay in an instance before it is replaced.
const STRANDED_MAX: usize = 256;

/// The longest pause before another attempt to make an instance.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

type Execute = TypedFunc<
    (Resource<Request>, Vec<Resource<Tensor>>, Resource<Sink>),
    (std::result::Result<(), types::Error>,),
>;

type Announced = Result<Arc<Metadata>>;

/// Starts the thread of a replica; says what its first instance is, or why there is none.
pub(super) fn spawn(
    shared: &Arc<Shared>,
    replica: &Arc<Replica>,
    index: usize,
    tickets: UnboundedReceiver<Ticket>,
) -> Result<oneshot::Receiver<Announced>> {
    let (announce, announced) = oneshot::channel();
    let life = Life { shared: Arc::clone(shared), replica: Arc::clone(replica), index };
    life.spawn(tickets, Some(announce))?;
    Ok(announced)
}

#[derive(Clone)]
struct Life {
    shared: Arc<Shared>,
    replica: Arc<Replica>,
    index: usize,
}

/// How the event loop of an instance ended.
enum Ended {
    /// Nobody can send calls any more, and all that were there are done.
    Drained,
    /// The instance cannot be used any more.
    Lost(Error),
}

impl Life {
    fn spawn(
        self,
        tickets: UnboundedReceiver<Ticket>,
        announce: Option<oneshot::Sender<Announced>>,
    ) -> Result<()> {
        let name = format!("{}-{}", self.shared.grant.name, self.index);
        let failed =
            |error: std::io::Error| Error::failed(format!("cannot start the thread {name}: {error}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(failed)?;
        let thread = std::thread::Builder::new().name(name.clone());
        let live = move || {
            crate::config::lower_priority(GUEST_NICE);
            runtime.block_on(self.live(tickets, announce));
        };
        thread.spawn(live).map(drop).map_err(failed)
    }

    async fn live(
        self,
        tickets: UnboundedReceiver<Ticket>,
        mut announce: Option<oneshot::Sender<Announced>>,
    ) {
        let mut tickets = Some(tickets);
        let mut failures = 0;
        loop {
            let fault = match Instance::build(&self.shared).await {
                Ok(instance) => {
                    self.replica.set_fault(None);
                    if let Some(announce) = announce.take() {
                        let _ = announce.send(Ok(Arc::clone(&instance.metadata)));
                    }
                    match instance.serve(&self, &mut tickets).await {
                        (Ended::Drained, _) => return,
                        (Ended::Lost(fault), served) => {
                            // One that has served before is worth another at once.
                            failures = if served > 0 { 0 } else { failures };
                            fault
                        }
                    }
                }
                Err(fault) => fault,
            };
            if let Some(announce) = announce.take() {
                let _ = announce.send(Err(fault));
                return;
            }
            let Some(queue) = &mut tickets else { return };
            if queue.is_closed() && queue.is_empty() {
                return;
            }
            if failures > 0 {
                let pause = Duration::from_millis(10 << failures.min(10)).min(BACKOFF_MAX);
                let (plugin, pause_ms) = (&*self.shared.grant.name, pause.as_millis() as u64);
                tracing::warn!(plugin, pause_ms, detail = fault.detail(), "no instance: {fault}");
                self.replica.set_fault(Some(fault));
                tokio::time::sleep(pause).await;
            }
            failures += 1;
        }
    }
}

struct Instance {
    store: Store<State>,
    exports: StreamingModelPlugin,
    execute: Execute,
    desk: Arc<Desk>,
    metadata: Arc<Metadata>,
    _alive: Alive,
}

struct Alive(prometheus::IntGauge);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Instance {
    /// Makes an instance, initializes it and asks what it is.
    async fn build(shared: &Shared) -> Result<Self> {
        let limits = &shared.grant.limits;
        let desk = Desk::new();
        // Until it takes calls it may compute for as long as a call may take.
        match tokio::time::timeout(limits.timeout, Self::try_build(shared, &desk)).await {
            Ok(built) => built,
            Err(_) => Err(Error::deadline(format!(
                "initialize has not returned after {} ms, its timeout_ms",
                limits.timeout.as_millis()
            ))),
        }
    }

    async fn try_build(shared: &Shared, desk: &Arc<Desk>) -> Result<Self> {
        let engine = shared.engine.concurrent()?;
        let failed = |error: wasmtime::Error| {
            Error::failed(format!("cannot make an instance: {}", in_words(&error)))
                .source(format!("{error:?}"))
        };
        let started = Instant::now();
        let limits = &shared.grant.limits;
        let state = State::shared(Arc::clone(&shared.grant), Arc::clone(desk), limits.shared.in_flight);
        let mut store = Store::new(&engine.wasmtime, state);
        store.limiter(|state| state);
        store.set_hostcall_fuel(limits.result_bytes);
        let patience = limits.timeout;
        store.epoch_deadline_callback(move |store| go_on(store, patience));
        store.set_epoch_deadline(1);
        let _ticking = engine.tick();
        let instance = shared.pre.instance_pre().instantiate_async(&mut store).await.map_err(failed)?;
        let exports = StreamingModelPlugin::new(&mut store, &instance).map_err(failed)?;
        shared.metrics.instantiate.observe(started.elapsed().as_secs_f64());
        shared.metrics.instances.inc();
        let _alive = Alive(shared.metrics.instances.clone());
        let execute = execute(&mut store, &instance).map_err(failed)?;
        let model = exports.hostler_concurrent_streaming_model();
        let made = store
            .run_concurrent(async |accessor| {
                desk.driven(async {
                    let initialized = model.call_initialize(accessor).await?;
                    wasmtime::error::Ok((initialized, model.call_metadata(accessor).await?))
                })
                .await
            })
            .await
            .and_then(|made| made)
            .map_err(failed)?;
        let (initialized, metadata) = made;
        initialized.map_err(|error| Error::from(error).context("initialize"))?;
        let (inputs, outputs) = (tensor_specs(metadata.inputs), tensor_specs(metadata.outputs));
        let metadata = Arc::new(Metadata { inputs, outputs, streaming: metadata.streaming });
        let turn = limits.shared.turn;
        store.epoch_deadline_callback(move |store| go_on(store, turn));
        Ok(Instance { store, exports, execute, desk: Arc::clone(desk), metadata, _alive })
    }

    /// Takes calls until there can be no more or the instance is lost; gives how many have ended in order.
    async fn serve(mut self, life: &Life, tickets: &mut Option<UnboundedReceiver<Ticket>>) -> (Ended, u64) {
        let shared = &life.shared;
        let (desk, limits) = (Arc::clone(&self.desk), &shared.grant.limits);
        let model = self.exports.hostler_concurrent_streaming_model();
        let outcome = {
            let work = self.store.run_concurrent(async |accessor| {
                desk.driven(async {
                    take_calls(accessor, life, tickets, &desk, &self.execute, &self.metadata).await?;
                    model.call_finalize(accessor).await
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
                () = desk.stuck(limits.shared.turn) => {
                    Err(wasmtime::Error::msg("waited in a way that stops all others: not through hostler:concurrent"))
                }
            }
        };
        let Err(error) = outcome else { return (Ended::Drained, desk.served()) };
        shared.metrics.traps.inc();
        if let Ok(stack) = self.store.as_context_mut().async_call_stack() {
            let stack: Vec<_> = stack.collect();
            desk.accuse(stack);
        }
        let fault = self.explain(shared, &error);
        // What the instance held is gone before its callers know.
        drop(self.store);
        mourn(life, &desk, &fault);
        (Ended::Lost(fault), desk.served())
    }

    fn explain(&self, shared: &Shared, error: &wasmtime::Error) -> Error {
        let (name, limits) = (&shared.grant.name, &shared.grant.limits);
        let state = self.store.data();
        let last_words = state.log.end();
        let words = if error.downcast_ref() == Some(&wasmtime::Trap::Interrupt) {
            format!("computed for more than {} ms in one go; see turn_ms", limits.shared.turn.as_millis())
        } else if state.memory_refused {
            format!("wanted more than its {} MB of memory; see memory_mb", limits.memory_bytes >> 20)
        } else {
            in_words(error)
        };
        Error::failed(format!("plugin \"{name}\" {words}"))
            .plugin(&**name)
            .source(format!("{last_words}{error:?}"))
    }
}

/// Tells all whose instance is lost, or sends them to the next one.
fn mourn(life: &Life, desk: &Desk, fault: &Error) {
    let name = &life.shared.grant.name;
    let knows_culprit = desk.knows_culprit();
    let calls = desk.clear();
    tracing::warn!(plugin = &**name, calls = calls.len(), detail = fault.detail(), "instance lost: {fault}");
    for (culprit, call) in calls {
        if !culprit && let Some(ticket) = call.again() {
            life.replica.again(ticket);
            continue;
        }
        call.lost(match (culprit, knows_culprit) {
            (true, _) | (_, false) => fault.clone(),
            (false, true) => Error::unavailable(format!(
                "plugin \"{name}\" lost its instance to another request, in the middle of this one: {fault}"
            ))
            .plugin(&**name),
        });
    }
}

/// The event loop's own part: begins calls as they come, until the last sender is gone and all is done.
async fn take_calls(
    accessor: &Accessor<State>,
    life: &Life,
    tickets: &mut Option<UnboundedReceiver<Ticket>>,
    desk: &Arc<Desk>,
    execute: &Execute,
    metadata: &Arc<Metadata>,
) -> wasmtime::Result<()> {
    let limits = &life.shared.grant.limits;
    loop {
        let retried = life.replica.retried();
        let ticket = match (retried, tickets.as_mut()) {
            (Some(ticket), _) => Some(ticket),
            (None, Some(queue)) => tokio::select! {
                ticket = queue.recv() => ticket,
                () = desk.until(|desk| desk.stranded() >= STRANDED_MAX) => {
                    // Another instance goes on, on a thread of its own, while this one ends its calls.
                    let queue = tickets.take().expect("invariant: it was there");
                    tracing::info!(plugin = &*life.shared.grant.name, "replacing an instance full of stranded calls");
                    if let Err(error) = life.clone().spawn(queue, None) {
                        tracing::error!(plugin = &*life.shared.grant.name, "{error}");
                    }
                    None
                }
            },
            (None, None) => None,
        };
        let Some(ticket) = ticket else { break };
        life.shared.metrics.calls.inc();
        let inputs = ticket.inputs.clone();
        let (key, call) = desk.seat(InFlight::new(ticket, &life.shared.grant.name, limits.timeout, metadata));
        let (execute, desk, grace) = (*execute, Arc::clone(desk), limits.shared.grace);
        accessor.spawn(Serve { key, call, inputs, execute, desk, grace })?;
    }
    let _ = tokio::time::timeout(limits.timeout, desk.until(Desk::is_empty)).await;
    Ok(())
}

/// One call in the event loop.
struct Serve {
    key: u32,
    call: Arc<InFlight>,
    inputs: Vec<Tensor>,
    execute: Execute,
    desk: Arc<Desk>,
    grace: Duration,
}

impl AccessorTask<State> for Serve {
    async fn run(self, accessor: &Accessor<State>) -> wasmtime::Result<()> {
        let Serve { key, call, inputs, execute, desk, grace } = self;
        let begun = accessor.with(|mut access| {
            let table = &mut access.get().table;
            let inputs = inputs.into_iter().map(|tensor| Ok(table.push(tensor)?));
            let inputs = inputs.collect::<wasmtime::Result<Vec<_>>>()?;
            let parameters = (Resource::new_own(key), inputs, Resource::new_own(key));
            let begun = execute.start_call_concurrent(&mut access, parameters)?;
            desk.assign(begun.task(), key);
            wasmtime::error::Ok(begun)
        })?;
        let task = begun.task();
        let given_up = async {
            call.fail(call.over().await);
            tokio::time::sleep(grace).await;
        };
        tokio::select! {
            biased;
            outcome = execute.finish_call_concurrent(accessor, begun) => {
                let (outcome,) = outcome?;
                desk.leave(key, task, true);
                call.end(outcome.map_err(|error| call.own(error.into()))).await;
            }
            () = given_up => {
                desk.leave(key, task, false);
                call.end(Ok(())).await;
            }
        }
        Ok(())
    }
}

/// Asked at each tick of the epoch while the guest runs.
fn go_on(mut store: StoreContextMut<'_, State>, turn: Duration) -> wasmtime::Result<UpdateDeadline> {
    let desk = store.data().desk.clone().expect("invariant: set when the store was made");
    if TICK * desk.tick() < turn {
        return Ok(UpdateDeadline::Continue(1));
    }
    let stack: Vec<_> = store.async_call_stack()?.collect();
    desk.accuse(stack);
    Ok(UpdateDeadline::Interrupt)
}

/// The function behind the generated binding: only it tells which task a call is.
fn execute(store: &mut Store<State>, instance: &wasmtime::component::Instance) -> wasmtime::Result<Execute> {
    const ROLE: &str = "hostler:concurrent/streaming-model@0.1.0";
    let role = instance.get_export_index(&mut *store, None, ROLE);
    let function = instance.get_export_index(&mut *store, role.as_ref(), "execute");
    let function = function.ok_or_else(|| wasmtime::Error::msg("it has no execute"))?;
    instance.get_typed_func(store, function)
}
