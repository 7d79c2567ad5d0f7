//! Calls to models and streaming models, on the clock of the host of a test.

use hostler_plugin::concurrent::{self, Sink, StreamingMetadata, StreamingModel, all, both};
use hostler_plugin::testing::{Host, Reply, block_on, execute, sink, stream};
use hostler_plugin::{
    Callable, Datatype, Error, ErrorKind, Executor, Request, Tensor, answer, http, models, sleep, tensor,
    wait_any,
};
use std::time::Duration;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn number(n: i32) -> Result<Vec<Tensor>, Error> {
    Ok(vec![tensor::int32("n", &[1], &[n])?])
}

fn value(outputs: Result<Vec<Tensor>, Error>) -> i32 {
    outputs.unwrap()[0].to_i32().unwrap()[0]
}

fn kind<T>(result: Result<T, Error>) -> ErrorKind {
    result.err().expect("an error").kind
}

#[test]
fn models_are_found_by_name_and_version() {
    let host =
        Host::new().model("a", |_| number(1)).model("b:1", |_| number(10)).model("b:2", |_| number(20));
    let a = models::get("a", None).unwrap();
    assert_eq!((a.model(), a.version(), a.is_streaming()), ("a".into(), "1".into(), false));
    assert_eq!(value(a.call(&[])), 1);
    assert_eq!(value(models::get("b", Some("2")).unwrap().call(&number(5).unwrap())), 20);
    assert_eq!(host.calls("b:2")[0][0].to_i32().unwrap(), [5]);
    assert_eq!((host.calls("a").len(), host.calls("b:1").len()), (1, 0));
    for (name, version, expected) in [
        ("c", None, "no model \"c\"; models of this test: a:1, b:1, b:2; add it with `Host::model`"),
        (
            "b",
            None,
            "model \"b\" has the versions 1, 2; the host of this test has no routing rule: name a version",
        ),
        ("b", Some("3"), "model \"b\" has no version \"3\"; versions: 1, 2"),
    ] {
        let error = models::get(name, version).unwrap_err();
        assert_eq!((error.kind, error.message.as_str()), (ErrorKind::NotFound, expected));
    }
}

#[test]
fn waits_move_the_clock_and_end_with_the_request() {
    let slow = |time| move |_: &[Tensor]| Reply::new(number(1)).after(time);
    let host = Host::new().replies("slow", slow(ms(100))).replies("fast", slow(ms(10)));
    let (slow, fast) = (models::get("slow", None).unwrap(), models::get("fast", None).unwrap());
    assert_eq!(kind(slow.call_within(&[], ms(30))), ErrorKind::Deadline);
    assert_eq!(host.time(), ms(30));
    let (a, b) = (slow.start(&[]).unwrap(), fast.start(&[]).unwrap());
    assert_eq!((a.outcome().is_some(), wait_any(&[&a, &b], Some(ms(5)))), (false, None));
    assert_eq!((wait_any(&[&a, &b], None), host.time()), (Some(1), ms(40)));
    assert_eq!((value(b.wait()), value(a.wait()), host.time()), (1, 1, ms(130)));
    sleep(ms(70));
    assert_eq!(host.time(), ms(200));
    let request = host.request().with_timeout(ms(50));
    assert_eq!(
        (kind(slow.call(&[])), host.time(), request.time_left()),
        (ErrorKind::Deadline, ms(250), Some(0))
    );
    let _request = host.request().with_cancellation(ms(5));
    assert_eq!((kind(slow.call(&[])), host.time()), (ErrorKind::Cancelled, ms(255)));
    assert_eq!(kind(slow.start(&[])), ErrorKind::Cancelled);
}

#[test]
fn streams_are_read_one_response_at_a_time() {
    let count = |_: &[Tensor]| {
        Reply::responses([number(1), number(2), Err(Error::failed("end")), number(4)])
            .after(ms(1))
            .every(ms(10))
    };
    let host = Host::new().streaming_model("count", count).streaming_model("none", |_| Reply::responses([]));
    let count = models::get("count", None).unwrap();
    assert_eq!(kind(count.call(&[])), ErrorKind::Unsupported);
    let call = count.start(&[]).unwrap();
    let responses: Vec<_> = call.responses().collect();
    assert_eq!((responses.len(), responses[2].is_err(), host.time()), (3, true, ms(21)));
    assert!(call.responses().next().is_none() && call.outcome().is_none());
    assert_eq!(models::get("none", None).unwrap().start(&[]).unwrap().responses().count(), 0);
}

#[test]
fn a_model_can_refuse_and_must_not_call_itself() {
    let busy = |_: &[Tensor]| Reply::refused(Error::of(ErrorKind::Overloaded, "at capacity"));
    let host = Host::new().replies("busy", busy).model("a", |inputs| models::get("a", None)?.call(inputs));
    assert_eq!(kind(host.callable("busy").start(&[])), ErrorKind::Overloaded);
    assert_eq!(host.callable("a").call(&[]).unwrap_err().message, "recursive model call: \"a:1\" -> \"a:1\"");
}

struct Early;

