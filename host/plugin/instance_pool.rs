//! Instances of a plugin in one role: made fresh for a call or taken from a pool, called under a
//! deadline, and discarded unless the guest returns cleanly.

use super::engine::{Engine, PooledEngine, Reclaim};
use super::guest_ticks::on_epoch_tick;
use super::guest_trace;
use super::pool_limit::pool_limit;
use super::spec::PluginSpec;
use super::store_data::{OverBudget, StoreData};
use crate::error::{Error, Kind, Result};
use crate::lock::LockUnpoisoned;
use crate::predict::CallContext;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;
use wasmtime::component::ResourceTableError;
use wasmtime::{Store, Trap};

/// A role that is linked and ready to be instantiated: what `bindgen!` generates for each world, as
/// one trait.
pub(super) trait RolePre: Send + Sync + 'static {
    type Exports: Send + 'static;

    fn instantiate(
        &self,
        store: &mut Store<StoreData>,
    ) -> impl Future<Output = wasmtime::Result<Self::Exports>> + Send;
}

/// All instances of a plugin in one role.
pub(super) struct Pool<P: RolePre> {
    pub engine: Arc<Engine>,
    pooled: Arc<PooledEngine>,
    pub spec: Arc<PluginSpec>,
    pre: P,
    idle: Arc<IdleInstances<P::Exports>>,
    metrics: InstanceMetrics,
}

/// Reused instances that wait for their next call.
struct IdleInstances<E>(Mutex<Vec<RunningInstance<E>>>);

impl<E> IdleInstances<E> {
    fn lock(&self) -> MutexGuard<'_, Vec<RunningInstance<E>>> {
        self.0.lock_unpoisoned()
    }
}

impl<E: Send> Reclaim for IdleInstances<E> {
    fn give_up_one(&self) -> bool {
        let given_up = self.lock().pop();
        given_up.is_some()
    }
}

/// Prepared counters, so that no request looks them up by label.
pub(super) struct InstanceMetrics {
    pub calls: prometheus::IntCounter,
    pub traps: prometheus::IntCounter,
    pub instantiate: prometheus::Histogram,
    pub instances: prometheus::IntGauge,
}

pub(super) struct RunningInstance<E> {
    pub store: Store<StoreData>,
    pub exports: E,
    calls: u64,
    _alive: InstanceGuard,
}

impl<E> RunningInstance<E> {
    fn begin(&mut self, context: &Arc<CallContext>, deadline: Instant) {
        self.calls += 1;
        self.store.data_mut().begin(Arc::clone(context), deadline);
        self.store.set_epoch_deadline(1);
    }

    fn end(&mut self) {
        self.store.data_mut().end();
    }
}

/// Counts an instance for as long as it lives.
struct InstanceGuard(prometheus::IntGauge);

impl Drop for InstanceGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The result of a guest call, or the reason why the guest could not return.
type CallOutcome<R> = wasmtime::Result<R>;

impl<P: RolePre> Pool<P> {
    pub fn new(
        engine: Arc<Engine>,
        pooled: Arc<PooledEngine>,
        spec: Arc<PluginSpec>,
        pre: P,
        metrics: InstanceMetrics,
    ) -> Self {
        let idle = Arc::new(IdleInstances(Mutex::default()));
        if spec.limits.reuses() {
            let weak = Arc::downgrade(&idle);
            engine.register_idle(weak);
        }
        Pool { engine, pooled, spec, pre, idle, metrics }
    }

