//! Jobs whose input is the body of a request, or an inference request of the Open Inference
//! Protocol: the result has the form of the direct response.

use crate::support::jobs::{cancel, ended, show};
use crate::support::{Answer, Client, Host, Setup, model, plugin};
use serde_json::{Value, json};

const MODELS: &str = "[models.plus]\npath = \"plus.onnx\"\n\
    [models.echo]\nplugin = \"hostile\"\ntransformer = \"hostile\"\n[plugins.hostile]\npath = \"hostile.wasm\"\n";
const STORE: &str = "[stores.main]\nkind = \"redb\"\ndir = \"kept\"\n[jobs]\nstore = \"main\"\n";

fn setup(tables: &str) -> Setup {
    Setup::new(&format!("{MODELS}{tables}"))
        .file("plus.onnx", model("plus1"))
        .file("hostile.wasm", plugin("hostile"))
}

fn send(host: &Host, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    Client::new(host.http).request("POST", path, headers, body)
}

/// Returns the id of a job that was accepted.
fn accepted(answer: &Answer) -> String {
    assert_eq!(answer.status, 202, "{}", answer.text());
    let id = answer.json()["job_id"].as_str().expect("an id").to_owned();
    assert_eq!(answer.header("location"), Some(&*format!("/jobs/{id}")));
    id
}

fn result(host: &Host, id: &str) -> Answer {
    host.get(&format!("/jobs/{id}/result?wait_ms=10000"))
}

/// Returns JSON without the id of the request, which differs.
fn without_id(mut response: Value) -> Value {
    response.as_object_mut().expect("an object").remove("id");
    response
}

#[test]
fn the_input_may_be_the_body_of_the_request() {
    for store in ["", STORE] {
        let host = setup(store).start();
        let picture = [&b"\xff\xd8\xff"[..], &[7; 100_000]].concat();
        let jpeg = [("content-type", "image/jpeg")];
        let direct = send(&host, "/predict/echo", &jpeg, &picture);
        assert_eq!((direct.status, direct.header("content-type")), (200, Some("image/jpeg")));
        let id = accepted(&send(&host, "/predict/async/echo", &jpeg, &picture));
        let answer = result(&host, &id);
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("image/jpeg")));
        assert!(answer.body == picture, "{} bytes", answer.body.len());
        let job = show(&host, &id);
        let expected = (&Value::Null, &json!("image/jpeg"), &json!(picture.len()));
        assert_eq!((&job["result"], &job["result_content_type"], &job["result_bytes"]), expected);
        // A JSON body, and the bytes of the only tensor.
        let id = accepted(&send(&host, "/predict/async/plus%3A1", &[], b"[1.0, 2.5]"));
        assert_eq!(ended(&host, &id, "succeeded")["result"], json!({"y": [2.0, 3.5]}));
        let bytes: Vec<u8> = [1.0_f32, 2.5].iter().flat_map(|number| number.to_le_bytes()).collect();
        let octets = [("content-type", "application/octet-stream")];
        let id = accepted(&send(&host, "/predict/async/plus", &octets, &bytes));
        assert_eq!(result(&host, &id).json(), json!({"y": [2.0, 3.5]}));
    }
}

#[test]
fn options_of_a_body_are_in_the_query() {
    let host = setup("").start();
    let path =
        "/predict/async/plus?max_attempts=3&max_runtime_ms=700&max_total_runtime_ms=90000&run_after_ms=60000";
    let id = accepted(&send(&host, path, &[], b"[1.0]"));
    let job = show(&host, &id);
    assert_eq!(
        (&job["state"], &job["max_attempts"], &job["max_runtime_ms"], &job["max_total_runtime_ms"]),
        (&json!("pending"), &json!(3), &json!(700), &json!(90_000))
    );
    cancel(&host, &id);
    let failing = "/predict/async/echo?do=error&kind=failed&at=predict";
    ended(&host, &accepted(&send(&host, failing, &[("content-type", "image/jpeg")], b"a")), "failed");
    for (query, field) in [
        ("max_attempts=0", "max_attempts"),
        ("max_attempts=x", "max_attempts"),
        ("run_after_ms=1&run_after_ms=2", "run_after_ms"),
        ("timeout_ms=1&max_runtime_ms=2", "timeout_ms"),
        ("max_total_runtime_ms=-1", "max_total_runtime_ms"),
        ("max_atempts=3", "max_atempts"),
        ("version=2", "version"),
        ("webhook=a&webhook=b", "webhook"),
        ("webhook=http://127.0.0.1:9/", "webhook"),
    ] {
        let answer = send(&host, &format!("/predict/async/plus?{query}"), &[], b"[1.0]");
        assert_eq!((answer.status, &answer.json()["error"]["field"]), (400, &json!(field)), "{query}");
    }
    // In this form, options are in the body.
    let body = json!({"model": "plus", "data": [1.0]}).to_string();
    let answer = send(&host, "/predict/async?max_attempts=3", &[], body.as_bytes());
    assert_eq!((answer.status, &answer.json()["error"]["field"]), (400, &json!("max_attempts")));
    for (path, body, status) in [
        ("/predict/async/none", &b"[1.0]"[..], 404),
        ("/predict/async/plus", b"[1.0", 400),
        ("/predict/async/plus", b"[\"a\"]", 400),
        ("/predict/async/plus/more", b"[1.0]", 404),
        ("/predict/async/", b"[1.0]", 404),
    ] {
        let answer = send(&host, path, &[("content-type", "application/json")], body);
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
    }
    assert_eq!(host.get("/predict/async/plus").header("allow"), Some("POST"));
}