impl Executor for Early {
    fn submit(_: &Request, inputs: Vec<Tensor>, model: &Callable) -> Result<Vec<Tensor>, Error> {
        let outputs = model.call(&inputs)?;
        answer(&outputs)?;
        sleep(ms(5));
        answer(&outputs)?;
        Ok(outputs)
    }
}

#[test]
fn an_executor_can_answer_early_and_once() {
    let host = Host::new().model("m", |_| number(3));
    let error = Early::submit(&host.request(), vec![], &host.callable("m")).unwrap_err();
    assert_eq!((error.kind, host.time()), (ErrorKind::Unsupported, ms(5)));
    assert_eq!(value(host.early_answer().ok_or(error)), 3);
    let batch = Early::submit_batch(&[host.request()], vec![vec![]], &host.callable("m"));
    assert_eq!(kind(batch), ErrorKind::Unsupported);
}

/// Calls `each` and forwards its answers, after a sleep of `wait_ms`.
struct Relay;

impl StreamingModel for Relay {
    fn metadata() -> StreamingMetadata {
        let n = || vec![tensor::spec("n", Datatype::Int32, &[1])];
        StreamingMetadata { inputs: n(), outputs: n(), streaming: true }
    }

    async fn execute(request: Request, inputs: Vec<Tensor>, responses: Sink) -> Result<(), Error> {
        let wait = request.integer("wait_ms")?.unwrap_or(0);
        let call = concurrent::model("each", None)?.start(&inputs, None)?;
        while let Some(outputs) = call.next().await {
            concurrent::sleep(ms(wait.unsigned_abs())).await?;
            responses.send(outputs?).await?;
        }
        Ok(())
    }
}

hostler_plugin::export!(Relay: streaming_model);

fn relay_host() -> Host {
    Host::new()
        .streaming_model("each", |_| Reply::responses([number(1), number(2), number(3)]).every(ms(10)))
        .replies("wrong", |_| Reply::new(number(0)).after(ms(7)))
}

#[test]
fn requests_run_concurrently_each_with_its_own_end() {
    let host = relay_host();
    let slow = host.request().with_parameter("wait_ms", 20).with_timeout(ms(50));
    let fast = host.request();
    let input = || number(0).unwrap();
    let (slow, fast) = block_on(both(stream::<Relay>(slow, input()), stream::<Relay>(fast, input())));
    assert_eq!((fast.responses.len(), fast.outcome.is_ok()), (3, true));
    assert_eq!((slow.responses.len(), slow.outcome.unwrap_err().kind), (2, ErrorKind::Deadline));
    assert_eq!(host.time(), ms(50));
    let error = execute::<Relay>(host.request(), vec![]).outcome.unwrap_err();
    assert_eq!(error.message, "input \"n\" (INT32 [1]) is missing");
}

#[test]
fn waits_of_many_futures_overlap() {
    let host = relay_host();
    let call = async |timeout| concurrent::model("wrong", None)?.call(&[], timeout).await;
    let found = block_on(all((0..10).map(|n| call((n > 4).then_some(ms(5))))));
    assert_eq!((found.iter().filter(|outcome| outcome.is_err()).count(), host.time()), (5, ms(7)));
    assert_eq!(host.calls("wrong").len(), 10);
    let get = concurrent::fetch(http::Request::get("http://a/"));
    assert_eq!(kind(block_on(get)), ErrorKind::Unsupported);
}

/// Sends as many responses as the request says; its metadata say one.
struct Single;

impl StreamingModel for Single {
    fn metadata() -> StreamingMetadata {
        let outputs = vec![tensor::spec("n", Datatype::Int32, &[1])];
        StreamingMetadata { inputs: Vec::new(), outputs, streaming: false }
    }

    async fn execute(request: Request, _: Vec<Tensor>, responses: Sink) -> Result<(), Error> {
        for n in 0..request.integer("count")?.unwrap_or(1) {
            let outputs =
                if request.flag("wrong")? { vec![tensor::int64("n", &[1], &[n])?] } else { number(7)? };
            responses.send(outputs).await?;
        }
        Ok(())
    }
}

#[test]
fn responses_are_counted_and_checked() {
    let host = Host::new();
    let run = |count| execute::<Single>(host.request().with_parameter("count", count), vec![]);
    assert!(run(1).outcome.is_ok());
    assert!(run(0).outcome.unwrap_err().message.contains("without a response"));
    let twice = run(2);
    assert_eq!((twice.responses.len(), twice.outcome.unwrap_err().kind), (1, ErrorKind::Unsupported));
    let wrong = execute::<Single>(host.request().with_parameter("wrong", true), vec![]);
    assert!(wrong.outcome.unwrap_err().message.contains("which its metadata does not declare"));
    let (sink, sent) = sink(true);
    block_on(Single::execute(host.request(), vec![], sink)).unwrap();
    assert_eq!(value(Ok(sent.responses().remove(0))), 7);
    assert!(Single::ready());
    block_on(Single::initialize()).unwrap();
    block_on(Single::finalize());
}

#[test]
#[should_panic(expected = "nothing can wake it")]
fn a_future_that_nothing_can_wake_is_reported() {
    let _host = Host::new();
    block_on(std::future::pending::<()>());
}
