//! The host's data in one wasmtime store: handles, limits, the call in progress, and WASI without
//! authority.

use super::handles::{Handles, Inputs};
use super::host_errors::HostErrors;
use super::invocations::InvocationTable;
use super::log::{GuestOutput, InstanceLog, Stream};
use super::spec::PluginSpec;
use super::streaming::CallRegistry;
use crate::config::PluginLimits;
use crate::predict::{CallContext, Tensor};
use std::sync::Arc;
use std::time::Instant;
use wasmtime::component::Resource;
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

/// Handles for each concurrent call. The limit applies to their sum, not to each call.
const HANDLES_PER_CALL: usize = 16;

/// The call in progress in an instance.
pub(super) struct CallState {
    pub context: Arc<CallContext>,
    /// The earlier of the request's deadline and the plugin's own timeout.
    pub deadline: Instant,
    /// Bytes that this call may still pass to the host.
    pub result_bytes_left: usize,
    /// The models that it may call, and the calls that it has made.
    pub calls: InvocationTable,
    /// The number of the call in this instance, and the allocations of its inputs.
    pub number: u32,
    pub inputs: Inputs,
    /// How many calls to servers it has made.
    pub fetches: std::sync::atomic::AtomicU32,
}

pub(super) struct StoreData {
    pub spec: Arc<PluginSpec>,
    pub handles: Handles,
    pub call: Option<CallState>,
    pub log: Arc<InstanceLog>,
    /// Current linear memory, over all memories of the instance.
    pub memory_bytes: usize,
    /// Keys of callables and invocations assigned so far.
    pub keys_given: u32,
    /// Calls that the instance has started.
    calls_begun: u32,
    /// Whether the guest asked for more memory than allowed in this call.
    pub memory_refused: bool,
    /// Errors that host calls returned to the guest in this call.
    pub host_errors: HostErrors,
    /// The concurrent calls of a streaming model; `None` for other roles.
    pub registry: Option<Arc<CallRegistry>>,
    /// Created when the guest first needs it: most plugins never do, and building it costs
    /// microseconds.
    wasi: Option<Box<WasiCtx>>,
}

impl StoreData {
    pub fn new(spec: Arc<PluginSpec>) -> Self {
        let log = Arc::new(InstanceLog::new(Arc::clone(&spec.log_tail)));
        let capacity = spec.limits.handles;
        StoreData::with_handles(spec, log, capacity)
    }

    fn with_handles(spec: Arc<PluginSpec>, log: Arc<InstanceLog>, capacity: usize) -> Self {
        StoreData {
            log,
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

    /// Creates the data of an instance that runs up to `in_flight` concurrent calls.
    pub fn shared(spec: Arc<PluginSpec>, registry: Arc<CallRegistry>, log: Arc<InstanceLog>) -> Self {
        let PluginLimits { handles, shared, .. } = &spec.limits;
        let capacity = (*handles).max(shared.in_flight.saturating_mul(HANDLES_PER_CALL));
        let mut state = StoreData::with_handles(spec, log, capacity);
        state.registry = Some(registry);
        state
    }

    /// Starts a call, and forgets what the last one left.
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

    /// Ends the call in progress. From now on, the inputs that the guest has kept count as the
    /// guest's.
    pub fn end(&mut self) {
        self.log.end();
        if let Some(call) = self.call.take() {
            self.handles.end(call.number, &call.inputs);
        }
    }

    /// Adds handles of the inputs of the call in progress.
    pub fn push_inputs(&mut self, tensors: Vec<Tensor>) -> wasmtime::Result<Vec<Resource<Tensor>>> {
        let StoreData { handles, call, .. } = self;
        let call = call.as_mut().ok_or_else(|| wasmtime::Error::msg("called outside of a request"))?;
        let push = |tensor| Ok(handles.push_input(tensor, call.number, &mut call.inputs)?);
        tensors.into_iter().map(push).collect()
    }

    pub fn call(&mut self) -> wasmtime::Result<&mut CallState> {
        self.call.as_mut().ok_or_else(|| wasmtime::Error::msg("called outside of a request"))
    }

    /// Counts bytes that the guest passes to the host against its budget.
    pub fn spend(&mut self, bytes: usize) -> wasmtime::Result<()> {
        let limit = self.spec.limits.result_bytes;
        if self.registry.is_some() {
            // It is not known here which call these bytes belong to; the limit on handles bounds
            // what many calls hold.
            return if bytes > limit { Err(OverBudget { limit_bytes: limit }.into()) } else { Ok(()) };
        }
        let call = self.call()?;
        call.result_bytes_left =
            call.result_bytes_left.checked_sub(bytes).ok_or(OverBudget { limit_bytes: limit })?;
        Ok(())
    }
}

/// The guest passed more bytes to the host than allowed, in results and arguments of host calls.
#[derive(Debug)]
pub(super) struct OverBudget {
    pub limit_bytes: usize,
}

impl std::fmt::Display for OverBudget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mb = self.limit_bytes >> 20;
        write!(
            f,
            "passed more than result_mb = {mb} to the host in one call: results and arguments of host calls"
        )
    }
}

impl std::error::Error for OverBudget {}

impl WasiView for StoreData {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let log = &self.log;
        let wasi = self.wasi.get_or_insert_with(|| {
            // By default, environment, arguments, files and standard input are empty, and sockets
            // are denied. Name lookups must be denied as well.
            let mut builder = WasiCtxBuilder::new();
            builder
                .stdout(GuestOutput::new(Stream::Stdout, Arc::clone(log)))
                .stderr(GuestOutput::new(Stream::Stderr, Arc::clone(log)))
                // A host call cannot be interrupted, so it must be short.
                .max_random_size(1 << 20)
                .allow_tcp(false)
                .allow_udp(false)
                .allow_ip_name_lookup(false);
            Box::new(builder.build())
        });
        WasiCtxView { ctx: wasi, table: self.handles.table() }
    }
}

impl Drop for StoreData {
    fn drop(&mut self) {
        self.spec.memory.resize(self.memory_bytes, 0);
    }
}

impl wasmtime::ResourceLimiter for StoreData {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        max: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if max.is_some_and(|max| desired > max) {
            // The growth fails at the memory's own limit, so it must not count.
            return Ok(false);
        }
        let total = self.memory_bytes.saturating_sub(current).saturating_add(desired);
        let allowed = total <= self.spec.limits.memory_bytes;
        if allowed {
            self.spec.memory.resize(self.memory_bytes, total);
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
        Ok(desired <= super::wasmtime_config::TABLE_ELEMENTS_MAX)
    }
}
