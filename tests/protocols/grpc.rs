//! gRPC: the Open Inference Protocol's metadata and unary inference.

use crate::support::grpc::*;
use crate::support::slow::ENDLESS;
use crate::support::{PATIENCE, Setup, model};
use hostler::proto::inference::infer_parameter::ParameterChoice;
use hostler::proto::inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use hostler::proto::inference::*;
use std::time::Instant;
use tonic::codec::CompressionEncoding;
use tonic::{Code, Request};

#[test]
fn the_server_and_its_models_describe_themselves() {
    let host = serve("two_inputs");
    let caller = Caller::new(&host);
    caller.run(async |mut client| {
        assert!(client.server_live(ServerLiveRequest {}).await.unwrap().into_inner().live);
        assert!(client.server_ready(ServerReadyRequest {}).await.unwrap().into_inner().ready);
        let server = client.server_metadata(ServerMetadataRequest {}).await.unwrap().into_inner();
        assert_eq!((&*server.name, &*server.version), ("triton", env!("CARGO_PKG_VERSION")));
        for (name, version, ready) in [("m", "", true), ("m", "1", true), ("m", "2", false), ("n", "", false)]
        {
            let asked = ModelReadyRequest { name: name.into(), version: version.into() };
            assert_eq!(
                client.model_ready(asked).await.unwrap().into_inner().ready,
                ready,
                "{name}:{version}"
            );
        }
        let asked = ModelMetadataRequest { name: "m".into(), version: String::new() };
        let metadata = client.model_metadata(asked).await.unwrap().into_inner();
        assert_eq!((&*metadata.name, &metadata.versions[..]), ("m", &["1".to_owned()][..]));
        let inputs = metadata.inputs.iter();
        let inputs: Vec<_> = inputs.map(|spec| (&*spec.name, &*spec.datatype, &spec.shape[..])).collect();
        assert_eq!(inputs, [("a", "FP32", &[-1][..]), ("b", "FP32", &[-1])]);
        let asked = ModelMetadataRequest { name: "mm".into(), version: String::new() };
        let status = client.model_metadata(asked).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound);
        assert!(status.message().contains("did you mean \"m\"?"), "{}", status.message());
    });
}

