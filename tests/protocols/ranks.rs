//! Inputs and outputs without a shape, and scalars: which shapes they take over every interface,
//! and how metadata announce them.

use crate::support::grpc::{self, Caller};
use crate::support::onnx::{FLOAT, one_node};
use crate::support::{Answer, Host, Setup, jobs};
use serde_json::{Value, json};
use tonic::Code;

const HEAD_LENGTH: &str = "inference-header-content-length";

/// Creates a setup with `any`, whose input and output have no shape, and `scalar`, which returns
/// its input.
fn setup(more: &str) -> Setup {
    let manifest =
        format!("[models.any]\npath = \"any.onnx\"\n{more}\n[models.scalar]\npath = \"scalar.onnx\"\n");
    let setup = Setup::new(&manifest).grpc();
    std::fs::write(setup.path("any.onnx"), one_node("Relu", &[("x", FLOAT, None)], None)).unwrap();
    let scalar = one_node("Identity", &[("x", FLOAT, Some(&[]))], Some(&[]));
    std::fs::write(setup.path("scalar.onnx"), scalar).unwrap();
    setup
}

fn count(shape: &[i64]) -> usize {
    shape.iter().product::<i64>() as usize
}

/// Returns the numbers from 1 as nested lists of this shape.
fn nested(shape: &[i64]) -> Value {
    fn fill(shape: &[i64], next: &mut f32) -> Value {
        match shape {
            [] => {
                *next += 1.0;
                json!(*next)
            }
            [count, inner @ ..] => (0..*count).map(|_| fill(inner, next)).collect(),
        }
    }
    fill(shape, &mut 0.0)
}

fn numbers(shape: &[i64]) -> Vec<f32> {
    (1..=count(shape)).map(|number| number as f32).collect()
}

fn raw(shape: &[i64]) -> Vec<u8> {
    numbers(shape).iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// Sends a tensor over HTTP in JSON, flat and nested, and as binary data.
fn over_oip(host: &Host, model: &str, shape: &[i64]) -> [Answer; 3] {
    let path = format!("/v2/models/{model}/infer");
    let body =
        |data: Value| json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": shape, "data": data}]});
    let binary = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": shape,
        "parameters": {"binary_data_size": 4 * count(shape)}}]});
    let head = binary.to_string();
    let length = head.len().to_string();
    let all = [head.as_bytes(), &raw(shape)].concat();
    [
        host.post(&path, body(json!(numbers(shape))).to_string()),
        host.post(&path, body(nested(shape)).to_string()),
        host.client().request("POST", &path, &[(HEAD_LENGTH, &length)], &all),
    ]
}

/// Checks that a tensor of this shape is returned as it was sent, over every interface.
fn taken(host: &Host, caller: &Caller, model: &str, shape: &[i64]) {
    for answer in over_oip(host, model, shape) {
        assert_eq!(answer.status, 200, "{model} {shape:?}: {}", answer.text());
        let output = &answer.json()["outputs"][0];
        assert_eq!((&output["shape"], &output["data"]), (&json!(shape), &json!(numbers(shape))), "{model}");
    }
    let request = grpc::request(model, vec![grpc::input("x", "FP32", shape)], vec![raw(shape)]);
    let answer = caller.infer(request).unwrap_or_else(|status| panic!("{model} {shape:?}: {status}"));
    assert_eq!(answer.outputs[0].shape, shape);
    assert_eq!(grpc::read(&answer), numbers(shape));
    for data in [nested(shape), json!({"x": nested(shape)})] {
        assert_eq!(host.predict(model, data).result(), json!({"y": nested(shape)}), "{model} {shape:?}");
    }
    let items = json!({"model": model, "items": [{"data": nested(shape)}, {"data": nested(shape)}]});
    let answer = host.post("/predict/batch", items.to_string()).json();
    assert_eq!(answer["results"], json!([{"y": nested(shape)}, {"y": nested(shape)}]), "{model} {shape:?}");
    let job = jobs::submit(host, &json!({"model": model, "data": nested(shape)}));
    assert_eq!(jobs::ended(host, &job, "succeeded")["result"], json!({"y": nested(shape)}));
}

#[test]
fn an_input_without_a_shape_takes_every_shape() {
    let host = setup("").start();
    let caller = Caller::new(&host);
    for shape in [&[][..], &[1], &[3], &[2, 2], &[1, 1, 1, 2], &[0], &[2, 0]] {
        taken(&host, &caller, "any", shape);
    }
    // Other faults are found as before.
    host.predict("any", json!([[1.0], [2.0, 3.0]])).refused(
        400,
        "invalid_input",
        &["lists of unequal length"],
    );
    host.predict("any", json!({})).refused(400, "invalid_input", &["input \"x\" (FP32 [...]) is missing"]);
}

