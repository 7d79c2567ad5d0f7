//! Plugins: WebAssembly components that the host loads, limits and calls.
//!
//! A plugin has one or more roles. Each call has a deadline and a budget; a guest that traps, overruns or
//! waits too long loses its instance and fails one request. Nothing here knows a policy or a protocol.

mod artifact;
mod bindings;
mod cache;
pub mod compiler;
mod component_info;
mod drain_timeouts;
mod engine;
mod executor;
mod handles;
mod host_calls;
mod host_errors;
mod instance_pool;
mod invocations;
mod log;
mod optional_inputs;
mod outbound;
mod plugin_metrics;
mod plugin_state;
mod retained;
mod store_data;
mod streaming;

pub use component_info::{CONTRACT_VERSION, ComponentInfo, Role};
pub use drain_timeouts::{DrainTimeout, DrainTimeouts};
pub use engine::Engine;
pub use executor::{GuestAnswer, PluginExecutor};
pub use instance_pool::{share_this_thread, with_ticks};
pub use plugin_metrics::PluginMetrics;
pub use store_data::PluginSpec;
pub use streaming::{EventLoopGuards, Permit, ReplicaStatus, StreamingModel};

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::predict::{CallContext, JsonText, Metadata, Payload, Tensor, TensorSpec};
use bindings::{model::ModelPlugin, transformer::TransformerPlugin, types};
use compiler::Source;
use instance_pool::{InstanceMetrics, Pool, RolePre, RunningInstance};
use std::sync::Arc;
use std::time::{Duration, Instant};
use store_data::StoreData;
use wasmtime::Store;
use wasmtime::component::Resource;

type TransformerPre = bindings::transformer::TransformerPluginPre<StoreData>;
type ModelPre = bindings::model::ModelPluginPre<StoreData>;

impl RolePre for TransformerPre {
    type Exports = TransformerPlugin;

    async fn instantiate(&self, store: &mut Store<StoreData>) -> wasmtime::Result<TransformerPlugin> {
        self.instantiate_async(store).await
    }
}

impl RolePre for ModelPre {
    type Exports = ModelPlugin;

    async fn instantiate(&self, store: &mut Store<StoreData>) -> wasmtime::Result<ModelPlugin> {
        self.instantiate_async(store).await
    }
}

/// A plugin that pre- and postprocesses for models.
pub struct Transformer {
    pool: Pool<TransformerPre>,
    name: Arc<str>,
    metadata: Option<Metadata>,
    waits: bool,
}

/// A plugin that is a model.
pub struct PluginModel {
    pool: Pool<ModelPre>,
    name: Arc<str>,
    metadata: Metadata,
    waits: bool,
}

/// A compiled and linked component, not yet in a role.
pub struct Plugin {
    engine: Arc<Engine>,
    spec: Arc<PluginSpec>,
    component: wasmtime::component::Component,
    info: ComponentInfo,
}

impl Plugin {
    /// Compiles and checks a component. Blocks for as long as compiling takes, or until the build is abandoned.
    pub fn load(
        engine: &Arc<Engine>,
        spec: PluginSpec,
        wasm: &[u8],
        metrics: &Metrics,
        cancel: &Cancel,
    ) -> Result<Self> {
        let named = |error: Error| {
            let name = &spec.name;
            error.context(format!("plugin \"{name}\"")).plugin(&**name)
        };
        let memory_max = engine.config.memory_bytes_max;
        if spec.limits.memory_bytes > memory_max {
            return Err(named(Error::invalid(format!(
                "memory_mb is {}, but the engine's slots have {} MB; raise plugin_memory_mb_max under [server]",
                spec.limits.memory_bytes >> 20,
                memory_max >> 20
            ))));
        }
        not_a_component(wasm).map_or(Ok(()), Err).map_err(named)?;
        let concurrent = component_info::is_concurrent(wasm);
        let source = Source { wasm, concurrent, limits: spec.limits.compile, cancel };
        let (component, interface) = engine.compile(&source, metrics).map_err(named)?;
        let info = ComponentInfo::read(interface, concurrent).map_err(named)?;
        if concurrent && info.roles.iter().any(|role| *role != Role::StreamingModel) {
            return Err(named(Error::unsupported(
                "a component with the role streaming-model can have no other; make two of it",
            )));
        }
        Ok(Plugin { engine: Arc::clone(engine), spec: Arc::new(spec), component, info })
    }