#[test]
fn every_datatype_goes_in_typed_or_raw_and_comes_out_raw() {
    let host = serve("datatypes");
    let caller = Caller::new(&host);
    let contents = InferTensorContents::default;
    let cases = [
        ("bool", "BOOL", vec![1, 0], InferTensorContents { bool_contents: vec![true, false], ..contents() }),
        ("uint8", "UINT8", vec![0, 255], InferTensorContents { uint_contents: vec![0, 255], ..contents() }),
        (
            "uint16",
            "UINT16",
            vec![0, 0, 255, 255],
            InferTensorContents { uint_contents: vec![0, 65_535], ..contents() },
        ),
        (
            "uint32",
            "UINT32",
            [0, u32::MAX].map(u32::to_le_bytes).concat(),
            InferTensorContents { uint_contents: vec![0, u32::MAX], ..contents() },
        ),
        (
            "uint64",
            "UINT64",
            [0, u64::MAX].map(u64::to_le_bytes).concat(),
            InferTensorContents { uint64_contents: vec![0, u64::MAX], ..contents() },
        ),
        ("int8", "INT8", vec![128, 127], InferTensorContents { int_contents: vec![-128, 127], ..contents() }),
        (
            "int16",
            "INT16",
            [i16::MIN, i16::MAX].map(i16::to_le_bytes).concat(),
            InferTensorContents { int_contents: vec![i16::MIN.into(), i16::MAX.into()], ..contents() },
        ),
        (
            "int32",
            "INT32",
            [i32::MIN, i32::MAX].map(i32::to_le_bytes).concat(),
            InferTensorContents { int_contents: vec![i32::MIN, i32::MAX], ..contents() },
        ),
        (
            "int64",
            "INT64",
            [i64::MIN, i64::MAX].map(i64::to_le_bytes).concat(),
            InferTensorContents { int64_contents: vec![i64::MIN, i64::MAX], ..contents() },
        ),
        (
            "fp32",
            "FP32",
            [0.1, -1e30].map(f32::to_le_bytes).concat(),
            InferTensorContents { fp32_contents: vec![0.1, -1e30], ..contents() },
        ),
        (
            "fp64",
            "FP64",
            [0.1, -1e300].map(f64::to_le_bytes).concat(),
            InferTensorContents { fp64_contents: vec![0.1, -1e300], ..contents() },
        ),
        (
            "bytes",
            "BYTES",
            b"\x00\x00\x00\x00\x04\x00\x00\x00a\xc3\xbcb".to_vec(),
            InferTensorContents {
                bytes_contents: vec![(&b""[..]).into(), (&b"a\xc3\xbcb"[..]).into()],
                ..contents()
            },
        ),
    ];
    // These datatypes have no typed contents, so a request without raw contents cannot carry them.
    let halves = [("fp16", "FP16", vec![0, 56, 255, 251]), ("bf16", "BF16", vec![0, 63, 0, 192])];
    let raw_cases = cases.iter().map(|(name, datatype, raw, _)| (*name, *datatype, raw.clone()));
    let raw_cases: Vec<_> = raw_cases.chain(halves).collect();
    let inputs = raw_cases.iter().map(|(name, datatype, _)| input(name, datatype, &[2])).collect();
    let raw = raw_cases.iter().map(|(_, _, raw)| raw.clone()).collect();
    let response = caller.infer(named(request("m", inputs, raw), "all")).unwrap();
    assert_eq!((&*response.model_name, &*response.model_version, &*response.id), ("m", "1", "all"));
    assert_eq!(response.outputs.len(), raw_cases.len());
    for (name, datatype, raw) in &raw_cases {
        let place = response.outputs.iter().position(|output| output.name == format!("{name}_out"));
        let place = place.unwrap_or_else(|| panic!("no output of {name}"));
        let output = &response.outputs[place];
        assert_eq!(
            (&*output.datatype, &output.shape[..], output.contents.is_none()),
            (*datatype, &[2][..], true)
        );
        assert_eq!(&response.raw_output_contents[place][..], &raw[..], "{name}");
    }

    // Typed contents decode to the same tensors. The model requires all inputs, so the error must
    // say which one is wrong.
    let typed = cases.iter().map(|(name, datatype, _, contents)| InferInputTensor {
        contents: Some(contents.clone()),
        ..input(name, datatype, &[2])
    });
    refused(
        caller.infer(request("m", typed.clone().collect(), vec![])),
        Code::InvalidArgument,
        &["input \"fp16\" (FP16 [-1]) is missing"],
    );
    let mut typed: Vec<_> = typed.collect();
    typed.push(InferInputTensor { contents: Some(contents()), ..input("fp16", "FP16", &[0]) });
    refused(
        caller.infer(request("m", typed, vec![])),
        Code::InvalidArgument,
        &["input \"fp16\": FP16 has no typed contents; send it in raw_input_contents"],
    );
}

#[test]
fn typed_contents_are_the_tensor() {
    let host = serve("plus1");
    let caller = Caller::new(&host);
    let contents = InferTensorContents { fp32_contents: vec![1.0, 2.5], ..Default::default() };
    let typed = InferInputTensor { contents: Some(contents), ..input("x", "FP32", &[2]) };
    assert_eq!(read(&caller.infer(request("m", vec![typed], vec![])).unwrap()), [2.0, 3.5]);
    let empty = input("x", "FP32", &[0]);
    assert_eq!(read(&caller.infer(request("m", vec![empty], vec![])).unwrap()), [0.0_f32; 0]);
}

