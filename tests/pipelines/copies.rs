//! Tests that tensors pass from step to step by handle: a step reads the very bytes that its
//! predecessor returned.

use hostler::error::Result;
use hostler::executor::pipeline::{Binding, PipelineModel, StepMetrics, StepRoute, StepTarget};
use hostler::executor::{
    BoxFuture, Call, CallProfile, Callable, Executor, ModelTarget, PipelineExecutor, PoolConfig,
    PoolExecutor, PoolKind, Precedence, SessionConfig, Sink, Source, Submit,
};
use hostler::graph::{Graph, Member, Source as From, Step, StepModel, compile};
use hostler::metrics::Metrics;
use hostler::predict::{CallContext, Datatype, Metadata, Payload, Service, Tensor, TensorSpec};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// 600 KB of FP32.
const ELEMENTS: usize = 150_000;

const STEPS: usize = 5;

/// A model that records the addresses of its input and output bytes.
struct Witness {
    metadata: Metadata,
    seen: Mutex<Vec<[usize; 2]>>,
}

fn place(tensor: &Tensor) -> usize {
    tensor.data().as_ptr() as usize
}

fn large(name: &str) -> Tensor {
    let data = vec![0; 4 * ELEMENTS].into();
    Tensor::new(name, Datatype::Fp32, [ELEMENTS as i64].as_slice().into(), data).unwrap()
}

impl Callable for Witness {
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn profile(&self) -> CallProfile {
        CallProfile::Computing
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
        let output = large("y");
        self.seen.lock().unwrap().push([place(&inputs[0]), place(&output)]);
        Box::pin(async { Ok(Some(vec![output])) })
    }
}

struct Uncounted;

impl StepRoute for Uncounted {
    fn ended(&self, _: Option<&hostler::error::Error>, _: Duration, _: Service) {}
}

fn step(at: usize) -> Step {
    let from = match at {
        0 => Member::Input("x".into()),
        _ => Member::Output { step: format!("s{}", at - 1).into(), output: "y".into() },
    };
    Step {
        name: format!("s{at}").into(),
        model: "witness".into(),
        version: None,
        inputs: vec![("x".into(), From::of(from))],
        after: Vec::new(),
        when: None,
        choose: None,
        each: None,
        looped: None,
        timeout: None,
        skips_on_error: false,
        retry: None,
        max_in_flight: None,
        max_per_s: None,
        params: Vec::new(),
        may_omit: Vec::new(),
        always: false,
        detach: false,
    }
}

#[test]
fn no_tensor_is_copied_between_steps() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let metrics = Metrics::new();
    let spec = |name: &str| TensorSpec {
        name: name.into(),
        datatype: Datatype::Fp32,
        shape: [-1].as_slice().into(),
        optional: false,
    };
    let metadata = Metadata { inputs: vec![spec("x")], outputs: vec![spec("y")], streaming: false };
    let witness = Arc::new(Witness { metadata: metadata.clone(), seen: Mutex::default() });
    let pool = PoolConfig { workers: 2, queue: 8 };
    let cpu = PoolExecutor::start(
        PoolKind::ThreadPool,
        "cpu",
        pool,
        SessionConfig { device: hostler::executor::Device::Cpu, sessions: 1, intra_threads: 1 },
        None,
        runtime.handle(),
        &metrics,
    );
    let cpu: Arc<dyn Executor> = Arc::new(cpu.unwrap());
    let last = Member::Output { step: format!("s{}", STEPS - 1).into(), output: "y".into() };
    let graph = Arc::new(Graph {
        name: "p".into(),
        inputs: None,
        outputs: vec![("r".into(), From::of(last))],
        each_row: false,
        streaming: false,
        keeps_steps: false,
        max_visits: 100,
        max_bytes: 8 << 20,
        parallel: 0,
        window: 16,
        steps: (0..STEPS).map(step).collect(),
    });
    let model = || StepModel { versions: vec![("1".into(), metadata.clone())], may_omit: Vec::new() };
    let models: Vec<StepModel> = (0..STEPS).map(|_| model()).collect();
    let program = compile(&graph, &models).unwrap_or_else(|faults| panic!("{faults:?}"));
    let binding = || {
        let target = ModelTarget {
            model: "witness".into(),
            version: "1".into(),
            executor: Arc::clone(&cpu),
            callable: Arc::clone(&witness) as _,
            batching: None,
            runs: None,
            timeout: None,
            is_inner: false,
            precedence: Precedence::New,
        };
        Binding { versions: vec![StepTarget { target, route: Arc::new(Uncounted), key: None }], pick: None }
    };
    let step_metrics = (0..STEPS).map(|at| StepMetrics::new(&metrics, "p", &format!("s{at}"))).collect();
    let limits = (0..STEPS).map(|_| None).collect();
    let bindings = (0..STEPS).map(|_| binding()).collect();
    let pipeline = PipelineModel::new(program, bindings, limits, step_metrics, Arc::new(|_| 0));
    let executor = PipelineExecutor::start("pipeline", pool, &metrics);
    let callable = executor.load(&Source::Pipeline(Arc::new(pipeline))).unwrap();
    let input = large("x");
    let call = Call {
        context: Arc::new(CallContext::new("id".into(), "p".into(), "1".into(), None)),
        input: Payload::Tensors(vec![input.clone()]),
        transformer: None,
        callable,
        batching: None,
        runs: None,
        precedence: Precedence::New,
    };
    let mut responses = executor.submit(call).unwrap();
    let outputs = runtime.block_on(responses.one()).unwrap().tensors().unwrap();
    let seen = witness.seen.lock().unwrap();
    assert_eq!(seen.len(), STEPS);
    assert_eq!(seen[0][0], place(&input));
    for (before, after) in seen.iter().zip(&seen[1..]) {
        assert_eq!(before[1], after[0], "a step reads what the one before it gave");
    }
    assert_eq!((outputs[0].name(), place(&outputs[0])), ("r", seen[STEPS - 1][1]));
}
