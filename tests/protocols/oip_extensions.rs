//! Triton's extensions of the Open Inference Protocol over HTTP: binary tensors, compressed bodies,
//! classification and generate.

use crate::support::client::refused_over_oip as refused;
use crate::support::{Answer, Host, Setup, model};
use flate2::Compression;
use flate2::read::{GzDecoder, GzEncoder, ZlibDecoder, ZlibEncoder};
use serde_json::{Value, json};
use std::io::Read;

const HEAD_LENGTH: &str = "inference-header-content-length";

/// Serves models that are named after their files.
fn serve(names: &[&str]) -> Host {
    let manifest: String =
        names.iter().map(|name| format!("[models.{name}]\npath = \"{name}.onnx\"\n")).collect();
    names
        .iter()
        .fold(Setup::new(&manifest), |setup, name| setup.file(&format!("{name}.onnx"), model(name)))
        .start()
}

/// Sends JSON followed by binary data.
fn infer(host: &Host, model: &str, head: &Value, tail: &[u8]) -> Answer {
    let head = head.to_string();
    let body = [head.as_bytes(), tail].concat();
    let length = head.len().to_string();
    host.client().request("POST", &format!("/v2/models/{model}/infer"), &[(HEAD_LENGTH, &length)], &body)
}

/// Returns an answer's JSON and the bytes of its outputs.
fn parts(answer: &Answer) -> (Value, Vec<Vec<u8>>) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
    let length: usize = answer.header(HEAD_LENGTH).expect("a length").parse().unwrap();
    let (head, mut tail) = answer.body.split_at(length);
    let head: Value = serde_json::from_slice(head).unwrap();
    let mut raw = Vec::new();
    for output in head["outputs"].as_array().unwrap() {
        if let Some(size) = output["parameters"]["binary_data_size"].as_u64() {
            let (bytes, rest) = tail.split_at(size as usize);
            raw.push(bytes.to_vec());
            tail = rest;
        }
    }
    assert!(tail.is_empty(), "{} bytes too many", tail.len());
    (head, raw)
}

/// Encodes one element in the wire form of BYTES.
fn element(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_le_bytes(), bytes].concat()
}

#[test]
fn every_datatype_goes_in_and_comes_out_as_bytes() {
    let host = serve(&["datatypes"]);
    let kinds: [(&str, &str, Vec<u8>); 14] = [
        ("bool", "BOOL", vec![1, 0]),
        ("uint8", "UINT8", vec![0, 255]),
        ("uint16", "UINT16", vec![0, 0, 255, 255]),
        ("uint32", "UINT32", vec![255; 8]),
        ("uint64", "UINT64", vec![255; 16]),
        ("int8", "INT8", vec![128, 127]),
        ("int16", "INT16", vec![0, 128, 255, 127]),
        ("int32", "INT32", vec![1, 0, 0, 128, 255, 255, 255, 127]),
        ("int64", "INT64", vec![128; 16]),
        ("fp16", "FP16", vec![0, 60, 0, 126]),
        ("bf16", "BF16", vec![128, 63, 192, 127]),
        ("fp32", "FP32", [1.5_f32, f32::NAN].iter().flat_map(|value| value.to_le_bytes()).collect()),
        ("fp64", "FP64", [0.1_f64, f64::INFINITY].iter().flat_map(|value| value.to_le_bytes()).collect()),
        ("bytes", "BYTES", [element(b""), element("grüße".as_bytes())].concat()),
    ];
    let input = |(name, datatype, data): &(&str, &str, Vec<u8>)| json!({"name": name, "datatype": datatype, "shape": [2], "parameters": {"binary_data_size": data.len()}});
    let inputs: Vec<Value> = kinds.iter().map(input).collect();
    let tail = kinds.iter().flat_map(|(.., data)| data.clone()).collect::<Vec<u8>>();
    let head = json!({"id": "1", "inputs": inputs, "parameters": {"binary_data_output": true}});
    let (head, raw) = parts(&infer(&host, "datatypes", &head, &tail));
    assert_eq!((&head["id"], &head["model_name"]), (&json!("1"), &json!("datatypes")));
    for (((name, datatype, data), output), raw) in
        kinds.iter().zip(head["outputs"].as_array().unwrap()).zip(raw)
    {
        let expected = json!({
            "name": format!("{name}_out"),
            "datatype": datatype,
            "shape": [2],
            "parameters": {"binary_data_size": data.len()},
        });
        assert_eq!((output, &raw), (&expected, data), "{name}");
    }
}

