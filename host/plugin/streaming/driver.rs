//! What goes on in the event loop of an instance: calls that begin as they come, the question whether it is ready, and
//! the wait for the last calls at its end.

use super::Ticket;
use super::active_call::{ActiveCall, CallInputs};
use super::call_registry::{CallRegistry, HOST};
use super::host_calls::Sink;
use super::replica_thread::ReplicaThread;
use crate::error::Error;
use crate::plugin::bindings::types;
use crate::plugin::handles::Inputs;
use crate::plugin::host_calls::Request;
use crate::plugin::store_data::StoreData;
use crate::predict::{Metadata, Tensor};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use wasmtime::component::{Accessor, GuestTaskId, Resource, TypedFunc};

/// Calls that were given up and stay in an instance before it is replaced.
const ABANDONED_MAX: usize = 256;

/// How often an instance is asked whether requests make sense.
const READY_EVERY: Duration = Duration::from_secs(1);

/// `ready` must not wait; this long is a wait.
const READY_LIMIT: Duration = Duration::from_secs(1);

/// What calls that were ended by force may take beyond their grace before the instance goes.
const DRAIN_SLACK: Duration = Duration::from_secs(1);

type Parameters = (Resource<Request>, Vec<Resource<Tensor>>, Resource<Sink>);

type ExecuteResult = (std::result::Result<(), types::Error>,);

pub(super) type Execute = TypedFunc<Parameters, ExecuteResult>;

pub(super) type Ready = TypedFunc<(), (bool,)>;

