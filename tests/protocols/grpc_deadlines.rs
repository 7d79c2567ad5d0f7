//! Deadlines over gRPC: when they begin, and how the client is told that one has passed.

use crate::support::grpc::*;
use crate::support::http2::{self, Http2, Reply, framed, path};
use crate::support::slow::ENDLESS;
use crate::support::{Setup, model};
use bytes::Bytes;
use hostler::proto::inference::infer_parameter::ParameterChoice;
use hostler::proto::inference::*;
use prost::Message;
use std::time::Duration;
use tonic::Code;

/// What the client is told, exactly as it is sent.
const PASSED: &str = "Deadline Exceeded: the deadline of the request has passed";

/// Returns the messages of a stream's answer.
fn messages(reply: &Reply) -> Vec<ModelStreamInferResponse> {
    let mut rest = &reply.data[..];
    let mut messages = Vec::new();
    while let Some((prefix, tail)) = rest.split_first_chunk::<5>() {
        let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
        messages.push(ModelStreamInferResponse::decode(&tail[..length]).unwrap());
        rest = &tail[length..];
    }
    messages
}

fn timed(mut request: ModelInferRequest, us: i64) -> ModelInferRequest {
    let timeout = InferParameter { parameter_choice: Some(ParameterChoice::Int64Param(us)) };
    request.parameters.insert("timeout".into(), timeout);
    request
}

#[test]
fn a_call_ends_at_its_deadline_although_its_message_has_not_arrived() {
    let host = serve("plus1");
    let connection = Http2::connect(&host);
    let message = framed(&floats("m", &[1.0]));
    for part in [0, 3, message.len() - 1] {
        let id = format!("part-{part}");
        let headers = [("grpc-timeout", "200m"), ("x-request-id", &id)];
        let reply = connection.run(async {
            let mut call = http2::begin(&connection.sender, &path("ModelInfer"), &headers).await.unwrap();
            call.body.send_data(message.slice(..part), false).unwrap();
            call.reply().await.unwrap().0
        });
        reply.refused(Code::DeadlineExceeded, PASSED);
        let line = host.access_log(&id);
        assert_eq!(line["status"], 504, "{line}");
        assert!(line["ms"].as_f64().unwrap() >= 150.0, "{line}");
    }
}

#[test]
fn the_time_of_a_unary_call_begins_with_its_head() {
    let manifest = "[models.m]\npath = \"m.onnx\"\ntimeout_ms = 500\n";
    let host = Setup::new(manifest).file("m.onnx", model("plus1")).grpc().start();
    let connection = Http2::connect(&host);
    let slow = |request: ModelInferRequest, id: &'static str| {
        let connection = &connection;
        connection.run(async move {
            let headers = [("x-request-id", id)];
            let mut call = http2::begin(&connection.sender, &path("ModelInfer"), &headers).await.unwrap();
            // More than the model's timeout, in which the client sends nothing.
            tokio::time::sleep(Duration::from_millis(700)).await;
            call.body.send_data(framed(&request), true).unwrap();
            call.reply().await.unwrap().0
        })
    };
    // The timeouts of the model and of the request both count from the head.
    for (request, id) in [(floats("m", &[1.0]), "model"), (timed(floats("m", &[1.0]), 400_000), "request")] {
        slow(request, id).refused(Code::DeadlineExceeded, PASSED);
        let line = host.access_log(id);
        // Much more than from its message on; the clocks of both sides differ a little.
        assert!(line["status"] == 504 && line["ms"].as_f64().unwrap() >= 600.0, "{line}");
    }
}

#[test]
fn the_time_of_a_request_on_a_stream_begins_with_its_message() {
    let manifest = "[models.m]\npath = \"m.onnx\"\ntimeout_ms = 2000\n";
    let host = Setup::new(manifest).file("m.onnx", model("plus1")).grpc().start();
    let connection = Http2::connect(&host);
    let reply = connection.run(async {
        let mut call = http2::begin(&connection.sender, &path("ModelStreamInfer"), &[]).await.unwrap();
        // A stream may idle for longer than its requests may take.
        tokio::time::sleep(Duration::from_millis(2300)).await;
        call.body.send_data(framed(&floats("m", &[1.0])), true).unwrap();
        call.reply().await.unwrap().0
    });
    let answers = messages(&reply);
    assert!(answers.len() == 1 && answers[0].error_message.is_empty(), "{answers:?}");
}