#[test]
fn each_tensor_has_the_form_that_was_asked_for() {
    let host = serve(&["add_sub"]);
    let (a, b): (Vec<i32>, Vec<i32>) = ((0..16).collect(), vec![1; 16]);
    let raw = |values: &[i32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let sums: Vec<i32> = a.iter().map(|a| a + 1).collect();
    let differences: Vec<i32> = a.iter().map(|a| a - 1).collect();
    for (first, second, default) in
        [(Some(true), Some(false), None), (None, Some(false), Some(true)), (Some(true), None, Some(false))]
    {
        let output = |name: &str, binary: Option<bool>| match binary {
            Some(binary) => json!({"name": name, "parameters": {"binary_data": binary}}),
            None => json!({"name": name}),
        };
        let mut head = json!({
            "inputs": [
                {"name": "INPUT0", "datatype": "INT32", "shape": [1, 16], "data": a},
                {"name": "INPUT1", "datatype": "INT32", "shape": [1, 16], "parameters": {"binary_data_size": 64}},
            ],
            "outputs": [output("OUTPUT0", first), output("OUTPUT1", second)],
        });
        if let Some(default) = default {
            head["parameters"] = json!({"binary_data_output": default});
        }
        let (head, bytes) = parts(&infer(&host, "add_sub", &head, &raw(&b)));
        assert_eq!(bytes, [raw(&sums)]);
        assert_eq!(head["outputs"][1]["data"], json!(differences));
    }
    // More data than the host copies behind the JSON.
    let rows: Vec<i32> = (0..16 * 4096).collect();
    let input = |name: &str| json!({"name": name, "datatype": "INT32", "shape": [4096, 16], "parameters": {"binary_data_size": 16 * 4096 * 4}});
    let head =
        json!({"inputs": [input("INPUT0"), input("INPUT1")], "parameters": {"binary_data_output": true}});
    let (_, bytes) = parts(&infer(&host, "add_sub", &head, &raw(&[rows.clone(), rows.clone()].concat())));
    assert_eq!(bytes[0], raw(&rows.iter().map(|row| 2 * row).collect::<Vec<_>>()));
}

#[test]
fn a_body_without_json_is_the_only_input() {
    let names = ["identity", "plus1", "add_sub", "text", "texts", "fixed"];
    let models = names.iter().map(|name| format!("[models.{name}]\npath = \"{name}.onnx\"\n"));
    let rows = ["identity", "texts"]
        .map(|name| format!("[models.{name}-rows]\npath = \"{name}.onnx\"\nmax_batch_size = 4\n"));
    let manifest: String = models.chain(rows).collect();
    let setup = Setup::new(&manifest);
    let host =
        names.iter().fold(setup, |setup, name| setup.file(&format!("{name}.onnx"), model(name))).start();
    let ask = |model: &str, body: &[u8]| {
        let path = format!("/v2/models/{model}/infer");
        host.client().request("POST", &path, &[(HEAD_LENGTH, "0")], body)
    };
    let floats = |count: usize| vec![0_u8; count * 4];
    for (model, body, shape, expected) in [
        // The model has a dimension of rows, which is 1; the data determines the other dimension.
        ("identity-rows", floats(6), json!([1, 6]), floats(6)),
        ("fixed", floats(3), json!([3]), floats(3)),
        ("text", b"a\0bc".to_vec(), json!([1]), element(b"a\0bc")),
    ] {
        let (head, raw) = parts(&ask(model, &body));
        assert_eq!((&head["outputs"][0]["shape"], &raw[0]), (&shape, &expected), "{model}");
    }
    refused(&ask("identity-rows", &[0; 7]), 400, &["7 bytes"]);
    let several = "The shape of the raw input 'x' can not be deduced because there are more than one variable-sized \
        dimension in [-1,-1]";
    refused(&ask("identity", &floats(6)), 400, &["input \"x\": ", several]);
    let not_one = "For BYTE datatype raw input 'INPUT0', the model must have input shape [1]; it has [-1,-1]";
    refused(&ask("texts-rows", b"abc"), 400, &[not_one]);
    refused(&ask("fixed", &floats(4)), 400, &["16 bytes", "[3]"]);
    refused(
        &ask("add_sub", &floats(32)),
        400,
        &[
            "one required input",
            "Raw request must only have 1 input (found 1) to be deduced but got 2 inputs in 'add_sub' model configuration",
        ],
    );
    refused(&ask("identity", b""), 400, &["empty"]);
}

#[test]
fn sizes_that_do_not_fit_the_body_are_refused() {
    let host = serve(&["plus1"]);
    let head = |more: Value| {
        let mut input = json!({"name": "x", "datatype": "FP32", "shape": [2]});
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"inputs": [input]})
    };
    let size = |size: Value| head(json!({"parameters": {"binary_data_size": size}}));
    for (head, tail, wanted) in [
        (size(json!(8)), 7, &["binary_data_size is 8", "7 bytes"][..]),
        (size(json!(8)), 9, &["unexpected additional input data", "1 bytes"]),
        (size(json!(4)), 4, &["FP32 of shape [2] needs 8 bytes, got 4"]),
        (size(json!(0)), 0, &["needs 8 bytes, got 0"]),
        (size(json!(-8)), 8, &["binary_data_size is -8"]),
        (size(json!(8.5)), 8, &["binary_data_size is 8.5"]),
        (size(json!("8")), 8, &["binary_data_size is \"8\""]),
        (size(json!(u64::MAX)), 8, &["binary_data_size is 18446744073709551615"]),
        (head(json!({})), 8, &["it has no data"]),
        (head(json!({"data": [1, 2]})), 8, &["unexpected additional input data"]),
        (head(json!({"data": [1, 2], "parameters": {"binary_data_size": 8}})), 8, &["both"]),
        (head(json!({"parameters": {"shared_memory_region": "a"}})), 0, &["shared memory is not supported"]),
    ] {
        let status = if wanted[0].starts_with("shared") { 501 } else { 400 };
        refused(&infer(&host, "plus1", &head, &vec![0; tail]), status, wanted);
    }
    let huge = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1_000_000_000_000_i64], "parameters": {"binary_data_size": 8}}]});
    refused(&infer(&host, "plus1", &huge, &[0; 8]), 400, &["[1,1000000000000]"]);
    for (length, wanted) in [
        ("9", "not an inference request"),
        ("1000", "1000 bytes of JSON"),
        ("-1", "it is the number"),
        ("x", "it is the number"),
        ("99999999999999999999", "it is the number"),
    ] {
        let answer = host.client().request(
            "POST",
            "/v2/models/plus1/infer",
            &[(HEAD_LENGTH, length)],
            b"{\"inputs\":[]}",
        );
        refused(&answer, 400, &[wanted]);
    }
    let good = infer(&host, "plus1", &size(json!(8)), &[0; 8]);
    assert_eq!(good.json()["outputs"][0]["data"], json!([1.0, 1.0]));
}