    pub fn info(&self) -> &ComponentInfo {
        &self.info
    }

    /// Links the role `transformer` and asks it for its metadata. Needs a tokio runtime around it.
    pub async fn transformer(&self, metrics: &Metrics) -> Result<Transformer> {
        let pool = self.pool(Role::Transformer, metrics, TransformerPre::new)?;
        let metadata = pool
            .call_once(&self.load_context(), async |instance| {
                instance.exports.hostler_plugin_transformer().call_metadata(&mut instance.store).await
            })
            .await
            .map_err(|error| error.context(format!("plugin \"{}\": metadata", self.spec.name)))?;
        let metadata = metadata.map(Metadata::from);
        Ok(Transformer { pool, name: Arc::clone(&self.spec.name), metadata, waits: self.info.may_wait() })
    }

    /// Links the role `model` and asks it for its metadata. Needs a tokio runtime around it.
    pub async fn model(&self, metrics: &Metrics) -> Result<PluginModel> {
        let pool = self.pool(Role::Model, metrics, ModelPre::new)?;
        let metadata = pool
            .call_once(&self.load_context(), async |instance| {
                instance.exports.hostler_plugin_model().call_metadata(&mut instance.store).await
            })
            .await
            .map_err(|error| error.context(format!("plugin \"{}\": metadata", self.spec.name)))?;
        let (name, waits) = (Arc::clone(&self.spec.name), self.info.may_wait());
        let mut metadata = Metadata::from(metadata);
        if self.info.has_optional_inputs() {
            optional_inputs::mark(&name, &mut metadata, self.optional_inputs(metrics).await?)?;
        }
        Ok(PluginModel { pool, name, metadata, waits })
    }

    /// Links the role `executor`.
    pub fn executor(&self, metrics: &Metrics) -> Result<PluginExecutor> {
        let pool = self.pool(Role::Executor, metrics, executor::ExecutorPre::new)?;
        Ok(PluginExecutor::new(pool, Arc::clone(&self.spec.name)))
    }

    /// Links the role `streaming-model` and starts its instances. Needs a tokio runtime around it.
    pub async fn streaming_model(&self, metrics: &Metrics) -> Result<StreamingModel> {
        let name = &self.spec.name;
        self.check_role(Role::StreamingModel)?;
        if self.spec.limits.reuses() || self.spec.limits.instances == Some(crate::config::Instances::Fresh) {
            return Err(Error::invalid(format!(
                "plugin \"{name}\": instances of a streaming-model are \"shared\"; leave the key out"
            )));
        }
        let engine = self.engine.concurrent()?;
        let pre = engine.linker.instantiate_pre(&self.component).map_err(|error| self.misfit(error))?;
        let pre = bindings::concurrent::StreamingModelPluginPre::new(pre).map_err(|e| self.misfit(e))?;
        StreamingModel::start(&self.engine, &self.spec, pre, self.metrics(metrics)).await
    }

    /// The mean time to make and drop an instance. Measured over `rounds`.
    pub async fn fresh_instance_cost(&self, rounds: u32) -> Result<Duration> {
        let failed = |error: wasmtime::Error| {
            let name = &self.spec.name;
            Error::failed(format!("plugin \"{name}\": cannot make an instance: {}", error.root_cause()))
                .with_detail(format!("{error:?}"))
        };
        let pre = self.engine.linker.instantiate_pre(&self.component).map_err(failed)?;
        let context = self.load_context();
        let started = Instant::now();
        for _ in 0..rounds {
            let _ticking = self.engine.tick();
            let deadline = Instant::now() + self.spec.limits.timeout;
            let mut store = instance_pool::new_store(&self.engine, &self.spec, &context, deadline);
            pre.instantiate_async(&mut store).await.map_err(failed)?;
        }
        Ok(started.elapsed() / rounds)
    }

    fn pool<P: RolePre>(
        &self,
        role: Role,
        metrics: &Metrics,
        link: impl FnOnce(wasmtime::component::InstancePre<StoreData>) -> wasmtime::Result<P>,
    ) -> Result<Pool<P>> {
        self.check_role(role)?;
        if self.spec.limits.instances == Some(crate::config::Instances::Shared) {
            return Err(Error::invalid(format!(
                "plugin \"{}\": only instances of a streaming-model can be \"shared\", but its role here is {role}",
                self.spec.name
            )));
        }
        let linked = self.engine.linker.instantiate_pre(&self.component).and_then(link);
        let pre = linked.map_err(|error| self.misfit(error))?;
        Ok(Pool::new(Arc::clone(&self.engine), Arc::clone(&self.spec), pre, self.metrics(metrics)))
    }