#[test]
fn contents_that_do_not_fit_are_refused_by_name() {
    let host = serve("two_inputs");
    let caller = Caller::new(&host);
    let typed = |name: &str, datatype: &str, contents: InferTensorContents| InferInputTensor {
        contents: Some(contents),
        ..input(name, datatype, &[1])
    };
    let fp32 = || InferTensorContents { fp32_contents: vec![1.0], ..Default::default() };
    let int = || InferTensorContents { int_contents: vec![300], ..Default::default() };
    let (a, b, four) = (input("a", "FP32", &[1]), input("b", "FP32", &[1]), || vec![0; 4]);
    let region = ParameterChoice::StringParam("r".into());
    let shared = InferParameter { parameter_choice: Some(region) };
    let shared = [("shared_memory_region".to_owned(), shared)];
    let shared = InferInputTensor { parameters: shared.into(), ..a.clone() };
    let cases = [
        (vec![a.clone(), b.clone()], vec![four()], "input \"b\": no raw contents: there are 1 for 2 inputs"),
        (vec![a.clone()], vec![four(), four()], "2 entries for 1 inputs, the last of which is \"a\""),
        (vec![a.clone(), typed("b", "FP32", fp32())], vec![four(), four()], "input \"b\": it has contents"),
        (
            vec![a.clone(), b.clone()],
            vec![four(), vec![0; 5]],
            "\"b\": FP32 of shape [1] needs 4 bytes, got 5: input byte size mismatch for input 'b' for model 'm'. \
             Expected 4, got 5",
        ),
        (
            vec![typed("a", "FP32", int())],
            vec![],
            "input \"a\": FP32 is sent in fp32_contents, not in int_contents",
        ),
        (vec![typed("a", "INT8", int())], vec![], "input \"a\": element 0 is 300, which INT8 cannot hold"),
        (vec![typed("a", "FP31", fp32())], vec![], "input \"a\": no datatype \"FP31\" (did you mean"),
        (vec![a.clone()], vec![], "input \"a\": shape [1] needs 1 elements in fp32_contents, got 0"),
        (vec![input("a", "FP32", &[-1])], vec![], "input \"a\": shape [-1] has a negative dimension"),
        (vec![input("a", "FP32", &[i64::MAX, 8])], vec![], "more elements than can be addressed"),
        (vec![a.clone()], vec![four()], "input \"b\" (FP32 [-1]) is missing"),
    ];
    for (inputs, raw, part) in cases {
        refused(caller.infer(request("m", inputs, raw)), Code::InvalidArgument, &[part]);
    }
    refused(
        caller.infer(request("m", vec![shared, b.clone()], vec![])),
        Code::Unimplemented,
        &["input \"a\": shared memory is not supported"],
    );
    let mut asked = request("m", vec![a, b], vec![four(), four()]);
    asked.outputs = vec![InferRequestedOutputTensor { name: "nope".into(), ..Default::default() }];
    refused(caller.infer(asked), Code::InvalidArgument, &["no output \"nope\""]);
    refused(caller.infer(request("n", vec![], vec![])), Code::NotFound, &["no model \"n\""]);
    let mut asked = request("m", vec![], vec![]);
    asked.model_version = "v1".into();
    let message = "Request for unknown model: failed to get model version from specified version string 'v1'";
    refused(caller.infer(asked), Code::NotFound, &[message]);
}

#[test]
fn a_message_over_the_limit_is_refused_before_it_is_read() {
    let manifest = "[server]\nmax_body_mb = 1\n[models.m]\npath = \"m.onnx\"\n";
    let host = Setup::new(manifest).file("m.onnx", model("plus1")).grpc().start();
    let caller = Caller::new(&host);
    let large = floats("m", &vec![0.0; 300_000]);
    let parts = ["the message is over 1 MB; see max_body_mb"];
    refused(caller.infer(large.clone()), Code::ResourceExhausted, &parts);
    let mut stream = caller.stream();
    stream.send(large);
    let status = stream.next().unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, parts[0]));
    // The connection still works. A message that is too large after decompression is refused as
    // well.
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Deflate] {
        let outcome = caller.run(async |client| {
            client.send_compressed(encoding).model_infer(floats("m", &vec![0.0; 300_000])).await
        });
        refused(outcome.map(tonic::Response::into_inner), Code::ResourceExhausted, &parts);
    }
    assert_eq!(read(&caller.infer(floats("m", &vec![0.0; 200_000])).unwrap()).len(), 200_000);
    assert_eq!(
        host.metric("hostler_requests_total{code=\"413\",model=\"_unknown\",version=\"_unknown\"}"),
        3.0
    );
}