#[test]
fn texts_are_any_bytes_but_whole_and_truths_must_be_true_or_false() {
    let host = serve(&["texts", "datatypes"]);
    let ask = |tail: &[u8]| {
        let input = json!({"name": "INPUT0", "datatype": "BYTES", "shape": [1, 2], "parameters": {"binary_data_size": tail.len()}});
        infer(&host, "texts", &json!({"inputs": [input]}), tail)
    };
    let two = [element(b"a"), element(b"bc")].concat();
    assert_eq!(ask(&two).json()["outputs"][0]["data"], json!(["a", "bc"]));
    let any = [element(b"\0\xff\xc3\0"), element(b"")].concat();
    refused(&ask(&any), 400, &["binary_data"]);
    let input = json!({"name": "INPUT0", "datatype": "BYTES", "shape": [2, 1], "parameters": {"binary_data_size": any.len()}});
    let head = json!({"inputs": [input], "parameters": {"binary_data_output": true}});
    assert_eq!(parts(&infer(&host, "texts", &head, &any)).1, [any]);
    refused(&ask(&two[..two.len() - 1]), 400, &["middle of element 1"]);
    refused(&ask(&element(b"a")), 400, &["2 elements, got 1"]);
    refused(&ask(&[255, 255, 255, 255, 0]), 400, &["middle of element 0"]);
    let head = json!({"inputs": [{"name": "bool", "datatype": "BOOL", "shape": [1], "parameters": {"binary_data_size": 1}}]});
    refused(&infer(&host, "datatypes", &head, &[2]), 400, &["BOOL", "0 or 1"]);
}