#[test]
fn a_deadline_on_a_stream_is_said_in_one_form() {
    let host = serve_loop("[executors.onnx]\nworkers = 2\nqueue = 8\n");
    let connection = Http2::connect(&host);
    let stream = |headers: &[(&str, &str)], requests: Vec<ModelInferRequest>, ends: bool| {
        connection.run(async {
            let path = path("ModelStreamInfer");
            let mut call = http2::begin(&connection.sender, &path, headers).await.unwrap();
            for request in requests {
                call.body.send_data(framed(&request), false).unwrap();
                let id = format!("\"fast-{ends}\"");
                // The others compute for as long as they may, and could hold its answer up.
                while !host.stdout().iter().any(|line| line.contains(&id)) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            if ends {
                call.body.send_data(Bytes::new(), true).unwrap();
            }
            call.reply().await.unwrap().0
        })
    };
    for ends in [false, true] {
        // The deadline of the stream: one status, whatever its requests are doing.
        let endless = |id: &str| named(rounds(ENDLESS), &format!("{id}-{ends}"));
        let requests = vec![
            named(floats("fast", &[1.0]), &format!("fast-{ends}")),
            endless("running"),
            endless("also-running"),
            endless("queued"),
        ];
        let reply = stream(&[("grpc-timeout", "3000m")], requests, ends);
        reply.refused(Code::DeadlineExceeded, PASSED);
        let answers = messages(&reply);
        assert_eq!(answers.len(), 1, "{answers:?}");
        assert_eq!(answers[0].infer_response.as_ref().unwrap().id, format!("fast-{ends}"));
        for id in ["running", "also-running", "queued"] {
            assert_eq!(host.access_log(&format!("{id}-{ends}"))["status"], 504);
        }
        host.wait_for_idle("onnx");
    }
    // The stream without any request.
    stream(&[("grpc-timeout", "100m")], vec![], false).refused(Code::DeadlineExceeded, PASSED);
    // The timeout of one request: a message, after which the stream goes on.
    let requests =
        vec![timed(named(rounds(ENDLESS), "late"), 100_000), named(floats("fast", &[1.0]), "next")];
    let reply = stream(&[], requests, true);
    let answers = messages(&reply);
    let said: Vec<_> = answers
        .iter()
        .map(|answer| (&*answer.infer_response.as_ref().unwrap().id, &*answer.error_message))
        .collect();
    assert_eq!(said, [("late", PASSED), ("next", "")]);
    assert_eq!(reply.raw("grpc-status"), "0");
    // A client that wants errors to end its streams.
    let headers = [("triton_grpc_error", "true")];
    stream(&headers, vec![timed(rounds(ENDLESS), 100_000)], false).refused(Code::DeadlineExceeded, PASSED);
    host.wait_for_idle("onnx");
}

#[test]
fn messages_of_errors_can_be_read_in_the_header() {
    let host = serve("plus1");
    let connection = Http2::connect(&host);
    let call = |method: &'static str, message: Vec<u8>| {
        let connection = &connection;
        connection.run(async move {
            let mut call = http2::begin(&connection.sender, &path(method), &[]).await.unwrap();
            call.body.send_data(message.into(), true).unwrap();
            call.reply().await.unwrap().0
        })
    };
    let request = |model: &str| framed(&floats(model, &[1.0])).to_vec();
    let infer = call("ModelInfer", request("50% \u{fc}?"));
    let expected = "Request for unknown model: '50%25 %C3%BC?' is not found: no model \"50%25 %C3%BC?\"";
    infer.refused(Code::NotFound, expected);
    let named = ModelMetadataRequest { name: "n".into(), version: String::new() };
    let metadata = call("ModelMetadata", framed(&named).to_vec());
    assert!(metadata.raw("grpc-message").contains("unknown model: 'n' is not found"), "{metadata:?}");
    let stream = call("ModelStreamInfer", vec![0, 0, 0, 0, 2, 0xff, 0xff]);
    assert!(stream.raw("grpc-message").starts_with("the message is not a ModelInferRequest: "), "{stream:?}");
}
