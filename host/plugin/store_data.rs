//! What a store holds for its guest: handles, limits, the call in progress, and WASI without authority.

use super::engine::Engine;
use super::handles::{Handles, Inputs};
use super::host_errors::HostErrors;
use super::invocations::InvocationTable;
use super::log::{GuestOutput, LogBudget, Stream};
use super::plugin_metrics::PluginMetrics;
use super::plugin_state::PluginState;
use super::retained::PluginRetained;
use super::streaming::CallRegistry;
use crate::config::PluginLimits;
use crate::metrics::Metrics;
use crate::predict::{CallContext, Tensor};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;
use wasmtime::component::Resource;
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

/// What a plugin has: its name, limits, strings and files from the manifest, its memory and its metrics.
/// Shared by all its instances.
pub struct PluginSpec {
    pub name: Arc<str>,
    pub limits: PluginLimits,
    pub config: BTreeMap<String, String>,
    pub assets: BTreeMap<String, bytes::Bytes>,
    pub(super) state: Arc<PluginState>,
    pub(super) metrics: Arc<PluginMetrics>,
    pub(super) held: Arc<PluginRetained>,
    /// The servers that it may ask; none: nobody.
    pub(super) outbound: Option<super::outbound::Outbound>,
}

impl PluginSpec {
    /// A plugin of this name in this engine; it remembers what an earlier one of the same name has kept.
    pub fn new(name: Arc<str>, limits: PluginLimits, engine: &Engine, metrics: &Metrics) -> Self {
        let label = [&*name];
        let state =
            engine.memory(&name, limits.state_bytes, metrics.plugin_state_bytes.with_label_values(&label));
        let held = metrics.plugin_held_bytes.with_label_values(&label);
        let held = PluginRetained::new(Arc::clone(&name), &limits, held);
        let metrics = Arc::new(PluginMetrics::new(Arc::clone(&name), metrics));
        let (config, assets) = Default::default();
        PluginSpec { name, limits, config, assets, state, metrics, held, outbound: None }
    }

    /// Lets the plugin ask servers; its connections live on `runtime`. `ca` has certificates in PEM, trusted beside
    /// those that this machine trusts.
    pub fn allow_http(
        &mut self,
        limits: crate::config::outbound::OutboundLimits,
        ca: Option<&[u8]>,
        runtime: tokio::runtime::Handle,
        metrics: &Metrics,
    ) -> crate::error::Result<()> {
        let plugin = Arc::clone(&self.name);
        self.outbound = Some(super::outbound::Outbound::new(plugin, limits, ca, runtime, metrics)?);
        Ok(())
    }

    /// What the plugin counts.
    pub fn metrics(&self) -> Arc<PluginMetrics> {
        Arc::clone(&self.metrics)
    }
}

/// Handles that each of the calls that wait side by side may have, all in all.
const HANDLES_PER_CALL: usize = 16;

/// The call that an instance works on.
pub(super) struct CallState {
    pub context: Arc<CallContext>,
    /// The earlier of the request's deadline and the plugin's own timeout.
    pub deadline: Instant,
    /// Bytes that this call may still hand to the host.
    pub result_bytes_left: usize,
    /// What it may call, and what it has called.
    pub calls: InvocationTable,
    /// Its number in this instance, and where its inputs lie.
    pub number: u32,
    pub inputs: Inputs,
    /// How often it has asked a server.
    pub fetches: std::sync::atomic::AtomicU32,
}

pub(super) struct StoreData {
    pub spec: Arc<PluginSpec>,
    pub handles: Handles,
    pub call: Option<CallState>,
    pub log: Arc<LogBudget>,
    /// Linear memory now, over all memories of the instance.
    pub memory_bytes: usize,
    /// Keys of callables and invocations so far.
    pub keys_given: u32,
    /// Calls that the instance has begun.
    calls_begun: u32,
    /// In this call the guest asked for more memory than it may have.
    pub memory_refused: bool,
    /// Errors that the guest was given in this call.
    pub host_errors: HostErrors,
    /// The calls that wait side by side in this instance, where they do.
    pub registry: Option<Arc<CallRegistry>>,
    /// Made when the guest first needs it: most plugins never do, and building it costs microseconds.
    wasi: Option<Box<WasiCtx>>,
}

impl StoreData {
    pub fn new(spec: Arc<PluginSpec>) -> Self {
        let capacity = spec.limits.handles;
        StoreData::with_handles(spec, capacity)
    }