fn packed(encoding: &str, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match encoding {
        "gzip" => GzEncoder::new(body, Compression::fast()).read_to_end(&mut out),
        _ => ZlibEncoder::new(body, Compression::fast()).read_to_end(&mut out),
    }
    .unwrap();
    out
}

fn unpacked(answer: &Answer, encoding: &str) -> Value {
    assert_eq!((answer.status, answer.header("content-encoding")), (200, Some(encoding)));
    let mut out = Vec::new();
    match encoding {
        "gzip" => GzDecoder::new(&answer.body[..]).read_to_end(&mut out),
        _ => ZlibDecoder::new(&answer.body[..]).read_to_end(&mut out),
    }
    .unwrap();
    serde_json::from_slice(&out).unwrap()
}

#[test]
fn bodies_may_be_packed_in_both_directions() {
    let host = serve(&["plus1"]);
    let ask = |headers: &[(&str, &str)], body: &[u8]| {
        host.client().request("POST", "/v2/models/plus1/infer", headers, body)
    };
    let request = |count: usize| {
        json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [count], "data": vec![1; count]}]})
            .to_string()
    };
    // The larger body is not compressed on the threads that serve connections.
    for count in [2, 100_000] {
        let request = request(count);
        for encoding in ["gzip", "deflate"] {
            let body = packed(encoding, request.as_bytes());
            let plain = ask(&[("content-encoding", encoding)], &body);
            assert_eq!(plain.header("content-encoding"), None);
            assert_eq!(plain.json()["outputs"][0]["shape"], json!([count]));
            let both = ask(&[("content-encoding", encoding), ("accept-encoding", encoding)], &body);
            assert_eq!(unpacked(&both, encoding), plain.json());
        }
    }
    let plain = request(1);
    assert_eq!(
        ask(&[("content-encoding", "identity"), ("accept-encoding", "br")], plain.as_bytes()).status,
        200
    );
    let unknown =
        host.client().request("POST", "/v2/models/nobody/infer", &[("accept-encoding", "gzip")], b"{}");
    refused(&unknown, 404, &["nobody"]);
}

#[test]
fn bodies_that_unpack_badly_are_refused() {
    let host = Setup::new("[server]\nmax_body_mb = 2\n[models.m]\npath = \"m.onnx\"\n")
        .file("m.onnx", model("plus1"))
        .start();
    let bomb = packed("gzip", &vec![b' '; 64 << 20]);
    let good = packed("gzip", b"{\"inputs\":[]}");
    let trailing = [&packed("deflate", b"{\"inputs\":[]}")[..], b"more"].concat();
    for (encoding, body, status, wanted) in [
        ("gzip", &b"no gzip at all"[..], 400, "not gzip"),
        ("gzip", b"", 400, "not gzip"),
        ("gzip", &good[..good.len() - 5], 400, "not gzip"),
        ("deflate", &good, 400, "not deflate"),
        ("deflate", &trailing, 400, "4 bytes follow its end"),
        ("gzip", &bomb, 413, "over 2 MB"),
        ("br", &good, 415, "gzip, deflate and identity"),
        ("gzip, gzip", &good, 400, "not gzip"),
        ("gzip, gzip, gzip, gzip, gzip", &good, 415, "at most 4"),
    ] {
        let answer =
            host.client().request("POST", "/v2/models/m/infer", &[("content-encoding", encoding)], body);
        refused(&answer, status, &[wanted]);
        let known = answer.header("accept-encoding");
        assert_eq!(known, (status == 415).then_some("gzip, deflate"), "{encoding}");
    }
}

