//! gRPC: streams of requests and responses, and what becomes of them when the host stops.

#[path = "support/grpc.rs"]
mod caller;
mod support;

use caller::*;
use hostler::proto::inference::infer_parameter::ParameterChoice;
use hostler::proto::inference::*;
use std::time::{Duration, Instant};
use support::slow::ENDLESS;
use support::{Setup, model, plugin};
use tonic::{Code, Request};

#[test]
fn a_streams_answers_come_in_order_and_an_error_is_one_of_them() {
    let host = serve_loop("");
    let caller = Caller::new(&host);
    let mut stream = caller.stream();
    stream.send(named(rounds(2_000), "slow"));
    stream.send(named(floats("fast", &[1.0]), "fast"));
    stream.send(named(floats("nope", &[1.0]), "nope"));
    stream.send(named(floats("fast", &[3.0]), "last"));
    stream.done();
    let seen: Vec<_> = std::iter::from_fn(|| stream.next().unwrap())
        .map(|answer| {
            let response = answer.infer_response.expect("a response says which request it is about");
            (response.id, answer.error_message, response.parameters.get("triton_final_response").cloned())
        })
        .collect();
    let last = Some(InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(true)) });
    let expected = |id: &str| (id.to_owned(), String::new(), last.clone());
    assert_eq!(seen[0], expected("slow"));
    assert_eq!(seen[1], expected("fast"));
    assert_eq!((&*seen[2].0, seen[2].1.contains("no model \"nope\"")), ("nope", true), "{seen:?}");
    assert_eq!(seen[3], expected("last"));
    assert_eq!(seen.len(), 4);
}

#[test]
fn a_streams_requests_run_side_by_side() {
    let manifest = "[plugins.faulty]\npath = \"faulty.wasm\"\n[plugins.faulty.config]\nfast_ms = \"300\"\n\
        [models.slow]\nplugin = \"faulty\"\n[policy]\nslow = \"cpu\"\n";
    let host = Setup::new(manifest).file("faulty.wasm", plugin("faulty")).grpc().start();
    let caller = Caller::new(&host);
    let mut stream = caller.stream();
    let started = Instant::now();
    (0..8).for_each(|n| stream.send(named(floats("slow", &[n as f32]), &n.to_string())));
    (0..8).for_each(|n| assert_eq!(stream.answer().infer_response.unwrap().id, n.to_string()));
    assert!(started.elapsed() < Duration::from_millis(8 * 300), "{:?}", started.elapsed());
}

#[test]
fn a_stream_that_is_left_stops_its_work_and_never_has_more_than_its_share() {
    let host = serve_loop("[executors.onnx]\nworkers = 1\n");
    let caller = Caller::new(&host);
    let stream = caller.stream();
    (0..100).for_each(|_| stream.send(rounds(ENDLESS)));
    host.wait_for_policy("64 requests in hand", |policy| policy["executors"]["onnx"]["inflight"] == 64);
    drop(stream);
    host.wait_for_idle("onnx");
    let left = || Some(host.metric("hostler_requests_total{code=\"499\",model=\"loop\",version=\"1\"}"));
    // Those that had no place yet as well, as far as they were read.
    support::eventually("all of them counted", || left().filter(|count| *count >= 64.0), String::new);
    assert!(left() <= Some(100.0));
}

#[test]
fn a_streams_deadline_ends_it() {
    let host = serve_loop("[executors.onnx]\nworkers = 1\n");
    let caller = Caller::new(&host);
    // Open to the end: the caller might have more.
    let (requests, receiver) = tokio::sync::mpsc::channel(1);
    requests.try_send(rounds(ENDLESS)).expect("room");
    let mut answers = caller.run(async |mut client| {
        let mut asked = Request::new(tonic::codegen::tokio_stream::wrappers::ReceiverStream::new(receiver));
        asked.metadata_mut().insert("grpc-timeout", "200m".parse().unwrap());
        client.model_stream_infer(asked).await.unwrap().into_inner()
    });
    // The request's own answer may come first, and then the stream's.
    let status = loop {
        match caller.run(async |_| answers.message().await) {
            Ok(Some(answer)) => assert!(!answer.error_message.is_empty()),
            Ok(None) => panic!("a status was due"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::DeadlineExceeded);
    host.wait_for_idle("onnx");
}

#[test]
fn errors_end_a_stream_whose_caller_wants_so() {
    let host = serve("plus1");
    let caller = Caller::new(&host);
    let mut answers = caller.run(async |mut client| {
        let mut asked = Request::new(tonic::codegen::tokio_stream::once(floats("nope", &[1.0])));
        asked.metadata_mut().insert("triton_grpc_error", "true".parse().unwrap());
        client.model_stream_infer(asked).await.unwrap().into_inner()
    });
    let status = caller.run(async |_| answers.message().await).unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
}

#[test]
fn a_host_that_stops_says_so_and_ends_its_streams() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::health_client::HealthClient;
    let manifest = "[server]\ndrain_delay_ms = 1000\n[models.m]\npath = \"m.onnx\"\n";
    let mut host = Setup::new(manifest).file("m.onnx", model("plus1")).grpc().start();
    let caller = Caller::new(&host);
    let health = |service: &str| HealthCheckRequest { service: service.into() };
    let mut client = HealthClient::new(caller.runtime.block_on(channel(&host).connect()).unwrap());
    for service in ["", "inference.GRPCInferenceService"] {
        let answer = caller.run(async |_| client.check(health(service)).await.unwrap().into_inner());
        assert_eq!(answer.status(), ServingStatus::Serving);
    }
    let status = caller.run(async |_| client.check(health("nope")).await.unwrap_err());
    assert_eq!(status.code(), Code::NotFound);
    let mut watched = caller.run(async |_| client.watch(health("")).await.unwrap().into_inner());
    let mut next = || caller.run(async |_| watched.message().await.unwrap().map(|answer| answer.status()));
    assert_eq!(next(), Some(ServingStatus::Serving));
    let mut stream = caller.stream();
    stream.send(floats("m", &[1.0]));
    assert!(stream.answer().error_message.is_empty());

    host.signal("TERM");
    assert_eq!(next(), Some(ServingStatus::NotServing));
    let ready = caller.run(async |mut client| client.server_ready(ServerReadyRequest {}).await.unwrap());
    assert!(!ready.into_inner().ready);
    stream.send(floats("m", &[1.0]));
    assert!(stream.answer().error_message.is_empty(), "it serves on until it stops listening");
    let status = stream.next().unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "the host is stopping"));
    assert_eq!(next(), None);
    assert!(host.wait().success());
}