#[test]
fn an_inference_request_may_prefer_a_job() {
    for store in ["", STORE] {
        let host = setup(store).start();
        let path = "/v2/models/plus/infer";
        let prefer = [("prefer", "respond-async, wait=5")];
        let input = json!({"name": "x", "datatype": "FP32", "shape": [2], "data": [1.0, 2.5]});
        let request = json!({"id": "r-1", "inputs": [input], "outputs": [{"name": "y"}]});
        let direct = host.post(path, request.to_string()).json();
        let answer = send(&host, path, &prefer, request.to_string().as_bytes());
        assert_eq!(answer.header("preference-applied"), Some("respond-async"));
        let id = accepted(&answer);
        assert_eq!(result(&host, &id).json(), direct);
        assert_eq!(show(&host, &id)["result"], direct);
        // Binary tensors in both directions.
        let input =
            json!({"name": "x", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}});
        let head = json!({"inputs": [input], "parameters": {"binary_data_output": true}}).to_string();
        let tensor: Vec<u8> = [1.0_f32, 2.5].iter().flat_map(|number| number.to_le_bytes()).collect();
        let body = [head.as_bytes(), &tensor].concat();
        let length = head.len().to_string();
        let headers = [("inference-header-content-length", &*length)];
        let direct = send(&host, path, &headers, &body);
        let id = accepted(&send(&host, path, &[headers[0], prefer[0]], &body));
        let answer = result(&host, &id);
        assert_eq!(answer.body, direct.body);
        for name in ["content-type", "inference-header-content-length"] {
            assert_eq!(answer.header(name), direct.header(name), "{name}");
        }
        // The model behind a transformer takes and gives one element of bytes.
        let input = json!({"name": "data", "datatype": "BYTES", "shape": [1], "data": ["a"]});
        let request = json!({"inputs": [input]}).to_string();
        let direct = host.post("/v2/models/echo/infer", &request).json();
        let id = accepted(&send(&host, "/v2/models/echo/infer", &prefer, request.as_bytes()));
        assert_eq!(without_id(result(&host, &id).json()), without_id(direct));
    }
}

#[test]
fn mistakes_in_an_inference_request_are_told_at_its_submission() {
    let host = setup("").start();
    let submit = |query: &str, headers: &[(&str, &str)], request: &Value| {
        let headers = [&[("prefer", "respond-async")], headers].concat();
        send(&host, &format!("/v2/models/plus/infer{query}"), &headers, request.to_string().as_bytes())
    };
    let input = |data: Value| json!({"name": "x", "datatype": "FP32", "shape": [1], "data": data});
    let good = json!({"inputs": [input(json!([1.0]))]});
    for (query, request, part) in [
        ("", json!({"inputs": []}), "missing required input"),
        ("", json!({"inputs": [input(json!(["a"]))]}), "x"),
        ("", json!({"inputs": [input(json!([1.0]))], "outputs": [{"name": "z"}]}), "no output"),
        ("?max_attempts=0", good.clone(), "max_attempts"),
        ("?top_k=3", good.clone(), "top_k"),
    ] {
        let answer = submit(query, &[], &request);
        let message = answer.json()["error"].as_str().expect("the protocol's form").to_owned();
        assert!(answer.status == 400 && message.contains(part), "{message}");
    }
    // Pages of other sites may predict, and may not submit jobs.
    let origin = [("origin", "http://elsewhere.example")];
    assert_eq!(submit("", &origin, &good).status, 403);
    let id = accepted(&submit("?max_total_runtime_ms=9000", &[("idempotency-key", "k")], &good));
    assert_eq!(show(&host, &id)["max_total_runtime_ms"], 9000);
    let again = submit("?max_total_runtime_ms=9000", &[("idempotency-key", "k")], &good);
    assert_eq!((accepted(&again), again.header("idempotent-replayed")), (id, Some("true")));
    let other = submit("?max_total_runtime_ms=8000", &[("idempotency-key", "k")], &good);
    assert_eq!(other.status, 409, "{}", other.text());
}

#[test]
fn inputs_of_every_form_survive_a_kill() {
    let mut host = setup(STORE).start();
    let later = "?run_after_ms=1500&max_total_runtime_ms=600000";
    let jpeg = [("content-type", "image/jpeg")];
    let picture = accepted(&send(&host, &format!("/predict/async/echo{later}"), &jpeg, b"\xff\xd8\xff"));
    let input = json!({"name": "x", "datatype": "FP32", "shape": [1], "data": [1.0]});
    let request = json!({"id": "r-1", "inputs": [input]}).to_string();
    let path = format!("/v2/models/plus/infer{later}");
    let tensors = accepted(&send(&host, &path, &[("prefer", "respond-async")], request.as_bytes()));
    host.signal("KILL");
    host.wait();
    let dir = host.setup.dir.path().to_owned();
    let second = Setup::at(&dir).start();
    assert_eq!(result(&second, &picture).body, b"\xff\xd8\xff");
    let direct = second.post("/v2/models/plus/infer", &request).json();
    assert_eq!(result(&second, &tensors).json(), direct);
}