#[test]
fn classes_are_the_best_of_each_row() {
    let manifest = "[models.identity]\npath = \"identity.onnx\"\nlabels = { y = \"labels.txt\" }\n[models.fixed]\npath = \"fixed.onnx\"\n\
        [models.texts]\npath = \"texts.onnx\"\n[models.int8]\npath = \"int8.onnx\"\n";
    let setup = Setup::new(manifest).text("labels.txt", "cat\ndog\n");
    let names = ["identity", "fixed", "texts", "int8"];
    let host =
        names.iter().fold(setup, |setup, name| setup.file(&format!("{name}.onnx"), model(name))).start();
    let ask = |model: &str, input: Value, output: &str, count: Value| {
        let request = json!({"inputs": [input], "outputs": [{"name": output, "parameters": {"classification": count}}]});
        host.post(&format!("/v2/models/{model}/infer"), request.to_string())
    };
    let rows = || json!({"name": "x", "datatype": "FP32", "shape": [2, 3], "data": [0.25, 0.5, -1, 3, 2, 3]});
    for (count, expected) in [
        (1, json!(["0.500000:1:dog", "3.000000:0:cat"])),
        (2, json!(["0.500000:1:dog", "0.250000:0:cat", "3.000000:0:cat", "3.000000:2"])),
        (
            9,
            json!([
                "0.500000:1:dog",
                "0.250000:0:cat",
                "-1.000000:2",
                "3.000000:0:cat",
                "3.000000:2",
                "2.000000:1:dog"
            ]),
        ),
    ] {
        let output = ask("identity", rows(), "y", json!(count)).json()["outputs"][0].clone();
        assert_eq!((&output["datatype"], &output["data"]), (&json!("BYTES"), &expected));
        assert_eq!(output["shape"], json!([2, expected.as_array().unwrap().len() / 2]));
    }
    assert_eq!(ask("identity", rows(), "y", json!(0)).json()["outputs"][0]["datatype"], "FP32");
    // Without a dimension of rows, all elements are one row.
    let one = json!({"name": "x", "datatype": "FP32", "shape": [3], "data": [1, 3, 2]});
    let output = ask("fixed", one, "y", json!(2)).json()["outputs"][0].clone();
    assert_eq!((&output["shape"], &output["data"]), (&json!([2]), &json!(["6.000000:1", "4.000000:2"])));
    let small = json!({"name": "INPUT0", "datatype": "INT8", "shape": [1, 2], "data": [-5, 5]});
    assert_eq!(ask("int8", small, "OUTPUT0", json!(2)).json()["outputs"][0]["data"], json!(["5:1", "-5:0"]));
    let text = json!({"name": "INPUT0", "datatype": "BYTES", "shape": [1, 1], "data": ["a"]});
    refused(&ask("texts", text, "OUTPUT0", json!(1)), 400, &["classification is for numbers", "BYTES"]);
    for count in [json!(-1), json!("1"), json!(1.5), json!(true)] {
        refused(&ask("identity", rows(), "y", count), 400, &["classification is a whole number"]);
    }
}

#[test]
fn labels_are_held_against_the_model() {
    for (labels, content, wanted) in [
        ("{ z = \"labels.txt\" }", &b"a\n"[..], "the model has no output \"z\" (did you mean \"y\"?)"),
        ("{ y = \"labels.txt\" }", b"\xff\n", "is not UTF-8"),
        ("{ y = \"lables.txt\" }", b"a\n", "labels of \"y\""),
    ] {
        let manifest = format!("[models.m]\npath = \"m.onnx\"\nlabels = {labels}\n");
        let setup = Setup::new(&manifest).file("m.onnx", model("plus1"));
        std::fs::write(setup.path("labels.txt"), content).unwrap();
        let log = setup.try_start().err().expect("no start");
        assert!(log.contains(wanted), "{log}\nlacks {wanted}");
    }
}