    fn with_handles(spec: Arc<PluginSpec>, capacity: usize) -> Self {
        StoreData {
            log: Arc::new(LogBudget::new(Arc::clone(&spec.name))),
            handles: Handles::new(&spec.limits, &spec.held, capacity),
            spec,
            call: None,
            calls_begun: 0,
            memory_bytes: 0,
            memory_refused: false,
            keys_given: 0,
            host_errors: HostErrors::default(),
            registry: None,
            wasi: None,
        }
    }

    /// For an instance whose calls wait side by side, as many as `in_flight`.
    pub fn shared(spec: Arc<PluginSpec>, registry: Arc<CallRegistry>, in_flight: usize) -> Self {
        let capacity = spec.limits.handles.max(in_flight.saturating_mul(HANDLES_PER_CALL));
        let mut state = StoreData::with_handles(spec, capacity);
        state.log.begin("".into(), state.spec.limits.log_bytes);
        state.registry = Some(registry);
        state
    }

    /// Starts a call; what the last one left is forgotten.
    pub fn begin(&mut self, context: Arc<CallContext>, deadline: Instant) {
        self.log.begin(Arc::clone(&context.id), self.spec.limits.log_bytes);
        self.memory_refused = false;
        self.host_errors.clear();
        self.calls_begun = self.calls_begun.wrapping_add(1);
        self.call = Some(CallState {
            context,
            deadline,
            result_bytes_left: self.spec.limits.result_bytes,
            calls: InvocationTable::default(),
            number: self.calls_begun,
            inputs: Inputs::new(),
            fetches: Default::default(),
        });
    }

    /// Ends the call in progress; what the guest has kept of its inputs is the guest's now.
    pub fn end(&mut self) {
        self.log.end();
        if let Some(call) = self.call.take() {
            self.handles.end(call.number, &call.inputs);
        }
    }

    /// Handles of the inputs of the call in progress.
    pub fn push_inputs(&mut self, tensors: Vec<Tensor>) -> wasmtime::Result<Vec<Resource<Tensor>>> {
        let StoreData { handles, call, .. } = self;
        let call = call.as_mut().ok_or_else(|| wasmtime::Error::msg("called outside of a request"))?;
        let push = |tensor| Ok(handles.push_input(tensor, call.number, &mut call.inputs)?);
        tensors.into_iter().map(push).collect()
    }

    pub fn call(&mut self) -> wasmtime::Result<&mut CallState> {
        self.call.as_mut().ok_or_else(|| wasmtime::Error::msg("called outside of a request"))
    }

    /// Counts bytes that the guest hands to the host against its budget.
    pub fn spend(&mut self, bytes: usize) -> wasmtime::Result<()> {
        let limit = self.spec.limits.result_bytes;
        if self.registry.is_some() {
            // Whose bytes these are is not known here; what many calls hold is bounded by their handles.
            return if bytes > limit { Err(OverBudget { limit_bytes: limit }.into()) } else { Ok(()) };
        }
        let call = self.call()?;
        call.result_bytes_left =
            call.result_bytes_left.checked_sub(bytes).ok_or(OverBudget { limit_bytes: limit })?;
        Ok(())
    }
}

/// The guest handed over more bytes than it may.
#[derive(Debug)]
pub(super) struct OverBudget {
    pub limit_bytes: usize,
}

impl std::fmt::Display for OverBudget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "handed over more than {} MB in one call", self.limit_bytes >> 20)
    }
}

impl std::error::Error for OverBudget {}

impl WasiView for StoreData {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let log = &self.log;
        let wasi = self.wasi.get_or_insert_with(|| {
            // Environment, arguments, files and standard input are empty and sockets denied by default;
            // names are not to be looked up either.
            let mut builder = WasiCtxBuilder::new();
            builder
                .stdout(GuestOutput::new(Stream::Stdout, Arc::clone(log)))
                .stderr(GuestOutput::new(Stream::Stderr, Arc::clone(log)))
                // One call of the host cannot be interrupted, so it must be short.
                .max_random_size(1 << 20)
                .allow_tcp(false)
                .allow_udp(false)
                .allow_ip_name_lookup(false);
            Box::new(builder.build())
        });
        WasiCtxView { ctx: wasi, table: self.handles.table() }
    }
}

impl wasmtime::ResourceLimiter for StoreData {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _max: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let total = self.memory_bytes.saturating_sub(current).saturating_add(desired);
        let allowed = total <= self.spec.limits.memory_bytes;
        if allowed {
            self.memory_bytes = total;
        } else {
            self.memory_refused = true;
        }
        Ok(allowed)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _max: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= super::engine::TABLE_ELEMENTS_MAX)
    }
}