#[test]
fn a_scalar_takes_one_element_in_any_number_of_dimensions() {
    let host = setup("").start();
    let caller = Caller::new(&host);
    for shape in [&[][..], &[1], &[1, 1], &[1, 1, 1]] {
        taken(&host, &caller, "scalar", shape);
    }
    for shape in [&[2][..], &[0], &[1, 2]] {
        let got = json!(shape).to_string();
        let parts = ["input \"x\": expected shape [], got ", &*got];
        for answer in over_oip(&host, "scalar", shape) {
            assert_eq!(answer.status, 400, "{}", answer.text());
            parts.iter().for_each(|part| {
                assert!(answer.text().replace('\\', "").contains(part), "{}", answer.text());
            });
        }
        let request = grpc::request("scalar", vec![grpc::input("x", "FP32", shape)], vec![raw(shape)]);
        grpc::refused(caller.infer(request), Code::InvalidArgument, &parts);
        host.predict("scalar", nested(shape)).refused(400, "invalid_input", &parts);
    }
}

#[test]
fn raw_bodies_of_an_unknown_rank_have_one_dimension() {
    let host = setup("").start();
    for (model, body, shape) in [("any", raw(&[3]), json!([3])), ("scalar", raw(&[1]), json!([]))] {
        let path = format!("/v2/models/{model}/infer");
        let answer = host.client().request("POST", &path, &[(HEAD_LENGTH, "0")], &body);
        let length: usize = answer.header(HEAD_LENGTH).expect("a length").parse().unwrap();
        let head: Value = serde_json::from_slice(&answer.body[..length]).unwrap();
        assert_eq!((&head["outputs"][0]["shape"], &answer.body[length..]), (&shape, &*body), "{model}");
    }
    let generated = host.post("/v2/models/any/generate", json!({"x": [[1, 2], [3, 4]]}).to_string());
    assert_eq!(generated.json()["y"], json!([1.0, 2.0, 3.0, 4.0]), "{}", generated.text());
    let generated = host.post("/v2/models/scalar/generate", json!({"x": [7]}).to_string());
    assert_eq!(generated.json()["y"], json!(7.0), "{}", generated.text());
}

#[test]
fn metadata_tell_an_unknown_rank_from_a_scalar() {
    let host = setup("").start();
    let any = |name| json!({"name": name, "datatype": "FP32", "shape": [], "rank": "any"});
    let scalar = |name| json!({"name": name, "datatype": "FP32", "shape": []});
    let models = host.get("/models").json();
    for (index, model, input, output) in
        [(0, "any", any("x"), any("y")), (1, "scalar", scalar("x"), scalar("y"))]
    {
        let metadata = host.get(&format!("/v2/models/{model}")).json();
        assert_eq!((&metadata["inputs"][0], &metadata["outputs"][0]), (&input, &output));
        let listed = &models["models"][index];
        assert_eq!((&listed["inputs"][0], &listed["outputs"][0]), (&input, &output));
        let config = host.get(&format!("/v2/models/{model}/config")).json();
        assert_eq!((&config["input"][0]["dims"], &config["output"][0]["dims"]), (&json!([]), &json!([])));
        let caller = Caller::new(&host);
        let request =
            hostler::proto::inference::ModelMetadataRequest { name: model.into(), ..Default::default() };
        let metadata =
            caller.run(async |mut client| client.model_metadata(request).await.unwrap().into_inner());
        assert!(metadata.inputs[0].shape.is_empty() && metadata.outputs[0].shape.is_empty());
    }
}

#[test]
fn an_unknown_rank_can_have_rows() {
    let host = setup("max_batch_size = 8").start();
    let items: Vec<Value> = [&[1_i64][..], &[2, 2], &[], &[2, 2], &[0], &[3], &[1, 1]].map(nested).into();
    let body: Vec<Value> = items.iter().map(|item| json!({"data": item})).collect();
    let answer = host.post("/predict/batch", json!({"model": "any", "items": body}).to_string()).json();
    let expected: Vec<Value> = items.iter().map(|item| json!({"y": item})).collect();
    assert_eq!(answer["results"], json!(expected), "{answer}");
    let config = host.get("/v2/models/any/config").json();
    assert_eq!((&config["max_batch_size"], &config["input"][0]["dims"]), (&json!(8), &json!([])));
    let setup =
        setup("").text("hostler.toml", "[models.scalar]\npath = \"scalar.onnx\"\nmax_batch_size = 8\n");
    let (code, _, error) = setup.run(&["check", "hostler.toml"]);
    assert_eq!(code, 1);
    assert!(error.contains("input \"x\" has shape []"), "{error}");
}