    fn check_role(&self, role: Role) -> Result<()> {
        if self.info.roles.contains(&role) {
            return Ok(());
        }
        let name = &self.spec.name;
        Err(self.info.lacks(role).context(format!("plugin \"{name}\"")).plugin(&**name))
    }

    fn misfit(&self, error: wasmtime::Error) -> Error {
        let name = &self.spec.name;
        let cause = error.root_cause();
        Error::unsupported(format!(
            "plugin \"{name}\": does not fit the contract {CONTRACT_VERSION}: {cause}"
        ))
        .plugin(&**name)
        .with_detail(format!("{error:?}"))
    }

    fn metrics(&self, metrics: &Metrics) -> InstanceMetrics {
        let label = [&*self.spec.name];
        InstanceMetrics {
            calls: metrics.plugin_calls.with_label_values(&label),
            traps: metrics.plugin_traps.with_label_values(&label),
            instantiate: metrics.plugin_instantiate.clone(),
            instances: metrics.plugin_instances.with_label_values(&label),
        }
    }

    /// The context of calls that no request has caused.
    fn load_context(&self) -> Arc<CallContext> {
        Arc::new(CallContext::new("load".into(), "".into(), "".into(), None))
    }
}

impl Transformer {
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What callers see as inputs and outputs, if not the model's own.
    pub fn metadata(&self) -> Option<&Metadata> {
        self.metadata.as_ref()
    }

    /// Whether its calls may wait for other models or for servers.
    pub fn waits(&self) -> bool {
        self.waits
    }

    /// For the calls of one request.
    pub fn session(self: &Arc<Self>) -> TransformerSession {
        TransformerSession { transformer: Arc::clone(self), held: None }
    }
}

/// One request's use of a transformer. It keeps the instance that preprocessed for the postprocessing: half
/// the instances, as isolated between requests as two. Plugins may not count on it.
pub struct TransformerSession {
    transformer: Arc<Transformer>,
    held: Option<RunningInstance<TransformerPlugin>>,
}

impl TransformerSession {
    pub fn name(&self) -> &Arc<str> {
        &self.transformer.name
    }

    pub async fn preprocess(&mut self, context: &Arc<CallContext>, input: Payload) -> Result<Vec<Tensor>> {
        let Transformer { pool, .. } = &*self.transformer;
        pool.call(&mut self.held, context, async |instance| {
            let payload = lower_payload(instance, input)?;
            let request = Resource::new_own(0);
            let guest = instance.exports.hostler_plugin_transformer();
            let outcome = guest.call_preprocess(&mut instance.store, request, &payload).await?;
            in_plugin(instance, outcome, take_tensors)
        })
        .await?
    }

    pub async fn postprocess(&mut self, context: &Arc<CallContext>, outputs: Vec<Tensor>) -> Result<Payload> {
        let Transformer { pool, name, .. } = &*self.transformer;
        let outcome = pool
            .call(&mut self.held, context, async |instance| {
                let outputs = push_inputs(instance, outputs)?;
                let request = Resource::new_own(0);
                let guest = instance.exports.hostler_plugin_transformer();
                let outcome = guest.call_postprocess(&mut instance.store, request, &outputs).await?;
                in_plugin(instance, outcome, lift_payload)
            })
            .await?;
        match outcome {
            Ok(Lifted::Payload(payload)) => Ok(payload),
            Ok(Lifted::Json(text)) => JsonText::parse(text.into()).map(Payload::Json).map_err(|error| {
                Error::failed(format!("plugin \"{name}\" answered with what is not JSON: {error}"))
                    .plugin(&**name)
            }),
            Err(error) => Err(error),
        }
    }
}

impl TransformerSession {
    /// Gives its instance back in the middle of its request; the next call gets another, or this one again.
    pub fn release_instance(&mut self) {
        if let Some(instance) = self.held.take() {
            self.transformer.pool.give_back(instance);
        }
    }

    /// How many visits of one worker may keep their instance while others go on. Reused instances need not
    /// be kept: the one given back last is the one that comes next. Fresh ones cost as much again if they
    /// are not, but all that `workers` keep must leave most of the host's to others.
    pub fn reusable_max(&self, workers: usize) -> usize {
        let Pool { engine, spec, .. } = &self.transformer.pool;
        if spec.limits.reuses() { 0 } else { engine.config.instances as usize / (4 * workers.max(1)) }
    }
}

