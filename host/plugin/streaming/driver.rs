//! The host's work in the event loop of an instance: it starts calls as they arrive, polls `ready`,
//! and waits for the last calls at the end.

use super::active_call::{ActiveCall, CallInputs};
use super::call_registry::{CallRegistry, HOST};
use super::context::ReplicaContext;
use super::replica::QueuedCall;
use crate::error::Error;
use crate::plugin::bindings::types;
use crate::plugin::handles::Inputs;
use crate::plugin::resources::{Request, Sink};
use crate::plugin::store_data::StoreData;
use crate::predict::{Metadata, Tensor};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use wasmtime::component::{Accessor, GuestTaskId, Resource, TypedFunc};

/// Abandoned calls that may accumulate in an instance before it is replaced.
const ABANDONED_MAX: usize = 256;

/// How often an instance is asked whether it is ready.
const READY_EVERY: Duration = Duration::from_secs(1);

/// A call of `ready` that takes this long counts as waiting, which it must not do.
const READY_LIMIT: Duration = Duration::from_secs(1);

/// Time that forcibly ended calls may take beyond their grace before the instance is dropped.
const DRAIN_SLACK: Duration = Duration::from_secs(1);

type Parameters = (Resource<Request>, Vec<Resource<Tensor>>, Resource<Sink>);

type ExecuteResult = (std::result::Result<(), types::Error>,);

pub(super) type Execute = TypedFunc<Parameters, ExecuteResult>;

pub(super) type Ready = TypedFunc<(), (bool,)>;

/// Starts calls as they arrive, until the last sender is gone and all calls have ended.
pub(super) async fn run_calls(
    accessor: &Accessor<StoreData>,
    cx: &ReplicaContext,
    incoming: &mut Option<UnboundedReceiver<QueuedCall>>,
    registry: &Arc<CallRegistry>,
    execute: &Execute,
    metadata: &Arc<Metadata>,
) -> wasmtime::Result<()> {
    let limits = &cx.shared.spec.limits;
    let (mut stop, mut replaced) = (cx.replica.stop.subscribe(), cx.replica.replaced.subscribe());
    // These futures live across calls: creating them anew for each call costs more than the rest.
    let mut stopped = pin!(stop.wait_for(|stop| *stop));
    let mut full = pin!(registry.until_exhausted(ABANDONED_MAX));
    let mut serving = FuturesUnordered::new();
    let mut key = HOST;
    'calls: loop {
        let mut drained = pin!(drain_timer(cx, *replaced.borrow_and_update()));
        let mut is_drained = false;
        let mut changed = pin!(replaced.changed());
        loop {
            let retried = cx.replica.pop_retry();
            let queued = match (retried, incoming.as_mut()) {
                (Some(queued), _) => Some(queued),
                (None, Some(queue)) => tokio::select! {
                    Some(served) = serving.next() => {
                        served?;
                        continue;
                    }
                    queued = queue.recv() => queued,
                    _ = &mut stopped, if !queue.is_closed() => {
                        queue.close();
                        continue;
                    }
                    Ok(()) = &mut changed => continue 'calls,
                    () = &mut drained, if !is_drained => {
                        // The instance stays for as long as a rollback to it is possible.
                        is_drained = true;
                        stop_calls(cx, registry);
                        continue;
                    }
                    why = &mut full => {
                        // Another instance takes over, on its own thread, while this one ends its
                        // calls.
                        let (queue, plugin) = (incoming.take(), &*cx.shared.spec.name);
                        tracing::info!(plugin, why, "instance replaced");
                        if let Err(error) = (cx.start_thread)(cx.clone(), queue.expect("invariant: it was there")) {
                            tracing::error!(plugin, "{error}");
                        }
                        None
                    }
                },
                (None, None) => None,
            };
            let Some(mut queued) = queued else { break 'calls };
            cx.shared.metrics.calls.inc();
            // The inputs of a call that cannot be retried need not be kept.
            let inputs = match queued.idempotent {
                true => queued.inputs.clone(),
                false => std::mem::take(&mut queued.inputs),
            };
            key = key.wrapping_add(1).max(HOST + 1);
            let (begun, call_inputs) = accessor.with(|mut access| {
                let handles = &mut access.get().handles;
                let mut call_inputs = CallInputs { inputs: Inputs::new(), held: Arc::clone(handles.held()) };
                let push = |tensor| Ok(handles.push_input(tensor, key, &mut call_inputs.inputs)?);
                let inputs = inputs.into_iter().map(push).collect::<wasmtime::Result<Vec<_>>>()?;
                let parameters = (Resource::new_own(key), inputs, Resource::new_own(key));
                wasmtime::error::Ok((execute.start_call_concurrent(&mut access, parameters)?, call_inputs))
            })?;
            let call = ActiveCall::new(queued, &cx.shared.spec, metadata, call_inputs);
            let call = registry.insert(key, begun.task(), call);
            let task = begun.task();
            let mut outcome = Box::pin(execute.finish_call_concurrent(accessor, begun));
            // The guest runs now. Afterwards most calls have ended and need not be tracked.
            registry.next_turn().await;
            let at_once = (!metadata.streaming).then(|| outcome.as_mut().now_or_never()).flatten();
            match at_once {
                Some(outcome) => finish_call(accessor, registry, key, task, &call, outcome?).await,
                None => serving.push(serve_call(
                    accessor,
                    registry,
                    key,
                    task,
                    call,
                    outcome,
                    limits.shared.grace,
                )),
            }
        }
    }
    drain(cx, registry, &mut serving).await
}

