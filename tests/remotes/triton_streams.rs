//! Tests decoupled models of a real Triton, without any protocol of the host: responses as they are
//! made, empty streams, errors, and callers that drop the stream.

use crate::support::eventually;
use crate::support::triton::Triton;
use hostler::error::Kind;
use hostler::executor::{Call, Callable, Executor, Precedence, Source, Submit, TritonConfig, TritonExecutor};
use hostler::metrics::Metrics;
use hostler::predict::{CallContext, Datatype, Payload, Responses, Tensor};
use std::sync::Arc;
use std::time::{Duration, Instant};

struct Remote {
    executor: TritonExecutor,
    model: Arc<dyn Callable>,
}

impl Remote {
    fn new(triton: &Triton) -> Self {
        let config = TritonConfig {
            url: format!("http://{}", triton.url()),
            workers: 4,
            threads: 1,
            channels: 2,
            connect_timeout: Duration::from_secs(1),
            keepalive: None,
            message_bytes_max: 1 << 20,
        };
        let executor = TritonExecutor::start("remote", config, None, &Metrics::new()).unwrap();
        let source = Source::Remote { name: "repeat".into(), version: None, reference: None };
        let model = executor.load(&source).unwrap();
        Remote { executor, model }
    }

    fn ask(&self, values: &[i32], delay_ms: u32) -> Responses {
        let shape = || [values.len() as i64][..].into();
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let delays: Vec<u8> = values.iter().flat_map(|_| delay_ms.to_le_bytes()).collect();
        let inputs = vec![
            Tensor::new("values", Datatype::Int32, shape(), bytes.into()).unwrap(),
            Tensor::new("delays_ms", Datatype::Uint32, shape(), delays.into()).unwrap(),
        ];
        let deadline = Instant::now() + Duration::from_secs(20);
        let context = CallContext::new("id".into(), "repeat".into(), "1".into(), Some(deadline));
        let call = Call {
            context: Arc::new(context),
            input: Payload::Tensors(inputs),
            transformer: None,
            callable: Arc::clone(&self.model),
            batching: None,
            runs: None,
            precedence: Precedence::New,
        };
        self.executor.submit(call).unwrap()
    }

    fn wait_for_idle(&self) {
        eventually("an idle executor", || (self.executor.status().busy == 0).then_some(()), String::new);
    }
}

/// Returns the value and time of each response, and how the stream ended.
fn collect(mut responses: Responses) -> (Vec<(i32, Duration)>, Option<hostler::error::Error>) {
    let started = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let mut values = Vec::new();
        while let Some(response) = responses.next().await {
            let tensors = match response {
                Ok(response) => response.payload,
                Err(error) => return (values, Some(error)),
            };
            let Payload::Tensors(tensors) = tensors else { panic!("tensors") };
            let value = tensors.iter().find(|tensor| tensor.name() == "value").expect("a value");
            values.push((i32::from_le_bytes(value.data()[..].try_into().unwrap()), started.elapsed()));
        }
        (values, None)
    })
}

#[test]
fn responses_come_one_by_one_as_the_model_gives_them() {
    let Some(triton) = Triton::start(&["repeat"]) else { return };
    let remote = Remote::new(&triton);
    assert!(remote.model.metadata().streaming);

    let (values, end) = collect(remote.ask(&[7, 8, 9], 1_000));
    assert_eq!(values.iter().map(|(value, _)| *value).collect::<Vec<_>>(), [7, 8, 9]);
    assert!(end.is_none(), "{end:?}");
    for (index, (_, at)) in values.iter().enumerate() {
        let expected = Duration::from_secs(1) * (index as u32 + 1);
        assert!(*at >= expected, "response {index} after {at:?}");
    }
    assert!(values[0].1 < Duration::from_secs(3), "the first one does not wait for the last");
    // No responses, and more than are buffered between the two ends.
    assert!(matches!(collect(remote.ask(&[], 0)), (values, None) if values.is_empty()));
    let many: Vec<i32> = (0..500).collect();
    let (values, end) = collect(remote.ask(&many, 0));
    assert_eq!((values.len(), end.is_none()), (500, true));
    assert!(values.iter().map(|(value, _)| *value).eq(many));

    // An error ends the stream, after the earlier responses.
    let (values, end) = collect(remote.ask(&[1, -1, 2], 0));
    let end = end.expect("an error");
    assert_eq!((values.len(), end.kind()), (1, Kind::Failed));
    assert!(end.message().contains("value 1 is negative"), "{end}");
    remote.wait_for_idle();
}

#[test]
fn streams_run_beside_each_other_and_end_with_their_caller() {
    let Some(mut triton) = Triton::start(&["repeat"]) else { return };
    let remote = Remote::new(&triton);
    let slow = remote.ask(&[1, 2], 600_000);
    assert_eq!(collect(remote.ask(&[3], 10)).0.len(), 1);
    assert_eq!(remote.executor.status().busy, 1, "the slow one is not waited for");
    drop(slow);
    remote.wait_for_idle();

    // The remote is killed during a stream.
    let lost = remote.ask(&[1, 2], 600_000);
    std::thread::sleep(Duration::from_millis(100));
    triton.kill();
    let (_, end) = collect(lost);
    assert_eq!(end.expect("an error").kind(), Kind::Unavailable);
}
