//! gRPC: streams of requests and responses, for models with one response and for streaming models,
//! here and in a real Triton, and what happens when one side stops.

use crate::support::grpc::*;
use crate::support::slow::ENDLESS;
use crate::support::streaming::setup as repeating;
use crate::support::triton::Triton;
use crate::support::{Host, Setup, model, plugin};
use hostler::proto::inference::infer_parameter::ParameterChoice;
use hostler::proto::inference::*;
use prost::Message;
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
    let manifest = "[executors.cpu]\nworkers = 8\n[plugins.faulty]\npath = \"faulty.wasm\"\n\
        [plugins.faulty.config]\nfast_ms = \"100\"\n[plugins.waits]\npath = \"faulty.wasm\"\n\
        [plugins.waits.config]\nfast_ms = \"600000\"\n[models.slow]\nplugin = \"faulty\"\n\
        [models.waits]\nplugin = \"waits\"\n[policy]\nslow = \"cpu\"\nwaits = \"cpu\"\n";
    let host = Setup::new(manifest).file("faulty.wasm", plugin("faulty")).grpc().start();
    let caller = Caller::new(&host);
    let mut stream = caller.stream();
    (0..8).for_each(|n| stream.send(named(floats("slow", &[n as f32]), &n.to_string())));
    (0..8).for_each(|n| assert_eq!(stream.answer().infer_response.unwrap().id, n.to_string()));
    (0..8).for_each(|n| stream.send(named(floats("waits", &[n as f32]), &n.to_string())));
    host.wait_for_policy("eight requests at work", |policy| policy["executors"]["cpu"]["busy"] == 8);
    drop(stream);
    host.wait_for_idle("cpu");
}

#[test]
fn a_stream_with_more_requests_than_run_at_once_gets_all_answers() {
    let host = serve("plus1");
    let caller = Caller::new(&host);
    // The tasks of requests begin in any order, so a later request may begin before one whose reply
    // must be sent first.
    for round in 0..if crate::support::is_soak() { 2000 } else { 100 } {
        let mut stream = caller.stream();
        (0..200).for_each(|n| stream.send(named(floats("m", &[n as f32]), &n.to_string())));
        stream.done();
        for n in 0..200 {
            let response = stream.answer().infer_response.expect("a response");
            assert_eq!((&*response.id, read(&response)), (&*n.to_string(), vec![n as f32 + 1.0]), "{round}");
        }
    }
}

#[test]
fn a_stream_that_is_left_stops_its_work_and_never_has_more_than_its_share() {
    let host = serve_loop("[executors.onnx]\nworkers = 1\n");
    let caller = Caller::new(&host);
    let stream = caller.stream();
    (0..100).for_each(|_| stream.send(rounds(ENDLESS)));
    // And the first one, if others have begun before it.
    let is_full = |policy: &serde_json::Value| {
        policy["executors"]["onnx"]["inflight"].as_u64().is_some_and(|count| (64..=65).contains(&count))
    };
    host.wait_for_policy("64 requests in hand", is_full);
    drop(stream);
    host.wait_for_idle("onnx");
    let left = || Some(host.metric("hostler_requests_total{code=\"499\",model=\"loop\",version=\"1\"}"));
    // Includes the requests that were read but not admitted.
    crate::support::eventually("all of them counted", || left().filter(|count| *count >= 64.0), String::new);
    assert!(left() <= Some(100.0));
}

