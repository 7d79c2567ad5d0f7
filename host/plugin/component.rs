//! A loaded plugin: a compiled and checked component, from which its roles are linked.

use super::bindings::optional_inputs::OptionalInputsPluginPre;
use super::bindings::streaming::StreamingModelPluginPre;
use super::compiler::Source;
use super::component_info::{self, CONTRACT_VERSION, ComponentInfo, Role};
use super::engine::Engine;
use super::executor::{ExecutorPre, PluginExecutor};
use super::instance_pool::{InstanceMetrics, Pool, RolePre, new_store};
use super::model::{ModelPre, PluginModel};
use super::optional_inputs;
use super::source_lines::SourceLines;
use super::spec::PluginSpec;
use super::store_data::StoreData;
use super::streaming::StreamingModel;
use super::transformer::{Transformer, TransformerPre};
use crate::cancel::Cancel;
use crate::config::Instances;
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::predict::{CallContext, Metadata};
use std::sync::Arc;
use std::time::{Duration, Instant};
use wasmtime::component::{Component, InstancePre};

/// A compiled and checked component, not yet linked in a role.
pub struct Plugin {
    engine: Arc<Engine>,
    spec: Arc<PluginSpec>,
    component: Component,
    info: ComponentInfo,
}

impl Plugin {
    /// Compiles and checks a component. Blocks until it is compiled or the build is abandoned.
    pub fn load(
        engine: &Arc<Engine>,
        mut spec: PluginSpec,
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
        let source = Source { wasm, pack: None, concurrent, limits: spec.limits.compile, cancel };
        let (component, interface) = engine.compile(&source, metrics).map_err(named)?;
        let info = ComponentInfo::read(interface, concurrent).map_err(named)?;
        if concurrent && info.roles.iter().any(|role| *role != Role::StreamingModel) {
            return Err(named(Error::unsupported(
                "a component with the role streaming-model cannot have another role; split it into two components",
            )));
        }
        spec.source_lines = SourceLines::of(wasm);
        Ok(Plugin { engine: Arc::clone(engine), spec: Arc::new(spec), component, info })
    }

    pub fn info(&self) -> &ComponentInfo {
        &self.info
    }

    /// Links the role `transformer` and calls its `metadata`. Must run within a tokio runtime.
    pub async fn transformer(&self, metrics: &Metrics) -> Result<Transformer> {
        let pool = self.pool(Role::Transformer, metrics, TransformerPre::new)?;
        let metadata = pool
            .call_once("metadata", &self.load_context(), async |instance| {
                instance.exports.hostler_plugin_transformer().call_metadata(&mut instance.store).await
            })
            .await
            .map_err(|error| error.context(format!("plugin \"{}\": metadata", self.spec.name)))?;
        let metadata = metadata.map(Metadata::from);
        Ok(Transformer { pool, name: Arc::clone(&self.spec.name), metadata, waits: self.info.may_wait() })
    }

    /// Links the role `model` and calls its `metadata`. Must run within a tokio runtime.
    pub async fn model(&self, metrics: &Metrics) -> Result<PluginModel> {
        let pool = self.pool(Role::Model, metrics, ModelPre::new)?;
        let metadata = pool
            .call_once("metadata", &self.load_context(), async |instance| {
                instance.exports.hostler_plugin_model().call_metadata(&mut instance.store).await
            })
            .await
            .map_err(|error| error.context(format!("plugin \"{}\": metadata", self.spec.name)))?;
        let (name, waits) = (Arc::clone(&self.spec.name), self.info.may_wait());
        let mut metadata = Metadata::from(metadata);
        if self.info.has_optional_inputs() {
            let pool = self.pool(Role::Model, metrics, OptionalInputsPluginPre::new)?;
            optional_inputs::mark(
                &name,
                &mut metadata,
                optional_inputs::read(&pool, &self.load_context()).await?,
            )?;
        }
        Ok(PluginModel { pool, name, metadata, waits })
    }

    /// Links the role `executor`.
    pub fn executor(&self, metrics: &Metrics) -> Result<PluginExecutor> {
        let pool = self.pool(Role::Executor, metrics, ExecutorPre::new)?;
        Ok(PluginExecutor::new(pool, Arc::clone(&self.spec.name)))
    }

    /// Links the role `streaming-model` and starts its instances. Must run within a tokio runtime.
    pub async fn streaming_model(&self, metrics: &Metrics) -> Result<StreamingModel> {
        let name = &self.spec.name;
        self.check_role(Role::StreamingModel)?;
        if self.spec.limits.reuses() || self.spec.limits.instances == Some(Instances::Fresh) {
            return Err(Error::invalid(format!(
                "plugin \"{name}\": instances of a streaming-model are always \"shared\"; remove the key instances"
            )));
        }
        let pre = self
            .engine
            .pooled(true)?
            .linker
            .instantiate_pre(&self.component)
            .map_err(|error| self.misfit(error))?;
        let pre = StreamingModelPluginPre::new(pre).map_err(|e| self.misfit(e))?;
        StreamingModel::start(&self.engine, &self.spec, pre, self.metrics(metrics)).await
    }

    /// Returns the mean time to make and drop an instance, measured over `rounds` instances.
    pub async fn fresh_instance_cost(&self, rounds: u32) -> Result<Duration> {
        let failed = |error: wasmtime::Error| {
            let name = &self.spec.name;
            Error::failed(format!("plugin \"{name}\": cannot make an instance: {}", error.root_cause()))
                .with_detail(format!("{error:?}"))
        };
        let engine = self.engine.pooled(false)?;
        let pre = engine.linker.instantiate_pre(&self.component).map_err(failed)?;
        let context = self.load_context();
        let started = Instant::now();
        for _ in 0..rounds {
            let _ticking = engine.tick();
            let deadline = Instant::now() + self.spec.limits.timeout;
            let mut store = new_store(engine, &self.spec, &context, deadline);
            pre.instantiate_async(&mut store).await.map_err(failed)?;
        }
        Ok(started.elapsed() / rounds)
    }

    fn pool<P: RolePre>(
        &self,
        role: Role,
        metrics: &Metrics,
        link: impl FnOnce(InstancePre<StoreData>) -> wasmtime::Result<P>,
    ) -> Result<Pool<P>> {
        self.check_role(role)?;
        if self.spec.limits.instances == Some(Instances::Shared) {
            return Err(Error::invalid(format!(
                "plugin \"{}\": only instances of a streaming-model can be \"shared\", but its role here is {role}",
                self.spec.name
            )));
        }
        let engine = self.engine.pooled(false)?;
        let linked = engine.linker.instantiate_pre(&self.component).and_then(link);
        let pre = linked.map_err(|error| self.misfit(error))?;
        Ok(Pool::new(
            Arc::clone(&self.engine),
            Arc::clone(engine),
            Arc::clone(&self.spec),
            pre,
            self.metrics(metrics),
        ))
    }

    /// Checks that the component has a role.
    pub fn check_role(&self, role: Role) -> Result<()> {
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
            calls: metrics.plugins.calls.with_label_values(&label),
            traps: metrics.plugins.traps.with_label_values(&label),
            instantiate: metrics.plugins.instantiate.clone(),
            instances: metrics.plugins.instances.with_label_values(&label),
        }
    }

    /// Returns the context of calls that no request has caused.
    fn load_context(&self) -> Arc<CallContext> {
        Arc::new(CallContext::new("load".into(), "".into(), "".into(), None))
    }
}

/// Says in plain words why a file is not a component, before the compiler reports it in its own
/// terms.
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
