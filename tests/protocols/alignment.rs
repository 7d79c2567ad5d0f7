//! The same numbers give the same result to the last bit, wherever they lie in a request.

use crate::support::grpc::{self, Caller};
use crate::support::onnx::{FLOAT, graph, model, node, shaped};
use crate::support::{Host, Setup};
use serde_json::{Value, json};

const HEAD_LENGTH: &str = "inference-header-content-length";

/// Serves a model that reduces all of its numbers in several ways.
fn serve() -> Host {
    let operators = ["ReduceSum", "ReduceMean", "ReduceL2", "ReduceLogSumExp"];
    let nodes: Vec<Vec<u8>> =
        operators.iter().map(|operator| node(operator, &["x"], &[operator], &[])).collect();
    let outputs = operators.map(|operator| shaped(operator, FLOAT, None));
    let file = model(&graph(&nodes, &[shaped("x", FLOAT, Some(&[-1]))], &outputs), &[]);
    let setup = Setup::new("[models.m]\npath = \"m.onnx\"\n").grpc();
    std::fs::write(setup.path("m.onnx"), file).unwrap();
    setup.start()
}

/// Returns numbers whose sum depends on the order in which they are added.
fn numbers(count: usize) -> Vec<f32> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 65_536.0
    };
    (0..count).map(|_| next()).collect()
}

fn raw(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// Sends the numbers behind JSON that is longer by `more` bytes than the shortest one. Returns the
/// bits of the outputs.
fn binary(host: &Host, numbers: &[f32], more: usize) -> Vec<u32> {
    let mut head = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [numbers.len()],
        "parameters": {"binary_data_size": 4 * numbers.len()}}]})
    .to_string();
    head.push_str(&" ".repeat(more));
    let length = head.len().to_string();
    let body = [head.as_bytes(), &raw(numbers)].concat();
    let answer = host.client().request("POST", "/v2/models/m/infer", &[(HEAD_LENGTH, &length)], &body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    outputs(&answer.json())
}

/// Returns the bits of an FP32 in JSON.
fn bits(number: &Value) -> u32 {
    (number.as_f64().expect("a number") as f32).to_bits()
}

fn outputs(answer: &Value) -> Vec<u32> {
    answer["outputs"].as_array().unwrap().iter().map(|output| bits(&output["data"][0])).collect()
}

#[test]
fn a_reduction_does_not_depend_on_the_length_of_the_json() {
    let host = serve();
    // In one piece; in several; above the size up to which a tensor is copied to be aligned.
    for count in [1_000, 100_000, 400_000] {
        let numbers = numbers(count);
        let first = binary(&host, &numbers, 0);
        for more in (1..64).step_by(if count > 1_000 { 5 } else { 1 }) {
            assert_eq!(binary(&host, &numbers, more), first, "{count} numbers behind {more} bytes more");
        }
    }
}

#[test]
fn a_reduction_is_the_same_over_every_interface() {
    let host = serve();
    let caller = Caller::new(&host);
    // The last is over 1 MiB: over gRPC, such tensors are used where they are.
    for count in [1_000, 200_000, 400_000] {
        let numbers = numbers(count);
        let expected = binary(&host, &numbers, 0);
        let ids = ["", "1", "12", "123", "1234567", "123456789abcdef"];
        for id in ids.into_iter().filter(|_| count <= 200_000) {
            let input = grpc::input("x", "FP32", &[count as i64]);
            let request = grpc::named(grpc::request("m", vec![input], vec![raw(&numbers)]), id);
            let answer = caller.infer(request).unwrap();
            let raw = answer.raw_output_contents.iter();
            let got: Vec<u32> =
                raw.map(|output| u32::from_le_bytes(*output.first_chunk().unwrap())).collect();
            assert_eq!(got, expected, "{count} numbers over gRPC with the id {id:?}");
        }
        let input = json!({"name": "x", "datatype": "FP32", "shape": [count], "data": numbers});
        let answer = host.post("/v2/models/m/infer", json!({"inputs": [input]}).to_string()).json();
        assert_eq!(outputs(&answer), expected, "{count} numbers in JSON");
        let answer = host.predict("m", json!(numbers)).result();
        let operators = ["ReduceSum", "ReduceMean", "ReduceL2", "ReduceLogSumExp"];
        for (operator, expected) in operators.iter().zip(&expected) {
            assert_eq!(bits(&answer[operator][0]), *expected, "{count} numbers over /predict");
        }
    }
}