#[test]
fn a_streams_deadline_ends_it() {
    let host = serve_loop("[executors.onnx]\nworkers = 1\n");
    let caller = Caller::new(&host);
    // The request stream stays open: the client might send more.
    let (requests, receiver) = tokio::sync::mpsc::channel(1);
    requests.try_send(rounds(ENDLESS)).expect("room");
    let mut answers = caller.run(async |mut client| {
        let mut asked = Request::new(tonic::codegen::tokio_stream::wrappers::ReceiverStream::new(receiver));
        asked.metadata_mut().insert("grpc-timeout", "200m".parse().unwrap());
        client.model_stream_infer(asked).await.unwrap().into_inner()
    });
    // The request's own answer may arrive before the stream's status.
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

/// Requests a marked end: an empty final response.
const ENABLE: &str = "triton_enable_empty_final_response";

/// Builds a request to the plugin `repeat`, with one element for each delay; the first element is
/// 100.
fn repeat(id: &str, delays: &[u32]) -> ModelInferRequest {
    let elements = (0..delays.len()).flat_map(|place| (100 + place as i32).to_le_bytes()).collect();
    let shape = &[delays.len() as i64];
    let inputs =
        vec![input("IN", "INT32", shape), input("DELAY", "UINT32", shape), input("WAIT", "UINT32", &[1])];
    named(request("repeat", inputs, vec![elements, bytes(delays), vec![0; 4]]), id)
}

/// Builds a request to Triton's `repeat` model, where an element below 0 is an error.
fn remote(id: &str, elements: &[i32], delay: u32) -> ModelInferRequest {
    let shape = &[elements.len() as i64];
    let inputs = vec![input("values", "INT32", shape), input("delays_ms", "UINT32", shape)];
    let elements_raw = elements.iter().flat_map(|element| element.to_le_bytes()).collect();
    named(request("repeat", inputs, vec![elements_raw, bytes(&vec![delay; elements.len()])]), id)
}

fn bytes(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

fn with(mut request: ModelInferRequest, name: &str, choice: ParameterChoice) -> ModelInferRequest {
    request.parameters.insert(name.into(), InferParameter { parameter_choice: Some(choice) });
    request
}

fn marked(request: ModelInferRequest) -> ModelInferRequest {
    with(request, ENABLE, ParameterChoice::BoolParam(true))
}

/// A summary of an answer: request id, element, error, and whether it is the last.
#[derive(Debug, PartialEq)]
struct Seen {
    id: String,
    element: Option<i32>,
    error: Option<String>,
    last: Option<bool>,
}

fn seen(answer: ModelStreamInferResponse) -> Seen {
    let response = answer.infer_response.unwrap_or_default();
    let last =
        response.parameters.get("triton_final_response").and_then(|last| last.parameter_choice.clone());
    Seen {
        id: response.id,
        element: response
            .raw_output_contents
            .first()
            .map(|raw| i32::from_le_bytes(raw[..].try_into().unwrap())),
        error: Some(answer.error_message).filter(|message| !message.is_empty()),
        last: last.map(|last| last == ParameterChoice::BoolParam(true)),
    }
}

fn element(id: &str, element: i32) -> Seen {
    Seen { id: id.into(), element: Some(element), error: None, last: Some(false) }
}

fn end(id: &str) -> Seen {
    Seen { id: id.into(), element: None, error: None, last: Some(true) }
}

/// Sends the requests on a new stream and returns all answers until its end.
fn all(caller: &Caller, requests: Vec<ModelInferRequest>) -> Vec<Seen> {
    // Triton sends nothing on a stream, not even headers, before its first answer.
    caller.run(async |mut client| {
        let requests = tonic::codegen::tokio_stream::iter(requests);
        let mut answers = client.model_stream_infer(requests).await.expect("a stream").into_inner();
        let mut all = Vec::new();
        while let Some(answer) = answers.message().await.expect("no status yet") {
            all.push(seen(answer));
        }
        all
    })
}

#[test]
fn a_streaming_model_gives_none_one_or_many_and_marks_its_end_if_asked() {
    let host = repeating("", "").grpc().start();
    let caller = Caller::new(&host);
    for count in [0, 1, 3] {
        let elements: Vec<Seen> = (0..count).map(|place| element("a", 100 + place as i32)).collect();
        let request = repeat("a", &vec![0; count]);
        assert_eq!(all(&caller, vec![request.clone()]), elements);
        let asked_not = with(request.clone(), ENABLE, ParameterChoice::BoolParam(false));
        assert_eq!(all(&caller, vec![asked_not]), elements);
        let with_end: Vec<Seen> = elements.into_iter().chain([end("a")]).collect();
        assert_eq!(all(&caller, vec![marked(request)]), with_end);
    }
    let many = all(&caller, vec![marked(repeat("many", &[0; 500]))]);
    assert_eq!((many.len(), &many[499], &many[500]), (501, &element("many", 599), &end("many")));
}

#[test]
fn a_short_request_overtakes_a_long_one_on_the_same_stream() {
    let host = repeating("", "").grpc().start();
    let caller = Caller::new(&host);
    let long = marked(repeat("long", &[0, 1000]));
    let answers = all(&caller, vec![long, marked(repeat("short", &[100, 0])), marked(repeat("none", &[]))]);
    let of = |id: &str| answers.iter().filter(|answer| answer.id == id).count();
    assert_eq!((of("long"), of("short"), of("none")), (3, 3, 1), "{answers:?}");
    assert_eq!(answers[answers.len() - 2..], [element("long", 101), end("long")], "{answers:?}");
    let first = |id: &str| answers.iter().position(|answer| answer.id == id);
    assert!(first("long") < first("short"), "the long one had begun: {answers:?}");
}

#[test]
fn an_error_in_the_middle_is_a_message_with_its_requests_id_and_the_stream_goes_on() {
    let host = repeating("", "").grpc().start();
    let caller = Caller::new(&host);
    let failing = with(repeat("bad", &[0, 0]), "do", ParameterChoice::StringParam("fail".into()));
    let failing = marked(with(failing, "at", ParameterChoice::Int64Param(1)));
    let mut stream = caller.stream();
    stream.send(failing);
    assert_eq!(seen(stream.answer()), element("bad", 100));
    let error = seen(stream.answer());
    assert_eq!((&*error.id, error.element, error.last), ("bad", None, Some(false)));
    assert!(error.error.is_some_and(|text| text.contains("asked to fail")));
    assert_eq!(seen(stream.answer()), end("bad"));
    stream.send(marked(repeat("good", &[0])));
    assert_eq!([seen(stream.answer()), seen(stream.answer())], [element("good", 100), end("good")]);
    stream.done();
    assert!(stream.next().unwrap().is_none());
    let counted = |code: u16| {
        host.metric(&format!("hostler_requests_total{{code=\"{code}\",model=\"repeat\",version=\"1\"}}"))
    };
    assert_eq!((counted(500), counted(200)), (1.0, 1.0));
}

#[test]
fn a_stream_that_is_left_cancels_what_its_model_still_waits_for() {
    let host = repeating("", "").grpc().start();
    let caller = Caller::new(&host);
    let mut stream = caller.stream();
    for id in ["1", "2", "3"] {
        stream.send(repeat(id, &[0, 600_000]));
        assert_eq!(seen(stream.answer()), element(id, 100));
    }
    drop(stream);
    let left = || host.metric("hostler_requests_total{code=\"499\",model=\"repeat\",version=\"1\"}");
    crate::support::eventually("three that were left", || (left() == 3.0).then_some(()), || host.log());
    assert_eq!(all(&caller, vec![repeat("next", &[0])]), [element("next", 100)]);
}

fn behind(triton: &Triton) -> Host {
    let model = "[models.repeat]\nremote = { name = \"repeat\" }\n";
    Setup::new(&(triton.executor("") + model)).grpc().start()
}

#[test]
fn a_decoupled_model_of_a_triton_streams_as_if_it_were_asked_itself() {
    let Some(triton) = Triton::start(&["repeat"]) else { return };
    let host = behind(&triton);
    let (here, there) = (Caller::new(&host), Caller::at(endpoint(triton.url())));
    for elements in [&[][..], &[7], &[7, 8, 9]] {
        let request = remote("a", elements, 0);
        for request in [request.clone(), marked(request)] {
            assert_eq!(all(&here, vec![request.clone()]), all(&there, vec![request]), "{elements:?}");
        }
    }
    // Several requests on one stream: each has its responses in order, and the short one overtakes
    // the long one's end.
    let several = vec![marked(remote("long", &[1, 2], 500)), marked(remote("short", &[3], 10))];
    for caller in [&here, &there] {
        let answers = all(caller, several.clone());
        let of = |id| answers.iter().filter(|answer| answer.id == id).collect::<Vec<_>>();
        assert_eq!(of("long"), [&element("long", 1), &element("long", 2), &end("long")]);
        assert_eq!(of("short"), [&element("short", 3), &end("short")]);
        assert_eq!(answers[0].id, "short");
    }
    // After an error in the middle, the end is marked as well if that was requested. A request that
    // is refused has not started.
    let failing = [marked(remote("bad", &[1, -1], 0)), marked(remote("bad", &[-1], 0))];
    let refused =
        marked(named(request("repeat", vec![input("values", "INT32", &[1])], vec![vec![0; 4]]), "bad"));
    for request in failing.into_iter().chain([refused]) {
        let [ours, theirs] = [&here, &there].map(|caller| all(caller, vec![request.clone()]));
        let shape = |answers: &[Seen]| {
            answers
                .iter()
                .map(|answer| (answer.element, answer.error.is_some(), answer.last))
                .collect::<Vec<_>>()
        };
        assert_eq!(shape(&ours), shape(&theirs), "{ours:?} {theirs:?}");
    }
    // After an error in the middle, the stream continues.
    for caller in [&here, &there] {
        let answers = all(caller, vec![remote("bad", &[1, -1, 2], 0), remote("good", &[2, 3], 200)]);
        assert_eq!((answers.len(), &answers[0]), (4, &element("bad", 1)), "{answers:?}");
        assert!(answers[1].error.as_ref().is_some_and(|text| text.contains("value 1 is negative")));
        assert_eq!(answers[1].id, "bad");
        assert_eq!(answers[2..], [element("good", 2), element("good", 3)]);
    }
}

#[test]
fn a_stream_has_no_more_calls_at_a_triton_than_run_at_once() {
    let Some(triton) = Triton::start(&["repeat"]) else { return };
    let host = behind(&triton);
    let caller = Caller::new(&host);
    let mut stream = caller.stream();
    (0..200).for_each(|n| stream.send(remote(&n.to_string(), &[n], 100)));
    stream.done();
    let mut most = 0;
    for _ in 0..200 {
        stream.answer();
        let inflight = host.executor("remote")["inflight"].as_u64().expect("a number");
        most = most.max(inflight);
    }
    // And the one whose reply is the next.
    assert!((32..=65).contains(&most), "{most}");
}

#[test]
fn a_stream_that_is_left_is_cancelled_at_the_triton() {
    let Some(mut triton) = Triton::start(&["repeat"]) else { return };
    let host = behind(&triton);
    let caller = Caller::new(&host);
    let mut stream = caller.stream();
    stream.send(remote("a", &[1], 0));
    assert_eq!(seen(stream.answer()), element("a", 1));
    stream.send(remote("b", &[2, 3], 60_000));
    host.wait_for_policy("the call being there", |policy| policy["executors"]["remote"]["busy"] == 1);
    drop(stream);
    host.wait_for_idle("remote");
    let mut answers = all(&caller, vec![remote("c", &[4], 0)]);
    // If Triton crashed by itself meanwhile, that is not the host's fault.
    if answers != [element("c", 4)] && triton.restart_if_crashed() {
        answers = all(&caller, vec![remote("c", &[4], 0)]);
    }
    assert_eq!(answers, [element("c", 4)]);
}

#[test]
fn a_message_on_a_stream_that_cannot_be_read_ends_it_as_the_callers_mistake() {
    let host = serve("plus1");
    let caller = Caller::new(&host);
    let good = floats("m", &[1.0]).encode_to_vec();
    for (bad, part) in [
        (vec![0xff; 20], "the message is not a ModelInferRequest: "),
        (good[..good.len() - 3].to_vec(), "the message is not a ModelInferRequest: "),
        (b"\x0a\x02\xff\xfe".to_vec(), "not UTF-8"),
    ] {
        let (answers, end) = send_raw(&caller, "ModelStreamInfer", vec![good.clone(), bad.clone()]);
        assert_eq!(answers.len(), 1, "what came before it is answered");
        let answer = ModelStreamInferResponse::decode(&answers[0][..]).unwrap();
        assert_eq!(read(&answer.infer_response.unwrap()), [2.0]);
        refused(end, Code::InvalidArgument, &[part]);
        // The same message as for a unary call, and for the other methods.
        let (_, end) = send_raw(&caller, "ModelInfer", vec![bad]);
        refused(end, Code::InvalidArgument, &[part]);
    }
    let (_, end) = send_raw(&caller, "ModelMetadata", vec![vec![0xff; 20]]);
    refused(end, Code::InvalidArgument, &["the message cannot be read: "]);
    let (_, end) = send_raw(&caller, "ModelMetadata", vec![]);
    refused(end, Code::InvalidArgument, &["the call has no message"]);
}

#[test]
fn a_watch_of_the_health_tells_that_a_remote_is_away_and_back() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::health_client::HealthClient;
    let Some(mut triton) = Triton::start(&["repeat"]) else { return };
    let host = behind(&triton);
    let caller = Caller::new(&host);
    let mut client = HealthClient::new(caller.channel.clone());
    let asked = HealthCheckRequest { service: String::new() };
    let mut watched = caller.run(async |_| client.watch(asked).await.unwrap().into_inner());
    let mut next = || caller.run(async |_| watched.message().await.unwrap().map(|answer| answer.status()));
    assert_eq!(next(), Some(ServingStatus::Serving));
    triton.kill();
    assert_eq!(next(), Some(ServingStatus::NotServing));
    triton.restart();
    assert_eq!(next(), Some(ServingStatus::Serving));
}