impl Drop for TransformerSession {
    fn drop(&mut self) {
        self.release_instance();
    }
}

impl PluginModel {
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Whether its calls may wait for other models or for servers.
    pub fn waits(&self) -> bool {
        self.waits
    }

    pub async fn predict(&self, context: &Arc<CallContext>, inputs: Vec<Tensor>) -> Result<Vec<Tensor>> {
        self.pool
            .call_once(context, async |instance| {
                let inputs = push_inputs(instance, inputs)?;
                let request = Resource::new_own(0);
                let guest = instance.exports.hostler_plugin_model();
                let outcome = guest.call_predict(&mut instance.store, request, &inputs).await?;
                in_plugin(instance, outcome, take_tensors)
            })
            .await?
    }
}

/// Takes a guest's result out of its instance; its error is a value, and is told from those of the host.
fn in_plugin<E, T, R>(
    instance: &mut RunningInstance<E>,
    outcome: Result<T, types::Error>,
    take: impl FnOnce(&mut RunningInstance<E>, T) -> wasmtime::Result<R>,
) -> wasmtime::Result<Result<R>> {
    match outcome {
        Ok(value) => take(instance, value).map(Ok),
        Err(error) => {
            let state = instance.store.data();
            Ok(Err(state.host_errors.returned(error, &state.spec.name)))
        }
    }
}

/// A guest's payload, out of its instance; JSON is still to be checked.
enum Lifted {
    Json(String),
    Payload(Payload),
}

fn lower_payload<E>(instance: &mut RunningInstance<E>, payload: Payload) -> wasmtime::Result<types::Payload> {
    Ok(match payload {
        Payload::Json(text) => types::Payload::Json(text.as_str().to_owned()),
        Payload::Bytes { content_type, data } => {
            types::Payload::Bytes(types::Blob { content_type, data: data.to_vec() })
        }
        Payload::Tensors(tensors) => types::Payload::Tensors(push_inputs(instance, tensors)?),
    })
}

fn lift_payload<E>(instance: &mut RunningInstance<E>, payload: types::Payload) -> wasmtime::Result<Lifted> {
    Ok(match payload {
        types::Payload::Json(text) => Lifted::Json(text),
        types::Payload::Bytes(blob) => {
            Lifted::Payload(Payload::Bytes { content_type: blob.content_type, data: blob.data.into() })
        }
        types::Payload::Tensors(tensors) => {
            Lifted::Payload(Payload::Tensors(take_tensors(instance, tensors)?))
        }
    })
}

fn push_inputs<E>(
    instance: &mut RunningInstance<E>,
    tensors: Vec<Tensor>,
) -> wasmtime::Result<Vec<Resource<Tensor>>> {
    instance.store.data_mut().push_inputs(tensors)
}

fn take_tensors<E>(
    instance: &mut RunningInstance<E>,
    tensors: Vec<Resource<Tensor>>,
) -> wasmtime::Result<Vec<Tensor>> {
    Ok(instance.store.data_mut().handles.take_all(tensors)?)
}

fn tensor_specs(specs: Vec<types::TensorSpec>) -> Vec<TensorSpec> {
    let spec = |spec: types::TensorSpec| TensorSpec {
        name: spec.name.into(),
        datatype: spec.datatype.into(),
        shape: spec.shape.into(),
        optional: false,
    };
    specs.into_iter().map(spec).collect()
}

impl From<types::ModelMetadata> for Metadata {
    fn from(metadata: types::ModelMetadata) -> Self {
        let (inputs, outputs) = (tensor_specs(metadata.inputs), tensor_specs(metadata.outputs));
        Metadata { inputs, outputs, streaming: false }
    }
}

/// Says in plain words why a file is no component, before a compiler says it in its own.
fn not_a_component(wasm: &[u8]) -> Option<Error> {
    let message = match wasm {
        [] => "the file is empty",
        [b'\0', b'a', b's', b'm', 1, 0, 0, 0, ..] => {
            "the file is a core WebAssembly module, not a component; build it for wasm32-wasip2, or wrap it \
             with `wasm-tools component new`"
        }
        [b'\0', b'a', b's', b'm', _, 0, 1, 0, ..] => return None,
        _ => "the file is not WebAssembly",
    };
    Some(Error::invalid(message))
}
