//! Tests `examples/streaming` as shipped: it streams the text that a plain loop generates, over
//! every protocol, and refuses bad requests.

use crate::support::grpc as caller;
use crate::support::grpc::{Caller, input};
use crate::support::streaming::Stream;
use crate::support::{Host, Setup, eventually, example, plugin};
use hostler::proto::inference::infer_parameter::ParameterChoice;
use hostler::proto::inference::{InferParameter, ModelInferRequest};
use serde_json::{Value, json};

fn serve() -> Host {
    let manifest = std::fs::read_to_string(example("streaming/hostler.toml")).unwrap();
    let manifest = manifest.replace("../../plugins/bin/", "");
    let mut setup = Setup::new(&manifest).file("streaming.wasm", plugin("streaming"));
    for name in ["letters.onnx", "alphabet.txt", "request.json"] {
        setup = setup.file(name, example(&format!("streaming/{name}")));
    }
    setup.grpc().start()
}

/// Returns the references that `make.py` has generated with numpy, as prompts, parameters and
/// expected texts.
fn references() -> Vec<(Value, Value, String)> {
    let text = std::fs::read_to_string(example("streaming/reference.json")).unwrap();
    let mut cases: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert!(!cases.is_empty());
    let case = |case: &mut Value| {
        let text = case["text"].as_str().unwrap().to_owned();
        let mut parameters = case.as_object().unwrap().clone();
        parameters.retain(|name, value| !["prompt", "text"].contains(&name.as_str()) && *value != "");
        (case["prompt"].take(), Value::Object(parameters), text)
    };
    cases.iter_mut().map(case).collect()
}

fn request(prompt: &Value, parameters: &Value) -> Value {
    json!({"model": "writer", "data": {"prompt": [prompt]}, "parameters": parameters})
}

/// Returns the tokens in these JSON lines.
fn tokens(lines: &[Value]) -> Vec<String> {
    lines.iter().map(|line| line["result"]["token"][0].as_str().expect("a token").to_owned()).collect()
}

fn generate(host: &Host, prompt: &Value, parameters: &Value) -> String {
    tokens(&Stream::open(host.http, &request(prompt, parameters), "*/*").lines()).concat()
}

#[test]
fn the_text_is_that_of_a_plain_loop_over_the_same_weights() {
    let host = serve();
    for (prompt, parameters, text) in references() {
        assert_eq!(generate(&host, &prompt, &parameters), text, "{prompt} {parameters}");
    }
}

#[test]
fn the_host_says_how_to_ask_for_a_stream() {
    let host = serve();
    let line = format!("try: curl -sN http://{}/predict/stream -d @request.json", host.http);
    let said = || host.stdout().contains(&line).then_some(());
    eventually("the line to try", said, || host.stdout().join("\n"));
}

#[test]
fn generate_stream_and_grpc_give_the_same_text() {
    let host = serve();
    let caller = Caller::new(&host);
    for (prompt, parameters, text) in references() {
        let mut body = parameters.clone();
        body["prompt"] = prompt.clone();
        let answer = host.post("/v2/models/writer/generate_stream", body.to_string());
        let events = answer.text();
        let token = |event: &str| {
            let event: Value = serde_json::from_str(event.strip_prefix("data: ").expect(event)).expect(event);
            event["token"].as_str().expect("a token").to_owned()
        };
        let written: String = events.split_terminator("\n\n").map(token).collect();
        assert_eq!(written, text, "generate_stream of {prompt} {parameters}");
        assert_eq!(over_grpc(&caller, &prompt, &parameters), text, "gRPC, of {prompt} {parameters}");
    }
}