/// Runs one call in the event loop, until its guest has returned or the call is abandoned.
async fn serve_call(
    accessor: &Accessor<StoreData>,
    registry: &CallRegistry,
    key: u32,
    task: GuestTaskId,
    call: Arc<ActiveCall>,
    outcome: impl Future<Output = wasmtime::Result<ExecuteResult>>,
    grace: Duration,
) -> wasmtime::Result<()> {
    let abandoned = async {
        let reason = call.ended().await;
        call.fail(reason.clone());
        tokio::time::sleep(grace).await;
        reason
    };
    tokio::select! {
        biased;
        outcome = outcome => finish_call(accessor, registry, key, task, &call, outcome?).await,
        reason = abandoned => {
            registry.remove(key, task, false);
            release_inputs(accessor, registry, key, &call);
            call.end(Err(reason)).await;
        }
    }
    Ok(())
}

/// From now on, the inputs that the guest has kept count as the guest's. Replaces the instance if
/// it holds too much without a call in flight, or if a host call was refused because of what it
/// holds.
fn release_inputs(accessor: &Accessor<StoreData>, registry: &CallRegistry, key: u32, call: &ActiveCall) {
    let over_limit = accessor.with(|mut access| {
        let handles = &mut access.get().handles;
        handles.end(key, &call.inputs);
        let held = handles.held();
        held.was_refused() || (held.is_over() && registry.is_empty())
    });
    if over_limit {
        registry.set_over_limit();
    }
}

/// Ends a call whose guest has returned.
async fn finish_call(
    accessor: &Accessor<StoreData>,
    registry: &CallRegistry,
    key: u32,
    task: GuestTaskId,
    call: &ActiveCall,
    (outcome,): ExecuteResult,
) {
    registry.remove(key, task, true);
    release_inputs(accessor, registry, key, call);
    call.end(outcome.map_err(|error| registry.returned(call, error))).await;
}

fn drain_limit(cx: &ReplicaContext) -> Duration {
    let limits = &cx.shared.spec.limits;
    limits.shared.drain.unwrap_or(limits.timeout)
}

/// Returns when a replaced plugin has used up its drain time; never for one that was not replaced.
async fn drain_timer(cx: &ReplicaContext, replaced: bool) {
    match replaced {
        true => tokio::time::sleep(drain_limit(cx)).await,
        false => std::future::pending().await,
    }
}

/// Waits for the remaining calls to end. Calls that do not end in time are ended by force.
async fn drain<F>(
    cx: &ReplicaContext,
    registry: &CallRegistry,
    serving: &mut FuturesUnordered<F>,
) -> wasmtime::Result<()>
where
    F: Future<Output = wasmtime::Result<()>>,
{
    if let Ok(ended) = tokio::time::timeout(drain_limit(cx), join_all(serving)).await {
        return ended;
    }
    stop_calls(cx, registry);
    let grace = cx.shared.spec.limits.shared.grace;
    tokio::time::timeout(grace + DRAIN_SLACK, join_all(serving)).await.unwrap_or(Ok(()))
}

async fn join_all<F>(serving: &mut FuturesUnordered<F>) -> wasmtime::Result<()>
where
    F: Future<Output = wasmtime::Result<()>>,
{
    while let Some(served) = serving.next().await {
        served?;
    }
    Ok(())
}

/// Tells all calls that their time is over, and tells the operator which calls these are.
fn stop_calls(cx: &ReplicaContext, registry: &CallRegistry) {
    let (name, limit_ms) = (&cx.shared.spec.name, drain_limit(cx).as_millis() as u64);
    let limits = &cx.shared.spec.limits;
    // Without drain_ms, or with one above it, it is timeout_ms that ends a call.
    let key = match limits.shared.drain {
        Some(drain) if drain < limits.timeout => "drain_ms",
        _ => "timeout_ms",
    };
    let message = format!(
        "plugin \"{name}\" was replaced or stopped, and this call did not end within {limit_ms} ms; raise {key}"
    );
    let requests = registry.stop_all(&Error::unavailable(message).plugin(&**name));
    if !requests.is_empty() {
        tracing::warn!(plugin = &**name, limit_ms, requests = requests.join(", "), "calls ended by force");
        cx.shared.engine.drain_timeouts.add(name, requests);
    }
}

/// Calls the guest's `ready` periodically. Returns only when that makes the instance unusable.
pub(super) async fn poll_ready(
    accessor: &Accessor<StoreData>,
    cx: &ReplicaContext,
    registry: &CallRegistry,
    ready: Ready,
) -> wasmtime::Error {
    loop {
        tokio::time::sleep(READY_EVERY).await;
        let poll = async {
            let begun = accessor.with(|mut access| {
                let begun = ready.start_call_concurrent(&mut access, ())?;
                registry.assign_task(begun.task(), HOST);
                wasmtime::error::Ok(begun)
            })?;
            let task = begun.task();
            let (ready,) = ready.finish_call_concurrent(accessor, begun).await?;
            registry.remove_task(task);
            wasmtime::error::Ok(ready)
        };
        let fault = match tokio::time::timeout(READY_LIMIT, poll).await {
            Ok(Ok(ready)) => {
                let is_news = cx.replica.health.set_ready(ready);
                cx.replica.waiting.freed();
                if is_news {
                    tracing::info!(plugin = &*cx.shared.spec.name, ready, "plugin readiness changed");
                }
                continue;
            }
            Ok(Err(error)) => error,
            Err(_) => wasmtime::Error::msg("waited in ready, which must not wait"),
        };
        registry.blame_host();
        return fault;
    }
}