/// The event loop's own part: begins calls as they come, until the last sender is gone and all is done.
pub(super) async fn run_calls(
    accessor: &Accessor<StoreData>,
    thread: &ReplicaThread,
    tickets: &mut Option<UnboundedReceiver<Ticket>>,
    registry: &Arc<CallRegistry>,
    execute: &Execute,
    metadata: &Arc<Metadata>,
) -> wasmtime::Result<()> {
    let limits = &thread.shared.spec.limits;
    let (mut stop, mut replaced) = (thread.replica.stop.subscribe(), thread.replica.replaced.subscribe());
    // Waited for from call to call: to begin anew with each costs more than the rest.
    let mut stopped = pin!(stop.wait_for(|stop| *stop));
    let mut full = pin!(registry.until_exhausted(ABANDONED_MAX));
    let mut serving = FuturesUnordered::new();
    let mut key = HOST;
    'calls: loop {
        let mut drained = pin!(drain_timer(thread, *replaced.borrow_and_update()));
        let mut is_drained = false;
        let mut changed = pin!(replaced.changed());
        loop {
            let retried = thread.replica.pop_retry();
            let ticket = match (retried, tickets.as_mut()) {
                (Some(ticket), _) => Some(ticket),
                (None, Some(queue)) => tokio::select! {
                    Some(served) = serving.next() => {
                        served?;
                        continue;
                    }
                    ticket = queue.recv() => ticket,
                    _ = &mut stopped, if !queue.is_closed() => {
                        queue.close();
                        continue;
                    }
                    Ok(()) = &mut changed => continue 'calls,
                    () = &mut drained, if !is_drained => {
                        // It is there for as long as there is a way back to it.
                        is_drained = true;
                        stop_calls(thread, registry);
                        continue;
                    }
                    why = &mut full => {
                        // Another instance goes on, on a thread of its own, while this one ends its calls.
                        let (queue, plugin) = (tickets.take(), &*thread.shared.spec.name);
                        tracing::info!(plugin, why, "instance replaced");
                        if let Err(error) = thread.clone().spawn(queue.expect("invariant: it was there"), None) {
                            tracing::error!(plugin, "{error}");
                        }
                        None
                    }
                },
                (None, None) => None,
            };
            let Some(mut ticket) = ticket else { break 'calls };
            thread.shared.metrics.calls.inc();
            // What no other instance will be asked for again need not be kept.
            let inputs = match ticket.idempotent {
                true => ticket.inputs.clone(),
                false => std::mem::take(&mut ticket.inputs),
            };
            key = key.wrapping_add(1).max(HOST + 1);
            let (begun, brought) = accessor.with(|mut access| {
                let handles = &mut access.get().handles;
                let mut brought = CallInputs { inputs: Inputs::new(), held: Arc::clone(handles.held()) };
                let push = |tensor| Ok(handles.push_input(tensor, key, &mut brought.inputs)?);
                let inputs = inputs.into_iter().map(push).collect::<wasmtime::Result<Vec<_>>>()?;
                let parameters = (Resource::new_own(key), inputs, Resource::new_own(key));
                wasmtime::error::Ok((execute.start_call_concurrent(&mut access, parameters)?, brought))
            })?;
            let call = ActiveCall::new(ticket, &thread.shared, metadata, brought);
            let call = registry.insert(key, begun.task(), call);
            let task = begun.task();
            let mut outcome = Box::pin(execute.finish_call_concurrent(accessor, begun));
            // The guest runs now. Most calls have ended then, and need not be watched.
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
    drain(thread, registry, &mut serving).await
}

/// One call in the event loop, until its guest has ended or is left where it is.
async fn serve_call(
    accessor: &Accessor<StoreData>,
    registry: &CallRegistry,
    key: u32,
    task: GuestTaskId,
    call: Arc<ActiveCall>,
    outcome: impl Future<Output = wasmtime::Result<ExecuteResult>>,
    grace: Duration,
) -> wasmtime::Result<()> {
    let given_up = async {
        let why = call.ended().await;
        call.fail(why.clone());
        tokio::time::sleep(grace).await;
        why
    };
    tokio::select! {
        biased;
        outcome = outcome => finish_call(accessor, registry, key, task, &call, outcome?).await,
        why = given_up => {
            registry.remove(key, task, false);
            release_inputs(accessor, registry, key, &call);
            call.end(Err(why)).await;
        }
    }
    Ok(())
}

/// What the guest has kept of a call's inputs is the guest's from now on. An instance that holds too much with no call
/// in it, or has had to be refused more, is replaced.
fn release_inputs(accessor: &Accessor<StoreData>, registry: &CallRegistry, key: u32, call: &ActiveCall) {
    let over = accessor.with(|mut access| {
        let handles = &mut access.get().handles;
        handles.end(key, &call.inputs);
        let held = handles.held();
        held.was_refused() || (held.is_over() && registry.is_empty())
    });
    if over {
        registry.set_over_limit();
    }
}

/// The guest has ended its call in order.
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

fn drain_limit(thread: &ReplicaThread) -> Duration {
    let limits = &thread.shared.spec.limits;
    limits.shared.drain.unwrap_or(limits.timeout)
}

/// Returns when a plugin that was replaced has had its time; never for one that was not.
async fn drain_timer(thread: &ReplicaThread, replaced: bool) {
    match replaced {
        true => tokio::time::sleep(drain_limit(thread)).await,
        false => std::future::pending().await,
    }
}

/// Waits for the calls that are there to end; those that do not are ended.
async fn drain<F>(
    thread: &ReplicaThread,
    registry: &CallRegistry,
    serving: &mut FuturesUnordered<F>,
) -> wasmtime::Result<()>
where
    F: Future<Output = wasmtime::Result<()>>,
{
    if let Ok(ended) = tokio::time::timeout(drain_limit(thread), join_all(serving)).await {
        return ended;
    }
    stop_calls(thread, registry);
    let grace = thread.shared.spec.limits.shared.grace;
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

/// Tells all calls that their time is over, and the operator which these are.
fn stop_calls(thread: &ReplicaThread, registry: &CallRegistry) {
    let (name, limit_ms) = (&thread.shared.spec.name, drain_limit(thread).as_millis() as u64);
    let message = format!(
        "plugin \"{name}\" was replaced or stopped, and this call has not ended within {limit_ms} ms; see drain_ms"
    );
    let requests = registry.stop_all(&Error::unavailable(message).plugin(&**name));
    if !requests.is_empty() {
        tracing::warn!(plugin = &**name, limit_ms, requests = requests.join(", "), "calls ended by force");
        thread.shared.engine.drain_timeouts.add(name, requests);
    }
}

/// Asks the guest again and again whether requests make sense; ends only when that makes the instance unusable.
pub(super) async fn poll_ready(
    accessor: &Accessor<StoreData>,
    thread: &ReplicaThread,
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
                let is_news = thread.replica.health.set_ready(ready);
                thread.replica.waiting.freed();
                if is_news {
                    tracing::info!(plugin = &*thread.shared.spec.name, ready, "asked");
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
