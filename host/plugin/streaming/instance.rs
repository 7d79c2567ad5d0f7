//! One instance of a streaming model: how it is made, how its event loop runs, and what its clients
//! are told when it is lost.

use super::call_registry::{CallRegistry, HOST};
use super::context::{ReplicaContext, Shared};
use super::driver::{Execute, Ready, poll_ready, run_calls};
use super::replica::{EndReason, EventLoopEnd, QueuedCall};
use crate::error::{Error, Result};
use crate::plugin::bindings::streaming::StreamingModelPlugin;
use crate::plugin::epoch::TICK;
use crate::plugin::guest_trace;
use crate::plugin::guest_values::tensor_specs;
use crate::plugin::host_errors::guest_error;
use crate::plugin::instance_pool::describe_trap;
use crate::plugin::log::InstanceLog;
use crate::plugin::pool_limit::pool_limit;
use crate::plugin::store_data::StoreData;
use crate::predict::Metadata;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedReceiver;
use wasmtime::component::TypedFunc;
use wasmtime::{AsContextMut, Store, StoreContextMut, UpdateDeadline};

pub(super) struct Instance {
    store: Store<StoreData>,
    exports: StreamingModelPlugin,
    execute: Execute,
    ready: Ready,
    /// What `ready` returned when the instance was made.
    pub is_ready: bool,
    registry: Arc<CallRegistry>,
    pub metadata: Arc<Metadata>,
    _alive: InstanceGuard,
}

struct InstanceGuard(prometheus::IntGauge);

impl Drop for InstanceGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Instance {
    /// Makes an instance, initializes it and reads its metadata.
    pub async fn build(shared: &Shared) -> Result<Self> {
        let limits = &shared.spec.limits;
        let registry = CallRegistry::new();
        let log = Arc::new(InstanceLog::shared(Arc::clone(&shared.spec.log_tail), limits.log_bytes));
        // Until it takes calls, it may compute for as long as a call may take.
        match tokio::time::timeout(limits.timeout, Self::try_build(shared, &registry, &log)).await {
            Ok(built) => built,
            Err(_) => Err(Error::deadline(format!(
                "initialize did not return within timeout_ms = {}",
                limits.timeout.as_millis()
            ))
            .with_detail(log.end())),
        }
    }

    async fn try_build(
        shared: &Shared,
        registry: &Arc<CallRegistry>,
        log: &Arc<InstanceLog>,
    ) -> Result<Self> {
        let engine = shared.engine.pooled(true)?;
        let failed = |error: wasmtime::Error| {
            let why = match error.is::<wasmtime::PoolConcurrencyLimitError>() {
                true => {
                    let limit = pool_limit(&error);
                    format!(
                        "{limit}; raise plugin_instances (streaming models have at most 128), or lower replicas"
                    )
                }
                false => describe_trap(&error),
            };
            Error::failed(format!("cannot make an instance: {why}")).with_detail(format!(
                "{}{}",
                log.end(),
                guest_trace::describe(&error, &shared.spec.source_lines)
            ))
        };
        let started = Instant::now();
        let limits = &shared.spec.limits;
        let state = StoreData::shared(Arc::clone(&shared.spec), Arc::clone(registry), Arc::clone(log));
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
        let alive = InstanceGuard(shared.metrics.instances.clone());
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
        Ok(Instance { store, exports, execute, ready, is_ready, registry, metadata, _alive: alive })
    }

