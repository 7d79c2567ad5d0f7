//! Requests that gather behind a worker which is held, so that a test knows what waits together.
//! Needs the model `loop` and an executor `onnx` of one worker.

use super::slow::ENDLESS;
use super::{Answer, Client, Host};
use serde_json::{Value, json};

/// Takes the worker of `onnx` until it is dropped.
pub fn hold(host: &Host) -> Client {
    let body = json!({"model": "loop", "data": {"n": [ENDLESS]}});
    let client = send(host, "/predict", &body);
    host.wait_for_policy("the holder to run", |policy| policy["executors"]["onnx"]["busy"] == 1);
    client
}

pub fn send(host: &Host, path: &str, body: &Value) -> Client {
    let mut client = host.client();
    client
        .begin("POST", path, &[("content-type", "application/json")], body.to_string().as_bytes())
        .expect("it can be sent");
    client
}

pub fn predict(model: &str, data: Value) -> Value {
    json!({"model": model, "data": data})
}

/// Sends the requests one after the other while the worker is held, so that they wait in this
/// order; lets the worker go and gives their answers.
pub fn gathered(host: &Host, requests: &[(&str, Value)]) -> Vec<Answer> {
    let holder = hold(host);
    let mut clients = Vec::new();
    for (path, body) in requests {
        clients.push(send(host, path, body));
        wait_for_queue(host, clients.len());
    }
    drop(holder);
    clients.iter_mut().map(|client| client.receive().expect("an answer")).collect()
}

pub fn wait_for_queue(host: &Host, length: usize) {
    host.wait_for_policy(&format!("{length} to wait"), |policy| {
        policy["executors"]["onnx"]["queue_length"] == length
    });
}

/// Runs of models with `max_batch_size`, and requests in them.
pub fn batches(host: &Host) -> (f64, f64) {
    let sample =
        |part: &str| host.metric(&format!("hostler_executor_batch_size_{part}{{executor=\"onnx\"}}"));
    (sample("count"), sample("sum"))
}

pub fn reruns(host: &Host) -> f64 {
    host.metric("hostler_executor_batch_reruns_total{executor=\"onnx\"}")
}
