//! Tests that tensors are not copied on their way through a custom executor or a plugin that calls
//! a model: the called model sees the caller's bytes, and the caller sees the model's.

use crate::support::plugin;
use hostler::cancel::Cancel;
use hostler::config::{Instances, PluginLimits};
use hostler::error::Result;
use hostler::executor::{
    BoxFuture, Call, CallProfile, Callable, CustomConfig, CustomExecutor, Executor, ModelTarget, OnFailure,
    PoolConfig, PoolExecutor, PoolKind, Precedence, SessionConfig, Sink, Source, Submit,
};
use hostler::metrics::Metrics;
use hostler::plugin::Plugin;
use hostler::predict::{CallContext, Datatype, Metadata, Models, Payload, Target, Tensor, TensorSpec};
use std::sync::{Arc, Mutex};

/// 600 KB of FP32.
const ELEMENTS: usize = 150_000;

/// A model that records the addresses of its input and output bytes.
struct Witness {
    metadata: Metadata,
    /// Whether its profile says that calls block, so that a guest in front of it gets a worker
    /// lease.
    blocks: bool,
    seen: Mutex<Vec<[usize; 2]>>,
}

fn place(tensor: &Tensor) -> usize {
    tensor.data().as_ptr() as usize
}

fn large(name: &str) -> Tensor {
    Tensor::new(name, Datatype::Fp32, [ELEMENTS as i64].as_slice().into(), vec![0; 4 * ELEMENTS].into())
        .unwrap()
}

impl Callable for Witness {
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn profile(&self) -> CallProfile {
        if self.blocks { CallProfile::Blocking } else { CallProfile::Computing }
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }

    fn call<'a>(
        &'a self,
        _: &'a Arc<CallContext>,
        inputs: Vec<Tensor>,
        _: &'a mut Sink,
    ) -> BoxFuture<'a, Result<Option<Vec<Tensor>>>> {
        let output = large(&self.metadata.outputs[0].name);
        self.seen.lock().unwrap().push([place(&inputs[0]), place(&output)]);
        Box::pin(async { Ok(Some(vec![output])) })
    }
}

/// Resolves every name to the same model.
struct Everywhere {
    executor: Arc<dyn Executor>,
    model: Arc<Witness>,
}

impl Models for Everywhere {
    fn target(&self, model: &str, _: Option<&str>, _: &CallContext, _: &str) -> Result<Arc<dyn Target>> {
        Ok(Arc::new(ModelTarget {
            model: model.into(),
            version: "1".into(),
            executor: Arc::clone(&self.executor),
            callable: Arc::clone(&self.model) as _,
            batching: None,
            runs: None,
            timeout: None,
            is_inner: false,
            precedence: Precedence::New,
        }))
    }
}

fn spec(name: &str) -> TensorSpec {
    TensorSpec { name: name.into(), datatype: Datatype::Fp32, shape: [-1].as_slice().into(), optional: false }
}

#[test]
fn a_large_tensor_passes_a_guest_without_a_copy() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let metrics = Metrics::new();
    let engine = crate::support::engine(8);
    let sessions = SessionConfig { device: hostler::executor::Device::Cpu, sessions: 1, intra_threads: 1 };
    let pool = PoolConfig { workers: 1, queue: 8 };
    let inner =
        PoolExecutor::start(PoolKind::ThreadPool, "inner", pool, sessions, None, runtime.handle(), &metrics)
            .unwrap();
    let limits = PluginLimits { instances: Some(Instances::Reused), ..PluginLimits::default() };
    let plugin_spec = engine.plugin_spec("pass".into(), limits, &metrics);
    let wasm = std::fs::read(plugin("pass")).unwrap();
    let guest = Arc::new(
        Plugin::load(&engine, plugin_spec, &wasm, &metrics, &Cancel::default())
            .unwrap()
            .executor(&metrics)
            .unwrap(),
    );
    let config = CustomConfig { workers: 8, threads: 1, on_failure: OnFailure::Fail };
    let custom = CustomExecutor::start("pass", config, guest, Arc::new(inner), &metrics).unwrap();

    for blocks in [true, false] {
        let metadata = Metadata { inputs: vec![spec("x")], outputs: vec![spec("x")], streaming: false };
        let model = Arc::new(Witness { metadata, blocks, seen: Mutex::default() });
        let input = large("x");
        let call = Call {
            context: Arc::new(CallContext::new("id".into(), "m".into(), "1".into(), None)),
            input: Payload::Tensors(vec![input.clone()]),
            transformer: None,
            callable: Arc::clone(&model) as _,
            batching: None,
            runs: None,
            precedence: Precedence::New,
        };
        let mut responses = custom.submit(call).unwrap();
        let outputs = runtime.block_on(responses.one()).unwrap().tensors().unwrap();
        assert_eq!(outputs[0].data().len(), 4 * ELEMENTS);
        assert_eq!(*model.seen.lock().unwrap(), [[place(&input), place(&outputs[0])]], "{blocks}");
    }
}

#[test]
fn a_large_tensor_passes_a_call_to_a_model_without_a_copy() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let metrics = Metrics::new();
    let engine = crate::support::engine(8);
    let sessions = SessionConfig { device: hostler::executor::Device::Cpu, sessions: 1, intra_threads: 1 };
    let pool = |name: &str| -> Arc<dyn Executor> {
        let pool = PoolConfig { workers: 1, queue: 8 };
        Arc::new(
            PoolExecutor::start(PoolKind::ThreadPool, name, pool, sessions, None, runtime.handle(), &metrics)
                .unwrap(),
        )
    };
    let executors = [pool("own"), pool("other")];
    let mut plugin_spec = engine.plugin_spec("caller".into(), PluginLimits::default(), &metrics);
    plugin_spec.config.insert("to".into(), "called".into());
    let wasm = std::fs::read(plugin("caller")).unwrap();
    let guest = runtime
        .block_on(
            Plugin::load(&engine, plugin_spec, &wasm, &metrics, &Cancel::default()).unwrap().model(&metrics),
        )
        .unwrap();
    let callable = executors[0].load(&Source::Plugin(Arc::new(guest))).unwrap();
    // Once on the guest's own worker, and once on another executor.
    for executor in &executors {
        let metadata = Metadata { inputs: vec![spec("x")], outputs: vec![spec("y")], streaming: false };
        let model = Arc::new(Witness { metadata, blocks: true, seen: Mutex::default() });
        let mut context = CallContext::new("id".into(), "m".into(), "1".into(), None);
        let models = Everywhere { executor: Arc::clone(executor), model: Arc::clone(&model) };
        context.models = Some(Arc::new(models));
        let input = large("x");
        let call = Call {
            context: Arc::new(context),
            input: Payload::Tensors(vec![input.clone()]),
            transformer: None,
            callable: Arc::clone(&callable),
            batching: None,
            runs: None,
            precedence: Precedence::New,
        };
        let mut responses = executors[0].submit(call).unwrap();
        let outputs = runtime.block_on(responses.one()).unwrap().tensors().unwrap();
        let name = executor.name();
        assert_eq!(outputs[0].data().len(), 4 * ELEMENTS, "{name}");
        assert_eq!(*model.seen.lock().unwrap(), [[place(&input), place(&outputs[0])]], "{name}");
    }
}
