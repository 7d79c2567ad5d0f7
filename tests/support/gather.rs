//! Requests that queue behind a busy worker, so that a test knows which of them wait together.
//! Needs the model `loop` and an executor `onnx` with one worker.

use super::slow::ENDLESS;
use super::{Answer, Client, Host};
use serde_json::{Value, json};

/// Occupies the worker of `onnx` until the returned client is dropped.
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

/// Sends the requests one after another while the worker is occupied, so that they queue in this
/// order. Then frees the worker and returns their answers.
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

/// Returns the number of runs of models with `max_batch_size`, and of the requests in them.
pub fn batches(host: &Host) -> (f64, f64) {
    let sample =
        |part: &str| host.metric(&format!("hostler_executor_batch_size_{part}{{executor=\"onnx\"}}"));
    (sample("count"), sample("sum"))
}

pub fn reruns(host: &Host) -> f64 {
    host.metric("hostler_executor_batch_reruns_total{executor=\"onnx\"}")
}
