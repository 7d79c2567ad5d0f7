//! Fields and parameters of inference requests: ids, values of the wrong type, and the phrases of
//! Triton's messages that programs look for. Over HTTP and gRPC.

use crate::support::client::refused_over_oip as refused;
use crate::support::grpc::{self as caller, Caller, floats, input, named, request};
use crate::support::{Answer, Host, Setup, model};
use hostler::proto::inference::infer_parameter::ParameterChoice;
use hostler::proto::inference::model_infer_request::InferInputTensor;
use hostler::proto::inference::*;
use serde_json::{Value, json};
use tonic::Code;

/// Serves `plus1`, `texts`, `add_sub` and `datatypes`.
fn serve() -> Host {
    let names = ["plus1", "texts", "add_sub", "datatypes"];
    let manifest: String =
        names.iter().map(|name| format!("[models.{name}]\npath = \"{name}.onnx\"\n")).collect();
    let setup = Setup::new(&manifest);
    let setup = names.iter().fold(setup, |setup, name| setup.file(&format!("{name}.onnx"), model(name)));
    setup.grpc().start()
}

fn post(host: &Host, path: &str, body: &Value) -> Answer {
    host.post(&format!("/v2/models/{path}"), body.to_string())
}

fn plus1(more: Value) -> Value {
    let mut body = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[test]
fn an_empty_id_is_none() {
    let host = serve();
    for (path, body) in [
        ("plus1/infer", plus1(json!({"id": ""}))),
        ("plus1/infer", plus1(json!({"id": null}))),
        ("plus1/generate", json!({"x": 1, "id": ""})),
        ("plus1/generate", json!({"x": 1, "parameters": {"id": ""}})),
    ] {
        let answer = post(&host, path, &body);
        assert_eq!((answer.status, answer.json().get("id")), (200, None), "{path}: {}", answer.text());
        // The log has an id all the same.
        let id = answer.header("x-request-id").expect("an id").to_owned();
        assert!(!id.is_empty());
        assert_eq!(host.access_log(&id)["status"], 200);
    }
    let streamed = post(&host, "plus1/generate_stream", &json!({"x": 1, "id": ""}));
    assert!(!streamed.text().contains("\"id\""), "{}", streamed.text());
    let caller = Caller::new(&host);
    let answer = caller.run(async |mut client| {
        client.model_infer(named(floats("plus1", &[1.0]), "")).await.expect("an answer")
    });
    let id = answer.metadata().get("x-request-id").expect("an id").to_str().unwrap().to_owned();
    assert_eq!((&*answer.get_ref().id, host.access_log(&id)["status"].as_u64()), ("", Some(200)));
}

#[test]
fn an_id_that_is_no_text_is_refused() {
    let host = serve();
    for (id, fix) in [
        (json!(7), "send \"id\": \"7\""),
        (json!(-1.5), "send \"id\": \"-1.5\""),
        (json!(u64::MAX), "send \"id\": \"18446744073709551615\""),
        (json!(true), "send \"id\": \"true\""),
        (json!([7]), "send a text, or leave it out"),
        (json!({"a": 7}), "send a text, or leave it out"),
    ] {
        let wanted = ["the request's id: got ", "expected a string; ", fix, "Unable to parse 'id'"];
        refused(&post(&host, "plus1/infer", &plus1(json!({"id": id}))), 400, &wanted);
        for path in ["plus1/generate", "plus1/generate_stream"] {
            refused(&post(&host, path, &json!({"x": 1, "id": id})), 400, &wanted);
            refused(&post(&host, path, &json!({"x": 1, "parameters": {"id": id}})), 400, &wanted);
        }
    }
    refused(&post(&host, "plus1/generate", &json!({"x": 1, "id": null})), 400, &["id: got null"]);
}

#[test]
fn fields_of_the_wrong_type_are_refused() {
    let host = serve();
    let input = |key: &str, value: &Value| {
        let mut body = plus1(json!({}));
        body["inputs"][0][key] = value.clone();
        body
    };
    let output = |value: &Value| plus1(json!({"outputs": [{"name": "y", "parameters": value}]}));
    let wrong = [json!(7), json!("a"), json!(true), json!([7]), json!({"a": 7}), Value::Null];
    for value in &wrong {
        for (key, fits) in
            [("name", value == "a"), ("datatype", value == "a"), ("shape", *value == json!([7]))]
        {
            // A value of the right type has another fault.
            let part = if fits { "" } else { "the body is not an inference request: got" };
            refused(&post(&host, "plus1/infer", &input(key, value)), 400, &[part]);
        }
        refused(&post(&host, "plus1/infer", &json!({"inputs": value})), 400, &[]);
        let data = post(&host, "plus1/infer", &input("data", value));
        match value {
            Value::Array(_) => assert_eq!(data.status, 200, "{}", data.text()),
            _ => refused(&data, 400, &["input \"x\""]),
        }
        // `null` counts as a missing field.
        if !value.is_object() && !value.is_null() {
            refused(&post(&host, "plus1/infer", &plus1(json!({"parameters": value}))), 400, &["parameters"]);
            refused(&post(&host, "plus1/infer", &input("parameters", value)), 400, &["parameters"]);
            refused(&post(&host, "plus1/infer", &output(value)), 400, &["parameters"]);
            refused(
                &post(&host, "plus1/generate", &json!({"x": 1, "parameters": value})),
                400,
                &["parameters"],
            );
        }
        if !value.is_null() {
            refused(&post(&host, "plus1/infer", &plus1(json!({"outputs": value}))), 400, &[]);
        }
        for (name, wanted) in [("binary_data", "true or false"), ("classification", "whole number")] {
            let is_right = if name == "binary_data" { value.is_boolean() } else { value.is_number() };
            let answer = post(&host, "plus1/infer", &output(&json!({name: value})));
            match (is_right, value) {
                (true, _) => assert_eq!(answer.status, 200, "{}", answer.text()),
                (_, Value::Null | Value::Array(_) | Value::Object(_)) => {
                    refused(&answer, 400, &["invalid type"]);
                }
                _ => refused(&answer, 400, &[name, wanted]),
            }
        }
        if !value.is_number() {
            let mut body = input("parameters", &json!({"binary_data_size": value}));
            body["inputs"][0].as_object_mut().unwrap().remove("data");
            refused(&post(&host, "plus1/infer", &body), 400, &["binary_data_size is"]);
        }
    }
}

/// The value of a parameter, in JSON and as a message.
fn both(value: &Value) -> Option<ParameterChoice> {
    Some(match value {
        Value::Bool(value) => ParameterChoice::BoolParam(*value),
        Value::String(value) => ParameterChoice::StringParam(value.clone()),
        Value::Number(value) if value.is_f64() => ParameterChoice::DoubleParam(value.as_f64()?),
        Value::Number(value) => ParameterChoice::Int64Param(value.as_i64()?),
        _ => return None,
    })
}

fn with(mut request: ModelInferRequest, name: &str, value: &Value) -> ModelInferRequest {
    request.parameters.insert(name.into(), InferParameter { parameter_choice: both(value) });
    request
}

#[test]
fn reserved_parameters_of_the_wrong_type_are_refused() {
    let host = serve();
    let caller = Caller::new(&host);
    let values =
        [json!("yes"), json!(""), json!(1), json!(0), json!(-1), json!(1.5), json!(true), json!(false)];
    for (name, wanted, right) in [
        ("triton_enable_empty_final_response", "true or false", &[json!(true), json!(false)][..]),
        ("priority", "a whole number, at least 0", &[json!(0), json!(1)]),
        ("timeout", "a number of microseconds", &[json!(0)]),
        ("binary_data_output", "true or false", &[json!(true), json!(false)]),
    ] {
        // One microsecond is a timeout, and passes.
        for value in values.iter().filter(|value| (name, *value) != ("timeout", &json!(1))) {
            let is_right = right.contains(value);
            let mut answers = vec![post(&host, "plus1/infer", &plus1(json!({"parameters": {name: value}})))];
            let is_for_all = name != "binary_data_output";
            if is_for_all {
                answers.push(post(&host, "plus1/generate", &json!({"x": 1, name: value})));
                answers.push(post(&host, "plus1/generate", &json!({"x": 1, "parameters": {name: value}})));
            }
            for answer in answers {
                match is_right {
                    true => assert_eq!(answer.status, 200, "{name} {value}: {}", answer.text()),
                    false => refused(&answer, 400, &[&format!("parameter \"{name}\" is {value}"), wanted]),
                }
            }
            if !is_for_all {
                continue;
            }
            let asked = with(floats("plus1", &[1.0]), name, value);
            match caller.infer(asked.clone()) {
                Ok(_) => assert!(is_right, "{name} {value}"),
                outcome => {
                    assert!(!is_right, "{name} {value}: {outcome:?}");
                    caller::refused(outcome, Code::InvalidArgument, &[name, wanted]);
                }
            }
            let mut stream = caller.stream();
            stream.send(named(asked, "a"));
            stream.send(named(floats("plus1", &[1.0]), "b"));
            let answer = stream.answer();
            assert_eq!((answer.error_message.is_empty(), is_right), (is_right, is_right), "{answer:?}");
            assert_eq!(stream.answer().infer_response.unwrap().id, "b", "the stream goes on");
        }
    }
}

#[test]
fn sequences_are_refused_before_inputs_are_missed() {
    let host = serve();
    let caller = Caller::new(&host);
    for (name, value) in [
        ("sequence_id", json!(7)),
        ("sequence_id", json!("a")),
        ("sequence_start", json!(true)),
        ("sequence_end", json!(true)),
    ] {
        let wanted = [&*format!("parameter \"{name}\""), "sequences are not supported"];
        refused(
            &post(&host, "add_sub/infer", &json!({"inputs": [], "parameters": {name: value}})),
            501,
            &wanted,
        );
        refused(&post(&host, "add_sub/generate", &json!({name: value})), 501, &wanted);
        let asked = with(request("add_sub", vec![], vec![]), name, &value);
        caller::refused(caller.infer(asked.clone()), Code::Unimplemented, &wanted);
        let mut stream = caller.stream();
        stream.send(asked);
        let message = stream.answer().error_message;
        assert!(wanted.iter().all(|part| message.contains(part)), "{message}");
    }
}

/// An element of BYTES.
fn element(text: &str) -> Vec<u8> {
    [&(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()
}

#[test]
fn data_that_do_not_fit_are_refused_in_tritons_words() {
    let host = serve();
    let caller = Caller::new(&host);
    let texts = |shape: &[i64], raw: Vec<u8>| {
        let outcome =
            caller.infer(request("texts", vec![input("INPUT0", "BYTES", shape)], vec![raw.clone()]));
        let head = json!({"inputs": [{"name": "INPUT0", "datatype": "BYTES", "shape": shape, "parameters": {"binary_data_size": raw.len()}}]})
            .to_string();
        let length = head.len().to_string();
        let headers = [("inference-header-content-length", &*length)];
        let body = [head.as_bytes(), &raw].concat();
        (outcome, host.client().request("POST", "/v2/models/texts/infer", &headers, &body))
    };
    let (one, two) = (element("a"), [element("a"), element("b")].concat());
    for (shape, raw, phrase) in [
        (
            [1, 2],
            one.clone(),
            "expected 2 string elements for inference input 'INPUT0' for model 'texts', got 1",
        ),
        ([1, 1], vec![], "expected 1 string elements for inference input 'INPUT0' for model 'texts', got 0"),
        (
            [1, 1],
            two,
            "unexpected number of string elements 2 for inference input 'INPUT0' for model 'texts', expecting 1",
        ),
        (
            [1, 2],
            [one, vec![9, 0]].concat(),
            "incomplete string length indicator for inference input 'INPUT0' for model 'texts', expecting 4 bytes but \
             only 2 bytes available",
        ),
        (
            [1, 1],
            vec![9, 0, 0, 0, 1, 2, 3],
            "incomplete string data for inference input 'INPUT0' for model 'texts', expecting string of length 9 but \
             only 3 bytes available",
        ),
    ] {
        let (grpc, http) = texts(&shape, raw);
        caller::refused(grpc, Code::InvalidArgument, &["input \"INPUT0\"", phrase]);
        refused(&http, 400, &["\"INPUT0\"", phrase]);
    }
    let json_texts =
        json!({"inputs": [{"name": "INPUT0", "datatype": "BYTES", "shape": [1, 2], "data": ["a"]}]});
    let phrase = "expected 2 string elements for inference input 'INPUT0' for model 'texts', got 1";
    refused(&post(&host, "texts/infer", &json_texts), 400, &["shape says [1,2]", phrase]);

    let typed = |name: &str, datatype: &str, shape: &[i64], contents: InferTensorContents| InferInputTensor {
        contents: Some(contents),
        ..input(name, datatype, shape)
    };
    let texts = |count: usize| InferTensorContents {
        bytes_contents: vec![(&b"a"[..]).into(); count],
        ..Default::default()
    };
    let ints = |count: usize| InferTensorContents { int_contents: vec![1; count], ..Default::default() };
    let floating =
        |count: usize| InferTensorContents { fp32_contents: vec![1.0; count], ..Default::default() };
    let two_kinds = InferTensorContents { fp32_contents: vec![1.0; 16], ..ints(16) };
    let (row, raw) = (|contents| typed("INPUT0", "INT32", &[1, 16], contents), || vec![0; 64]);
    let (left, right) = (input("INPUT0", "INT32", &[1, 16]), input("INPUT1", "INT32", &[1, 16]));
    for (model, inputs, raw, phrase) in [
        (
            "add_sub",
            vec![row(ints(16)), right.clone()],
            vec![raw(), raw()],
            "contents field must not be specified when using raw_input_contents for 'INPUT0' for model 'add_sub'",
        ),
        (
            "add_sub",
            vec![left.clone(), typed("INPUT1", "INT32", &[1, 16], ints(16))],
            vec![raw()],
            "contents field must not be specified when using raw_input_contents for 'INPUT1' for model 'add_sub'",
        ),
        (
            "add_sub",
            vec![left.clone(), right.clone()],
            vec![raw()],
            "unable to find data for input tensor 'INPUT1' for model 'add_sub' in request.",
        ),
        (
            "add_sub",
            vec![left, right],
            vec![],
            "unable to find data for input tensor 'INPUT0' for model 'add_sub' in request.",
        ),
        (
            "add_sub",
            vec![row(ints(15))],
            vec![],
            "input byte size mismatch for input 'INPUT0' for model 'add_sub'. Expected 64, got 60",
        ),
        (
            "add_sub",
            vec![row(ints(17))],
            vec![],
            "input byte size mismatch for input 'INPUT0' for model 'add_sub'. Expected 64, got 68",
        ),
        (
            "add_sub",
            vec![row(floating(16))],
            vec![],
            "unexpected explicit tensor data for input tensor 'INPUT0' for model 'add_sub' of type 'FP32', expected \
             datatype 'INT32'",
        ),
        (
            "add_sub",
            vec![row(two_kinds)],
            vec![],
            "unexpected explicit tensor data for input tensor 'INPUT0' for model 'add_sub', binary data was already \
             supplied.",
        ),
        (
            "texts",
            vec![typed("INPUT0", "BYTES", &[1, 2], texts(1))],
            vec![],
            "expected 2 string elements for inference input 'INPUT0' for model 'texts', got 1",
        ),
        (
            "texts",
            vec![typed("INPUT0", "BYTES", &[1, 1], texts(3))],
            vec![],
            "unexpected number of string elements 3 for inference input 'INPUT0' for model 'texts', expecting 1",
        ),
        (
            "texts",
            vec![typed("INPUT0", "BYTES", &[1, 1], ints(1))],
            vec![],
            "unexpected explicit tensor data for input tensor 'INPUT0' for model 'texts' of type 'INT32', expected \
             datatype 'BYTES'",
        ),
    ] {
        caller::refused(
            caller.infer(request(model, inputs, raw)),
            Code::InvalidArgument,
            &["input \"INPUT", phrase],
        );
    }
}

#[test]
fn names_that_do_not_exist_are_refused_in_tritons_words() {
    let manifest = "[server]\nmodel_control = \"explicit\"\n[models.plus1]\npath = \"plus1.onnx\"\n";
    let host = Setup::new(manifest).file("plus1.onnx", model("plus1")).grpc().start();
    let caller = Caller::new(&host);
    for (path, phrase) in [
        ("nobody", "Request for unknown model: 'nobody' is not found"),
        ("nobody/versions/7", "Request for unknown model: 'nobody' version 7 is not found"),
        ("plus1/versions/7", "Request for unknown model: 'plus1' version 7 is not found"),
    ] {
        for action in ["", "/config", "/stats"] {
            refused(&host.get(&format!("/v2/models/{path}{action}")), 404, &[phrase, "model \""]);
        }
        refused(&post(&host, &format!("{path}/infer"), &plus1(json!({}))), 404, &[phrase]);
        refused(&post(&host, &format!("{path}/generate"), &json!({"x": 1})), 404, &[phrase]);
        let (name, version) = path.split_once("/versions/").unwrap_or((path, ""));
        let mut asked = floats(name, &[1.0]);
        asked.model_version = version.into();
        caller::refused(caller.infer(asked.clone()), Code::NotFound, &[phrase]);
        let mut stream = caller.stream();
        stream.send(asked);
        let message = stream.answer().error_message;
        assert!(message.contains(phrase), "{message}");
    }
    let phrase = "failed to load 'nobody', failed to poll from model repository: ";
    let wanted = [phrase, "the manifest has no model \"nobody\""];
    refused(&host.post("/v2/repository/models/nobody/load", "{}"), 404, &wanted);
    let asked = RepositoryModelLoadRequest { model_name: "nobody".into(), ..Default::default() };
    let outcome = caller.run(async |mut client| client.repository_model_load(asked).await);
    caller::refused(outcome, Code::NotFound, &wanted);
}