#[test]
fn generate_takes_and_gives_flat_objects() {
    let host = serve(&["texts", "plus1", "two_inputs", "datatypes"]);
    let ask = |path: &str, body: Value| host.post(&format!("/v2/models/{path}"), body.to_string());
    for (model, body, expected) in [
        ("texts", json!({"INPUT0": "grüße"}), json!({"OUTPUT0": "grüße"})),
        ("texts", json!({"INPUT0": ["a", "b"], "id": "7"}), json!({"OUTPUT0": ["a", "b"], "id": "7"})),
        ("plus1", json!({"x": 1, "temperature": 0.5, "parameters": {"seed": 1}}), json!({"y": 2.0})),
        ("plus1", json!({"parameters": {"x": [1, 2]}}), json!({"y": [2.0, 3.0]})),
        ("two_inputs", json!({"a": 1, "b": 2}), json!({"y": 3.0})),
    ] {
        let mut expected = expected;
        expected["model_name"] = json!(model);
        expected["model_version"] = json!("1");
        let answer = ask(&format!("{model}/generate"), body.clone());
        assert_eq!((answer.status, answer.json()), (200, expected.clone()));
        let answer = ask(&format!("{model}/versions/1/generate_stream"), body);
        assert_eq!(answer.header("content-type"), Some("text/event-stream; charset=utf-8"));
        let text = answer.text();
        let event =
            text.strip_prefix("data: ").and_then(|text| text.strip_suffix("\n\n")).expect("one event");
        assert_eq!(serde_json::from_str::<Value>(event).unwrap(), expected);
    }
    for path in ["generate", "generate_stream"] {
        for (model, body, status, wanted) in [
            ("plus1", json!({"prompt": "a"}), 400, "input \"x\" (FP32 [-1]) is missing"),
            ("plus1", json!({"x": "a"}), 400, "expected a number for FP32"),
            ("plus1", json!({"x": [[1]]}), 400, "expected shape [-1], got [1,1]"),
            (
                "plus1",
                json!({"x": 1, "parameters": [1]}),
                400,
                "Expected JSON object for keyword: 'parameters': expected a JSON object",
            ),
            ("plus1", json!({"x": 1, "more": {}}), 400, "parameter 'more' has invalid type. It is an object"),
            (
                "plus1",
                json!({"x": 1, "parameters": {"more": {}}}),
                400,
                "Converting keyword: 'parameters': parameter 'more' has invalid type.",
            ),
            ("texts", json!({"INPUT0": 1}), 400, "attempt to access JSON non-string as string"),
            ("datatypes", json!({"bool": 1}), 400, "attempt to access JSON non-boolean as boolean"),
            ("plus1", json!([1]), 400, "expected a JSON object"),
            ("nobody", json!({}), 404, "nobody"),
        ] {
            refused(&ask(&format!("{model}/{path}"), body), status, &[wanted]);
        }
        let twice = host.post(&format!("/v2/models/plus1/{path}"), "{\"x\": 1, \"x\": 2}");
        refused(&twice, 400, &["input 'x' already exists in request"]);
    }
}

#[test]
fn nothing_that_is_nested_or_broken_hurts() {
    let host = serve(&["plus1"]);
    let deep = "[".repeat(250_000);
    let object = "{\"a\":".repeat(250_000);
    for path in ["infer", "generate", "generate_stream"] {
        for body in [
            format!("{{\"inputs\":{deep}"),
            format!(
                "{{\"inputs\":[{{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1],\"data\":{deep}{}}}]}}",
                "]".repeat(250_000)
            ),
            format!("{{\"x\":{deep}{}}}", "]".repeat(250_000)),
            format!("{{\"parameters\":{object}1{}}}", "}".repeat(250_000)),
            object.clone(),
            deep.clone(),
            "{\"inputs\":".into(),
            "{\"inputs\":[}".into(),
            "{'inputs':[]}".into(),
            "nonsense".into(),
            "\0\0\0".into(),
            "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1],\"data\":[1e39]}],\"x\":1e39}"
                .into(),
        ] {
            let answer = host.post(&format!("/v2/models/plus1/{path}"), &body);
            refused(&answer, 400, &[]);
        }
    }
    assert_eq!(host.get("/v2/health/ready").status, 200);
}

#[test]
fn who_leaves_a_stream_of_events_ends_its_work() {
    let host = Setup::new("[models.loop]\npath = \"loop.onnx\"\n").file("loop.onnx", model("loop")).start();
    let body = json!({"n": 1_000_000_000_u64}).to_string();
    for path in ["generate", "generate_stream"] {
        let mut client = host.client();
        let headers = [("x-request-id", path)];
        client
            .begin("POST", &format!("/v2/models/loop/{path}"), &headers, body.as_bytes())
            .expect("it can be sent");
        host.wait_for_policy("a busy worker", |policy| policy["executors"]["onnx"]["busy"] == 1);
        client.leave();
        host.wait_for_idle("onnx");
        let line = host.access_log(path);
        assert_eq!((&line["status"], &line["kind"]), (&json!(499), &json!("cancelled")), "{line}");
    }
    assert_eq!(host.metric("hostler_errors_total{kind=\"cancelled\"}"), 2.0);
    let late = json!({"n": 1_000_000_000_u64, "timeout": 20_000}).to_string();
    let answer = host.post("/v2/models/loop/generate_stream", late);
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (504, Some("text/event-stream; charset=utf-8"))
    );
    let text = answer.text();
    let event = text.strip_prefix("data: ").and_then(|text| text.strip_suffix("\n\n")).expect("one event");
    let event: Value = serde_json::from_str(event).unwrap();
    assert!(event["error"].as_str().unwrap().contains("deadline"), "{event}");
}