#[test]
fn compressed_messages_are_read() {
    let host = serve("plus1");
    let caller = Caller::new(&host);
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Deflate] {
        let response = caller.run(async |client| {
            let mut client = client.send_compressed(encoding).accept_compressed(encoding);
            client.model_infer(floats("m", &[1.0; 50_000])).await.unwrap().into_inner()
        });
        assert_eq!(read(&response), [2.0; 50_000]);
        let mut answers = caller.run(async |client| {
            let mut client = client.send_compressed(encoding);
            let requests = tonic::codegen::tokio_stream::once(floats("m", &[1.0; 1000]));
            client.model_stream_infer(requests).await.unwrap().into_inner()
        });
        let answer = caller.run(async |_| answers.message().await.unwrap().unwrap());
        assert_eq!(read(&answer.infer_response.unwrap()), [2.0; 1000]);
    }
}

#[test]
fn the_request_id_is_the_callers_and_is_logged() {
    let host = serve("plus1");
    let caller = Caller::new(&host);
    caller.infer(named(floats("m", &[1.0]), "from-the-message")).unwrap();
    let mut asked = Request::new(named(floats("m", &[1.0]), "of the message"));
    asked.metadata_mut().insert("x-request-id", "from-the-header".parse().unwrap());
    let response = caller.run(async |mut client| client.model_infer(asked).await.unwrap());
    assert_eq!(response.metadata().get("x-request-id").unwrap(), "from-the-header");
    assert_eq!(response.get_ref().id, "of the message");
    for id in ["from-the-message", "from-the-header"] {
        let line = host.access_log(id);
        assert_eq!(
            (&line["protocol"], &line["model"], &line["status"]),
            (&"grpc".into(), &"m".into(), &200.into())
        );
    }
    assert_eq!(host.metric("hostler_requests_total{code=\"200\",model=\"m\",version=\"1\"}"), 2.0);
}

#[test]
fn a_header_decides_the_version_where_the_rule_says_so() {
    let manifest = "[models.\"plus:v1\"]\npath = \"1.onnx\"\n[models.\"plus:v2\"]\npath = \"2.onnx\"\n\
        [routing.plus]\nweights = { v1 = 1, v2 = 1 }\nby = \"header:x-user\"\n";
    let setup = Setup::new(manifest).file("1.onnx", model("plus1")).file("2.onnx", model("plus2"));
    let host = setup.grpc().start();
    let caller = Caller::new(&host);
    let version_of = |user: usize| {
        let mut asked = Request::new(floats("plus", &[0.0]));
        asked.metadata_mut().insert("x-user", format!("user-{user}").parse().unwrap());
        caller.infer(asked).unwrap().model_version
    };
    let versions: Vec<String> = (0..20).map(version_of).collect();
    assert!(versions.contains(&"v1".to_owned()) && versions.contains(&"v2".to_owned()), "{versions:?}");
    assert_eq!(versions, (0..20).map(version_of).collect::<Vec<_>>());
}

#[test]
fn the_calls_deadline_is_the_works() {
    let host = serve_loop("[executors.onnx]\nworkers = 1\n");
    let caller = Caller::new(&host);
    let started = Instant::now();
    let mut asked = Request::new(named(rounds(ENDLESS), "late"));
    // The client enforces the deadline as well; either side may report it first.
    asked.metadata_mut().insert("grpc-timeout", "100m".parse().unwrap());
    caller.infer(asked).expect_err("no time for that");
    assert!(started.elapsed() < PATIENCE / 2);
    let status = host.access_log("late")["status"].clone();
    assert!(status == 504 || status == 499, "{status}");
    host.wait_for_idle("onnx");
    let mut asked = rounds(ENDLESS);
    let us = InferParameter { parameter_choice: Some(ParameterChoice::Int64Param(100_000)) };
    asked.parameters.insert("timeout".into(), us);
    refused(caller.infer(asked), Code::DeadlineExceeded, &["Deadline Exceeded: ", "deadline"]);
    assert_eq!(read(&caller.infer(floats("fast", &[1.0])).unwrap()), [2.0]);
}