    /// Serves calls until no more can arrive or the instance is lost.
    pub async fn serve(
        mut self,
        cx: ReplicaContext,
        mut queue: Option<UnboundedReceiver<QueuedCall>>,
    ) -> EventLoopEnd {
        let cx = &cx;
        let shared = &cx.shared;
        let (registry, limits) = (Arc::clone(&self.registry), &shared.spec.limits);
        let model = self.exports.hostler_concurrent_streaming_model();
        let outcome = {
            let work = self.store.run_concurrent(async |accessor| {
                registry.driven(async {
                    tokio::select! {
                        biased;
                        taken = run_calls(accessor, cx, &mut queue, &registry, &self.execute, &self.metadata) => taken?,
                        fault = poll_ready(accessor, cx, &registry, self.ready) => return Err(fault),
                    }
                    let finalized = tokio::time::timeout(limits.timeout, model.call_finalize(accessor)).await;
                    finalized.unwrap_or_else(|_| {
                        let (plugin, limit_ms) = (&*shared.spec.name, limits.timeout.as_millis() as u64);
                        tracing::warn!(plugin, limit_ms, "finalize did not return within timeout_ms");
                        Ok(())
                    })
                })
                .await
            });
            let mut work = pin!(work);
            let engine = shared.engine.pooled(true);
            let ticked = std::future::poll_fn(|cx| {
                let _ticking = engine.as_ref().map(|engine| engine.tick());
                work.as_mut().poll(cx)
            });
            tokio::select! {
                biased;
                outcome = ticked => outcome.and_then(|outcome| outcome),
                () = registry.stuck(limits.shared.turn) => {
                    Err(wasmtime::Error::msg("blocked its event loop: it may wait only through hostler:concurrent"))
                }
            }
        };
        let Err(error) = outcome else {
            self.store.data().log.end();
            return EventLoopEnd { reason: EndReason::Drained, served: registry.served(), queue };
        };
        shared.metrics.traps.inc();
        if let Ok(stack) = self.store.as_context_mut().async_call_stack() {
            let stack: Vec<_> = stack.collect();
            registry.blame(stack);
        }
        let fault = self.explain(shared, &registry, &error);
        // What the instance held is freed before its clients are told.
        drop(self.store);
        fail_calls(cx, &registry, &fault);
        EventLoopEnd { reason: EndReason::Lost(fault), served: registry.served(), queue }
    }

    fn explain(&self, shared: &Shared, registry: &CallRegistry, error: &wasmtime::Error) -> Error {
        let (name, limits) = (&shared.spec.name, &shared.spec.limits);
        let state = self.store.data();
        let outside_of_calls = state.log.end();
        let last_words = registry.end_log_of_blamed().unwrap_or(outside_of_calls);
        let words = if error.downcast_ref() == Some(&wasmtime::Trap::Interrupt) {
            format!("computed for more than turn_ms = {} without a wait", limits.shared.turn.as_millis())
        } else if state.memory_refused {
            format!("exceeded memory_mb = {}", limits.memory_bytes >> 20)
        } else if let Some(own) = error.downcast_ref::<Error>() {
            return Error::failed(own.message()).plugin(&**name).with_detail(format!(
                "{last_words}{}",
                guest_trace::describe(error, &shared.spec.source_lines)
            ));
        } else {
            describe_trap(error)
        };
        Error::failed(format!("plugin \"{name}\" {words}"))
            .plugin(&**name)
            .with_detail(format!("{last_words}{}", guest_trace::describe(error, &shared.spec.source_lines)))
    }
}

/// Fails the calls of a lost instance, or queues them to be retried on the next one.
fn fail_calls(cx: &ReplicaContext, registry: &CallRegistry, fault: &Error) {
    let name = &cx.shared.spec.name;
    let culprit_known = registry.blamed();
    let calls = registry.take_all();
    tracing::warn!(plugin = &**name, calls = calls.len(), detail = fault.detail(), "instance lost: {fault}");
    for (culprit, call) in calls {
        if !culprit && let Some(queued) = call.take_retry() {
            cx.replica.push_retry(queued);
            continue;
        }
        let when = match culprit_known {
            Some(HOST) => "during this request",
            Some(_) if !culprit => "while serving another request",
            _ => {
                call.fail_lost(fault.clone());
                continue;
            }
        };
        let message = format!("plugin \"{name}\": the instance crashed {when}: {fault}");
        call.fail_lost(Error::unavailable(message).plugin(&**name));
    }
}

/// Called at each tick of the epoch while the guest runs. Interrupts a guest that has computed for
/// `turn` in one go.
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

/// Returns the function behind the generated binding: only this function tells which guest task a
/// call is.
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
    let function = function.ok_or_else(|| wasmtime::Error::msg(format!("it does not export {name}")))?;
    instance.get_typed_func(store, function)
}