    /// Calls into the instance in `kept`, or into another one, which is in `kept` afterwards.
    /// Unless the guest returns cleanly, `kept` is empty afterwards. `call` gets the instance with
    /// the call's context set. `function` is that of the contract.
    pub async fn call<R>(
        &self,
        function: &'static str,
        kept: &mut Option<RunningInstance<P::Exports>>,
        context: &Arc<CallContext>,
        call: impl AsyncFnOnce(&mut RunningInstance<P::Exports>) -> CallOutcome<R>,
    ) -> Result<R> {
        context.check()?;
        let now = Instant::now();
        let own = now + self.spec.limits.timeout;
        let deadline = context.deadline.map_or(own, |deadline| deadline.min(own));
        let _ticking = self.pooled.tick();
        let _entered = context.enter(Arc::clone(&self.spec.name));
        self.metrics.calls.inc();
        let work = async {
            let instance = match kept {
                Some(instance) => instance,
                None => kept.insert(self.obtain(context, deadline).await?),
            };
            instance.begin(context, deadline);
            call(instance).await
        };
        let outcome = tokio::select! {
            biased;
            outcome = work => outcome,
            () = context.cancellation.cancelled() => Err(Trap::Interrupt.into()),
            // A timer is created only for a call that waits.
            () = async { tokio::time::sleep_until(deadline.into()).await } => Err(Trap::Interrupt.into()),
        };
        match outcome {
            Ok(result) => {
                if let Some(instance) = kept {
                    instance.end();
                }
                Ok(result)
            }
            Err(error) => {
                let broken = kept.take();
                if !error.is::<wasmtime::PoolConcurrencyLimitError>() {
                    self.metrics.traps.inc();
                }
                let state = broken.as_ref().map(|instance| instance.store.data());
                Err(self.explain(error, state, context, now).function(function))
            }
        }
    }

    /// Makes one call. Its instance returns to the pool immediately afterwards.
    pub async fn call_once<R>(
        &self,
        function: &'static str,
        context: &Arc<CallContext>,
        call: impl AsyncFnOnce(&mut RunningInstance<P::Exports>) -> CallOutcome<R>,
    ) -> Result<R> {
        let mut kept = None;
        let result = self.call(function, &mut kept, context, call).await;
        if let Some(instance) = kept {
            self.give_back(instance);
        }
        result
    }

    async fn obtain(
        &self,
        context: &Arc<CallContext>,
        deadline: Instant,
    ) -> CallOutcome<RunningInstance<P::Exports>> {
        let idle = if self.spec.limits.reuses() { self.idle.lock().pop() } else { None };
        match idle {
            Some(instance) => Ok(instance),
            None => self.instantiate(context, deadline).await,
        }
    }