#[test]
fn a_timeout_that_is_none_is_refused_by_every_method() {
    let host = serve("plus1");
    let caller = Caller::new(&host);
    let bad = ["soon", "-1S", "+1S", "1", "S", "1.5S", "1s", "123456789S", "1 S", "0x1S"];
    for timeout in bad {
        let timed = |message| {
            let mut asked = Request::new(message);
            asked.metadata_mut().insert("grpc-timeout", timeout.parse().unwrap());
            asked
        };
        let parts = [&*format!("grpc-timeout is \"{timeout}\""), "up to eight digits and a unit"];
        refused(caller.infer(timed(floats("m", &[1.0]))), Code::InvalidArgument, &parts);
        let metadata = ModelMetadataRequest { name: "m".into(), version: String::new() };
        let mut asked = Request::new(metadata);
        asked.metadata_mut().insert("grpc-timeout", timeout.parse().unwrap());
        let outcome = caller.run(async |mut client| client.model_metadata(asked).await);
        refused(outcome, Code::InvalidArgument, &parts);
        let mut asked = Request::new(tonic::codegen::tokio_stream::once(floats("m", &[1.0])));
        asked.metadata_mut().insert("grpc-timeout", timeout.parse().unwrap());
        let outcome = caller.run(async |mut client| client.model_stream_infer(asked).await);
        refused(outcome.map(|_| ()), Code::InvalidArgument, &parts);
    }
    for timeout in ["1H", "1M", "10S", "10000m", "10000000u", "99999999n", "99999999H"] {
        let mut asked = Request::new(floats("m", &[1.0]));
        asked.metadata_mut().insert("grpc-timeout", timeout.parse().unwrap());
        assert_eq!(read(&caller.infer(asked).unwrap()), [2.0], "{timeout}");
    }
    let unknown = "hostler_requests_total{code=\"400\",model=\"_unknown\",version=\"_unknown\"}";
    assert_eq!(host.metric(unknown), bad.len() as f64, "a call of ModelInfer is accounted for");
}

#[test]
fn a_call_that_is_cancelled_frees_its_place() {
    let host = serve_loop("[executors.onnx]\nworkers = 1\nqueue = 0\n");
    let caller = Caller::new(&host);
    let call = {
        let mut client = caller.client.clone();
        caller.runtime.spawn(async move { client.model_infer(named(rounds(ENDLESS), "left")).await })
    };
    host.wait_for_policy("the call running", |policy| policy["executors"]["onnx"]["busy"] == 1);
    refused(caller.infer(rounds(1)), Code::Unavailable, &["all 1 workers are busy"]);
    call.abort();
    assert_eq!(host.access_log("left")["status"], 499);
    host.wait_for_idle("onnx");
    caller.infer(rounds(1)).unwrap();
}

#[test]
fn what_is_not_offered_says_so() {
    let host = serve("plus1");
    let caller = Caller::new(&host);
    caller.run(async |mut client| {
        let asked = SystemSharedMemoryRegisterRequest::default();
        let status = client.system_shared_memory_register(asked).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented);
        assert!(status.message().contains("shared memory is not supported"), "{}", status.message());
        let none = client.system_shared_memory_status(SystemSharedMemoryStatusRequest::default()).await;
        assert!(none.unwrap().into_inner().regions.is_empty());
        let none = client.cuda_shared_memory_status(CudaSharedMemoryStatusRequest::default()).await;
        assert!(none.unwrap().into_inner().regions.is_empty());
        client.system_shared_memory_unregister(SystemSharedMemoryUnregisterRequest::default()).await.unwrap();
        client.cuda_shared_memory_unregister(CudaSharedMemoryUnregisterRequest::default()).await.unwrap();
        let asked = SystemSharedMemoryStatusRequest { name: "a".into() };
        let status = client.system_shared_memory_status(asked).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound);
        assert!(status.message().contains("Unable to find system shared memory region: 'a'"));
        let status = client.trace_setting(TraceSettingRequest::default()).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented);
        let status = client.log_settings(LogSettingsRequest::default()).await.unwrap_err();
        assert!(status.message().contains("HOSTLER_LOG"), "{}", status.message());
    });
}

#[test]
fn what_is_not_grpc_is_told_what_is_spoken() {
    let host = serve("plus1");
    let answer = crate::support::Client::new(host.grpc.unwrap()).get("/v2/health/live");
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("this listener speaks gRPC"), "{}", answer.text());
}

#[test]
fn without_an_address_there_is_no_listener() {
    let host = Setup::new("[models.m]\npath = \"m.onnx\"\n").file("m.onnx", model("plus1")).start();
    assert_eq!(host.grpc, None);
}
