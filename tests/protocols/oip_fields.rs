//! Fields and parameters of inference requests over HTTP and gRPC: ids, and values of the wrong type.

use crate::support::grpc::{self as caller, Caller, floats, named, request};
use crate::support::{Answer, Host, Setup, model};
use hostler::proto::inference::infer_parameter::ParameterChoice;
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

fn refused(answer: &Answer, status: u16, wanted: &[&str]) {
    assert_eq!(answer.status, status, "{}", answer.text());
    let json = answer.json();
    let message = json["error"].as_str().unwrap_or_else(|| panic!("{json} is not an error of the protocol"));
    for part in wanted {
        assert!(message.contains(part), "{message}\nlacks {part}");
    }
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
        let wanted = ["the request's id is", "it is a text: ", fix, "Unable to parse 'id'"];
        refused(&post(&host, "plus1/infer", &plus1(json!({"id": id}))), 400, &wanted);
        for path in ["plus1/generate", "plus1/generate_stream"] {
            refused(&post(&host, path, &json!({"x": 1, "id": id})), 400, &wanted);
            refused(&post(&host, path, &json!({"x": 1, "parameters": {"id": id}})), 400, &wanted);
        }
    }
    refused(&post(&host, "plus1/generate", &json!({"x": 1, "id": null})), 400, &["the request's id is null"]);
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
                    refused(&answer, 400, &["invalid type"])
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