fn over_grpc(caller: &Caller, prompt: &Value, parameters: &Value) -> String {
    let prompt = prompt.as_str().unwrap().as_bytes();
    let element = [&u32::try_from(prompt.len()).unwrap().to_le_bytes(), prompt].concat();
    let parameter = |value: &Value| {
        let choice = match value {
            Value::String(text) => ParameterChoice::StringParam(text.clone()),
            Value::Number(number) => match number.as_i64() {
                Some(number) => ParameterChoice::Int64Param(number),
                None => ParameterChoice::DoubleParam(number.as_f64().unwrap()),
            },
            other => panic!("{other}"),
        };
        InferParameter { parameter_choice: Some(choice) }
    };
    let parameters = parameters.as_object().unwrap();
    let request = ModelInferRequest {
        parameters: parameters.iter().map(|(name, value)| (name.clone(), parameter(value))).collect(),
        ..caller::request("writer", vec![input("prompt", "BYTES", &[1])], vec![element])
    };
    let mut stream = caller.stream();
    stream.send(request);
    stream.done();
    let mut text = String::new();
    while let Some(answer) = stream.next().unwrap() {
        assert_eq!(answer.error_message, "");
        for token in answer.infer_response.unwrap().raw_output_contents {
            text += std::str::from_utf8(&token[4..]).unwrap();
        }
    }
    text
}

#[test]
fn tokens_come_one_by_one_and_the_work_ends_with_its_caller() {
    let host = serve();
    let endless = json!({"temperature": 2, "max_tokens": 1000, "seed": 5});
    let mut stream = Stream::open(host.http, &request(&json!("the"), &endless), "*/*");
    for _ in 0..3 {
        let (part, _) = stream.part().unwrap().expect("a token");
        assert_eq!(part.lines().count(), 1, "{part}");
    }
    drop(stream);
    host.wait_for_idle("cpu");
    host.wait_for_idle("onnx");
}

#[test]
fn a_seed_decides_on_the_text_and_none_is_another_one_each_time() {
    let host = serve();
    let (prompt, seeded) = (json!("the young wolf"), json!({"seed": 7, "temperature": 1.5}));
    let text = generate(&host, &prompt, &seeded);
    assert_eq!(generate(&host, &prompt, &seeded), text);
    assert_ne!(generate(&host, &prompt, &json!({"seed": 8, "temperature": 1.5})), text);
    let free: std::collections::HashSet<String> =
        (0..5).map(|_| generate(&host, &prompt, &json!({"temperature": 1.5}))).collect();
    assert!(free.len() > 1, "{free:?}");
}

#[test]
fn what_it_writes_is_words_that_it_has_read() {
    let host = serve();
    let script = std::fs::read_to_string(example("streaming/make.py")).unwrap();
    let known = |word: &&str| script.contains(word.trim_matches(['.', ',']));
    let text = generate(&host, &json!("the fox"), &json!({"seed": 1, "max_tokens": 200}));
    let words: Vec<&str> = text.split_whitespace().collect();
    let known = words.iter().filter(|word| known(word)).count();
    assert!(words.len() >= 5 && known * 10 >= words.len() * 8, "{text}");
}

#[test]
fn bad_requests_are_told_what_is_wrong_and_where() {
    let host = serve();
    let refused = |prompt: Value, parameters: Value, status: u16, parts: &[&str]| {
        let refused = Stream::open(host.http, &request(&prompt, &parameters), "*/*");
        assert_eq!(refused.status, status, "{prompt} {parameters}");
        let error = refused.lines()[0]["error"].to_string();
        for part in parts {
            assert!(error.contains(part), "{error} lacks {part}");
        }
    };
    refused(json!("a fée"), json!({}), 400, &["\"field\":\"prompt\"", "character 3", "it knows"]);
    refused(json!("two\nlines"), json!({}), 400, &["\"field\":\"prompt\"", "character 3"]);
    refused(json!("a".repeat(1001)), json!({}), 413, &["prompt", "at most 1000 characters, got 1001"]);
    refused(json!("a"), json!({"max_tokens": 0}), 400, &["parameters.max_tokens", "from 1 to 1000, got 0"]);
    refused(json!("a"), json!({"max_tokens": "x"}), 400, &["parameters.max_tokens", "whole number"]);
    refused(
        json!("a"),
        json!({"temperature": 2.5}),
        400,
        &["parameters.temperature", "from 0 to 2, got 2.5"],
    );
    refused(json!("a"), json!({"stop": ""}), 400, &["parameters.stop", "1 to 100 bytes, got 0"]);
    refused(json!("a"), json!({"seed": "x"}), 400, &["parameters.seed"]);
    refused(json!(7), json!({}), 400, &["prompt"]);
}