    async fn instantiate(
        &self,
        context: &Arc<CallContext>,
        deadline: Instant,
    ) -> CallOutcome<RunningInstance<P::Exports>> {
        let started = Instant::now();
        let (store, exports) = loop {
            let mut store = new_store(&self.pooled, &self.spec, context, deadline);
            match self.pre.instantiate(&mut store).await {
                Ok(exports) => break (store, exports),
                // An idle instance gives up its slot to one that has work.
                Err(error) if error.is::<wasmtime::PoolConcurrencyLimitError>() => {
                    drop(store);
                    if !self.engine.reclaim_idle() {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        };
        self.metrics.instantiate.observe(started.elapsed().as_secs_f64());
        self.metrics.instances.inc();
        Ok(RunningInstance {
            store,
            exports,
            calls: 0,
            _alive: InstanceGuard(self.metrics.instances.clone()),
        })
    }

    /// Returns an instance to the pool if it is worth keeping.
    pub fn give_back(&self, mut instance: RunningInstance<P::Exports>) {
        let limits = &self.spec.limits;
        let kept = limits.reuses()
            && instance.calls < limits.calls_max
            // A guest that leaks handles is replaced before it reaches its limit.
            && instance.store.data_mut().handles.count() < limits.handles / 2
            && !self.holds_too_much(&instance);
        if kept {
            self.idle.lock().push(instance);
        }
    }

    /// Whether an instance holds too much to wait for its next call.
    fn holds_too_much(&self, instance: &RunningInstance<P::Exports>) -> bool {
        let held = instance.store.data().handles.held();
        if !held.is_over() {
            return false;
        }
        let (plugin, held_bytes) = (&*self.spec.name, held.bytes());
        tracing::debug!(plugin, held_bytes, "instance replaced: it retains too much memory after its call");
        true
    }

    /// Explains why a call did not return: the message is for the client, the backtrace and the
    /// guest's last output are for the log.
    fn explain(
        &self,
        error: wasmtime::Error,
        state: Option<&StoreData>,
        context: &CallContext,
        started: Instant,
    ) -> Error {
        let last_words = state.map(|state| state.log.end()).unwrap_or_default();
        let name = &self.spec.name;
        let limits = &self.spec.limits;
        let refused_memory = state.is_some_and(|state| state.memory_refused);
        let trap = error.downcast_ref::<Trap>().copied();
        let answered = context.cancellation.is_cancelled();
        let explained = if trap == Some(Trap::Interrupt) {
            match context.check() {
                Err(error) => error,
                Ok(()) => Error::deadline(format!(
                    "plugin \"{name}\" was stopped after {} ms: its timeout_ms is {}",
                    started.elapsed().as_millis(),
                    limits.timeout.as_millis()
                )),
            }
        } else if error.is::<wasmtime::PoolConcurrencyLimitError>() {
            Error::overloaded(format!("plugin \"{name}\": {}; raise plugin_instances", pool_limit(&error)))
        } else if let Some(over) = error.downcast_ref::<OverBudget>() {
            Error::failed(format!("plugin \"{name}\" {over}"))
        } else if error.root_cause().to_string().contains("fuel allocated for hostcalls") {
            let limit_bytes = limits.result_bytes;
            Error::failed(format!("plugin \"{name}\" {}", OverBudget { limit_bytes }))
        } else if let Some(wasmtime_wasi::I32Exit(code)) = error.downcast_ref() {
            Error::failed(format!("plugin \"{name}\" exited with code {code} during a call"))
        } else if let Some(own) = error.downcast_ref::<Error>() {
            Error::failed(own.message())
        } else if matches!(error.downcast_ref(), Some(ResourceTableError::Full)) {
            let handles = limits.handles;
            Error::failed(format!("plugin \"{name}\" exceeded handles = {handles}"))
        } else if refused_memory {
            let mb = limits.memory_bytes >> 20;
            Error::failed(format!("plugin \"{name}\" exceeded memory_mb = {mb}"))
        } else {
            Error::failed(format!("plugin \"{name}\" {}", describe_trap(&error)))
        };
        let explained = explained
            .plugin(&**name)
            .with_detail(format!("{last_words}{}", guest_trace::describe(&error, &self.spec.source_lines)));
        if answered && explained.kind() == Kind::Deadline {
            // The client was answered at the deadline; only this line says where the guest was.
            let (request, detail) = (&*context.id, explained.detail());
            tracing::info!(request, plugin = &**name, detail, "{explained}");
        }
        explained
    }
}

/// Describes why the guest could not return.
pub(super) fn describe_trap(error: &wasmtime::Error) -> String {
    match error.downcast_ref::<Trap>() {
        Some(Trap::UnreachableCodeReached) => "panicked or aborted".to_owned(),
        Some(Trap::StackOverflow) => "trapped: stack overflow".to_owned(),
        // A guest's own stack is in its memory, below its data: an overflow runs out at address 0.
        Some(Trap::MemoryOutOfBounds) => {
            "trapped: out of bounds memory access; this is often an overflow of the stack that the linker has set: end a \
             recursion that goes too deep, or build the plugin with a larger stack (-zstack-size=BYTES; the default of \
             Rust is 1048576)"
                .to_owned()
        }
        Some(trap) => format!("trapped: {}", trap.to_string().trim_start_matches("wasm trap: ")),
        None => format!("failed: {}", error.root_cause()),
    }
}

/// Creates a store with all limits set, ready for one call.
pub(super) fn new_store(
    engine: &PooledEngine,
    spec: &Arc<PluginSpec>,
    context: &Arc<CallContext>,
    deadline: Instant,
) -> Store<StoreData> {
    let mut state = StoreData::new(Arc::clone(spec));
    state.begin(Arc::clone(context), deadline);
    let mut store = Store::new(&engine.wasmtime, state);
    store.limiter(|state| state);
    store.set_hostcall_fuel(spec.limits.result_bytes);
    store.epoch_deadline_callback(on_epoch_tick);
    store.set_epoch_deadline(1);
    store
}
