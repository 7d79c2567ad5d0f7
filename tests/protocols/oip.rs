//! The Open Inference Protocol over HTTP: health, metadata, and inference in JSON. `oip_extensions`
//! tests its extensions.

use crate::support::{Answer, Host, Setup, churn, model};
use serde_json::{Value, json};

fn serve(name: &str) -> Host {
    Setup::new("[models.m]\npath = \"m.onnx\"\n").file("m.onnx", model(name)).start()
}

fn infer(host: &Host, model: &str, request: &Value) -> Answer {
    host.post(&format!("/v2/models/{model}/infer"), request.to_string())
}

/// Checks an error in the protocol's form, which has a message and nothing else.
fn refused(answer: &Answer, status: u16, parts: &[&str]) {
    assert_eq!(answer.status, status, "{}", answer.text());
    let json = answer.json();
    assert_eq!(json.as_object().unwrap().len(), 1, "{json}");
    let message = json["error"].as_str().unwrap_or_else(|| panic!("{json} is not an error of the protocol"));
    for part in parts {
        assert!(message.contains(part), "{message}\nlacks {part}");
    }
}

#[test]
fn the_server_tells_name_version_health_and_readiness() {
    let host = serve("plus1");
    let answer = host.get("/v2");
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.json(),
        json!({
            "name": "triton",
            "version": env!("CARGO_PKG_VERSION"),
            "extensions": [
                "binary_tensor_data", "classification", "generate", "model_configuration", "model_repository",
                "model_repository(unload_dependents)", "parameters", "statistics",
            ],
        })
    );
    for (path, status) in [
        ("/v2/health/live", 200),
        ("/v2/health/ready", 200),
        ("/v2/models/m/ready", 200),
        ("/v2/models/m/versions/1/ready", 200),
        ("/v2/models/m/versions/2/ready", 404),
        ("/v2/models/n/ready", 404),
        ("/v2/models/n/versions/1/ready", 404),
    ] {
        let answer = host.get(path);
        assert_eq!((answer.status, answer.body.len()), (status, 0), "{path}");
    }
}

#[test]
fn metadata_name_versions_inputs_and_outputs() {
    let manifest = "[models.\"plus:v1\"]\npath = \"1.onnx\"\n[models.\"plus:v2\"]\npath = \"2.onnx\"\n\
        [routing.plus]\nweights = { v1 = 1, v2 = 1 }\n";
    let setup = Setup::new(manifest).file("1.onnx", model("plus1"));
    let host = setup.file("2.onnx", model("two_inputs")).start();
    let first = json!({
        "name": "plus",
        "versions": ["v1", "v2"],
        "platform": "hostler",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1]}],
    });
    assert_eq!(host.get("/v2/models/plus/versions/v1").json(), first);
    let second = host.get("/v2/models/plus/versions/v2").json();
    assert_eq!(second["versions"], json!(["v1", "v2"]));
    assert_eq!(
        second["inputs"],
        json!([
            {"name": "a", "datatype": "FP32", "shape": [-1]},
            {"name": "b", "datatype": "FP32", "shape": [-1]},
        ])
    );
    let either = host.get("/v2/models/plus").json();
    assert!(either == first || either == second, "{either}");
    refused(&host.get("/v2/models/pluss"), 404, &["no model \"pluss\" (did you mean \"plus\"?)"]);
    refused(
        &host.get("/v2/models/plus/versions/v3"),
        404,
        &[
            "Request for unknown model: failed to get model version from specified version string 'v3'",
            "model \"plus\" has no version \"v3\"",
            "versions: v1, v2",
        ],
    );
    for path in ["/v2/models/plus/versions/v1/infer", "/v2/models/plus/versions/v2/infer"] {
        let answer = host.post(path, json!({"inputs": []}).to_string());
        refused(&answer, 400, &["is missing"]);
    }
}

#[test]
fn every_datatype_goes_in_and_comes_out() {
    let host = serve("datatypes");
    let cases = [
        ("bool", "BOOL", json!([true, false])),
        ("uint8", "UINT8", json!([0, 255])),
        ("uint16", "UINT16", json!([0, 65_535])),
        ("uint32", "UINT32", json!([0, u32::MAX])),
        ("uint64", "UINT64", json!([0, u64::MAX])),
        ("int8", "INT8", json!([i8::MIN, i8::MAX])),
        ("int16", "INT16", json!([i16::MIN, i16::MAX])),
        ("int32", "INT32", json!([i32::MIN, i32::MAX])),
        ("int64", "INT64", json!([i64::MIN, i64::MAX])),
        ("fp16", "FP16", json!([0.5, -65_504.0])),
        ("bf16", "BF16", json!([0.5, -2.0])),
        ("fp32", "FP32", json!([0.1, -1e30])),
        ("fp64", "FP64", json!([0.1, -1e300])),
        ("bytes", "BYTES", json!(["", "grüße \"x\""])),
    ];
    let inputs: Vec<Value> = cases
        .iter()
        .map(|(name, datatype, data)| json!({"name": name, "datatype": datatype, "shape": [2], "data": data}))
        .collect();
    let answer = infer(&host, "m", &json!({"id": "all", "inputs": inputs}));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let json = answer.json();
    assert_eq!(
        (&json["model_name"], &json["model_version"], &json["id"]),
        (&json!("m"), &json!("1"), &json!("all"))
    );
    let outputs = json["outputs"].as_array().unwrap();
    assert_eq!(outputs.len(), cases.len());
    for ((name, datatype, data), output) in cases.iter().zip(outputs) {
        assert_eq!(output["name"], format!("{name}_out"));
        assert_eq!((&output["datatype"], &output["shape"]), (&json!(datatype), &json!([2])));
        let same = match data[0].as_f64().filter(|_| data[0].is_f64()) {
            // FP32 is printed with the shortest digits that read back as the same FP32.
            Some(_) => [0, 1].iter().all(|&i| {
                let (sent, got) = (data[i].as_f64().unwrap(), output["data"][i].as_f64().unwrap());
                sent == got || (*datatype == "FP32" && sent as f32 == got as f32)
            }),
            None => output["data"] == *data,
        };
        assert!(same, "{name}: sent {data}, got {}", output["data"]);
    }
}

/// Returns a 7 inside `depth` nested lists.
fn nested(depth: usize) -> Value {
    (0..depth).fold(json!(7), |inner, _| json!([inner]))
}

#[test]
fn data_may_be_nested_or_flat() {
    let host = serve("identity");
    for (shape, data, flat) in [
        (json!([2, 3]), json!([1, 2, 3, 4, 5, 6]), json!([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])),
        (json!([2, 3]), json!([[1, 2, 3], [4, 5, 6]]), json!([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])),
        (json!([1, 1]), json!([7]), json!([7.0])),
        (json!([0, 4]), json!([]), json!([])),
        (json!([2, 0]), json!([[], []]), json!([])),
        (json!([2, 1]), json!([[[[1]], [[2]]]]), json!([1.0, 2.0])),
        (json!([1, 1]), nested(100), json!([7.0])),
    ] {
        let request = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": shape, "data": data}]});
        let answer = infer(&host, "m", &request);
        assert_eq!(
            answer.json(),
            json!({
                "model_name": "m",
                "model_version": "1",
                "outputs": [{"name": "y", "datatype": "FP32", "shape": shape, "data": flat}],
            })
        );
    }
}

#[test]
fn the_caller_chooses_outputs_id_and_time() {
    let host = serve("datatypes");
    let mut names = Vec::new();
    let metadata = host.get("/v2/models/m").json();
    let inputs: Vec<Value> = metadata["inputs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|input| {
            names.push(format!("{}_out", input["name"].as_str().unwrap()));
            json!({"name": input["name"], "datatype": input["datatype"], "shape": [0], "data": []})
        })
        .collect();
    let ask = |more: Value| {
        let mut request = json!({"inputs": inputs});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        infer(&host, "m", &request)
    };
    let outputs = |answer: Answer| -> Vec<String> {
        let json = answer.json();
        let outputs = json["outputs"].as_array().unwrap_or_else(|| panic!("{json}")).clone();
        outputs.iter().map(|output| output["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(outputs(ask(json!({}))), names);
    assert_eq!(outputs(ask(json!({"outputs": []}))), names);
    assert_eq!(outputs(ask(json!({"outputs": [{"name": "fp32_out"}]}))), ["fp32_out"]);
    let two = json!({"outputs": [{"name": "bool_out"}, {"name": "bytes_out", "parameters": {"binary_data": false}}]});
    assert_eq!(outputs(ask(two)), ["bool_out", "bytes_out"]);
    refused(
        &ask(json!({"outputs": [{"name": "fp23_out"}]})),
        400,
        &["no output \"fp23_out\" (did you mean \"fp32_out\"?)"],
    );
    for id in ["42", "grüße"] {
        assert_eq!(ask(json!({"id": id})).json()["id"], id);
    }
    for none in [json!({}), json!({"id": ""}), json!({"id": null})] {
        assert_eq!(ask(none).json().get("id"), None);
    }
    assert_eq!(ask(json!({"parameters": {"timeout": 5_000_000, "mine": "x"}})).status, 200);
    assert_eq!(ask(json!({"parameters": {"timeout": 0}})).status, 200, "0 is how clients say none");
    for timeout in [json!(-1), json!(1.5), json!("1")] {
        let answer = ask(json!({"parameters": {"timeout": timeout}}));
        refused(&answer, 400, &["parameter \"timeout\"", &timeout.to_string(), "microseconds"]);
    }
    refused(
        &ask(json!({"parameters": {"timeout": null}})),
        400,
        &["parameter 'timeout' has invalid type. It is null"],
    );
    let yes = json!({"parameters": {"binary_data_output": "yes"}});
    refused(&ask(yes), 400, &["parameter \"binary_data_output\" is \"yes\"; it is true or false"]);
    refused(
        &ask(json!({"parameters": {"mine": [1]}})),
        400,
        &["parameter 'mine' has invalid type. It is a list"],
    );
    for (name, value, status) in [
        ("priority", json!(2), 200),
        ("priority", json!(-1), 400),
        ("priority", json!("high"), 400),
        ("sequence_id", json!(0), 200),
        ("sequence_id", json!(""), 200),
        ("sequence_start", json!(false), 200),
        ("sequence_id", json!(7), 501),
        ("sequence_id", json!("a"), 501),
        ("sequence_start", json!(true), 501),
        ("sequence_end", json!(true), 501),
        ("triton_enable_empty_final_response", json!(true), 200),
        ("triton_", json!(1), 400),
        ("triton_secret", json!("a"), 400),
    ] {
        let answer = ask(json!({"parameters": {name: value}}));
        assert_eq!(answer.status, status, "{name}: {value}: {}", answer.text());
        if status != 200 {
            refused(&answer, status, &[&format!("parameter \"{name}\"")]);
        }
    }
    let twice = json!({"outputs": [{"name": "fp32_out"}, {"name": "fp32_out"}]});
    refused(&ask(twice), 400, &["Duplicate output name 'fp32_out' is not allowed in a request"]);
}

#[test]
fn a_request_that_does_not_fit_the_model_is_told_what_would() {
    let host = serve("two_inputs");
    let input = |name: &str, datatype: &str, shape: Value, data: Value| json!({"name": name, "datatype": datatype, "shape": shape, "data": data});
    let good = || input("b", "FP32", json!([2]), json!([3, 4]));
    let faults = [
        (input("a", "FP64", json!([2]), json!([1, 2])), "input \"a\": expected FP32, got FP64"),
        (
            input("a", "FP23", json!([2]), json!([1, 2])),
            "input \"a\": no datatype \"FP23\" (did you mean \"FP32\"?)",
        ),
        (input("a", "fp32", json!([2]), json!([1, 2])), "(did you mean \"FP32\"?)"),
        (input("a", "FP32", json!([1, 2]), json!([1, 2])), "input \"a\": expected shape [-1], got [1,2]"),
        (
            input("a", "FP32", json!([3]), json!([1, 2])),
            "Unable to parse 'data': Shape does not match true shape of 'data' field: input \"a\": shape says [3], but \
             data has shape [2]",
        ),
        (input("a", "FP32", json!([-1]), json!([1, 2])), "shape [-1] has a negative dimension"),
        (input("a", "FP32", json!([1, 1_000_000_000_000_i64]), json!([1])), "shape says [1,1000000000000]"),
        (input("a", "FP32", json!([i64::MAX, i64::MAX]), json!([1])), "more elements than can be addressed"),
        (
            input("a", "FP32", json!([16, (1_i64 << 60) + 2]), json!([1])),
            "causes total element count to exceed maximum size of 9223372036854775807",
        ),
        (
            input("a", "FP32", json!([4, (1_i64 << 60) + 2]), json!([1])),
            "byte size overflow for input 'a': FP32 of shape [4,1152921504606846978]",
        ),
        (input("a", "FP32", json!([2, 1]), json!([[1, 2]])), "data has shape [1,2]"),
        (input("a", "FP32", json!([1]), json!(7)), "data has shape []"),
        (
            input("a", "FP32", json!([1]), nested(101)),
            "JSON nesting depth exceeds maximum allowed limit (100)",
        ),
        (input("a", "FP32", json!(vec![1; 17]), json!([1])), "17 dimensions; at most 16"),
        (input("a", "FP32", json!([1.5]), json!([1])), "not an inference request"),
        (input("a", "FP32", json!("2"), json!([1])), "not an inference request"),
        (input("a", "FP32", json!([2]), json!([1, "2"])), "input \"a\"[1]: expected a number for FP32"),
        (
            input("a", "FP32", json!([2]), json!({"1": 2})),
            "input \"a\": expected a number for FP32, got an object",
        ),
        (json!({"name": "a", "datatype": "FP32", "shape": [2]}), "input \"a\": it has no data"),
        (json!({"name": "a", "shape": [2], "data": [1, 2]}), "missing field `datatype`"),
        (input("c", "FP32", json!([2]), json!([1, 2])), "no input \"c\""),
        (good(), "input 'b' already exists in request"),
    ];
    for (fault, part) in faults {
        let answer = infer(&host, "m", &json!({"inputs": [fault, good()]}));
        refused(&answer, 400, &[part]);
        let a = input("a", "FP32", json!([2]), json!([1, 2]));
        let answer = infer(&host, "m", &json!({"inputs": [a, good()]}));
        assert_eq!(answer.json()["outputs"][0]["data"], json!([4.0, 6.0]));
    }
    let missing = [
        "input \"a\" (FP32 [-1]) is missing",
        "expected 2 inputs but got 1 inputs for model 'm'. Got input(s) ['b'], but missing required input(s) ['a']. \
         Please provide all required input(s).",
    ];
    refused(&infer(&host, "m", &json!({"inputs": [good()]})), 400, &missing);
    let missing = "Got input(s) [], but missing required input(s) ['a','b'].";
    refused(&infer(&host, "m", &json!({"inputs": []})), 400, &[missing]);
    let missing = [
        "expected number of inputs between 1 and 2 but got 1 inputs for model 'm'",
        "Got input(s) ['bias'], but missing required input(s) ['x']",
    ];
    let bias = input("bias", "FP32", json!([1]), json!([1]));
    refused(&infer(&serve("optional"), "m", &json!({"inputs": [bias]})), 400, &missing);
    refused(&infer(&host, "n", &json!({"inputs": []})), 404, &["no model \"n\""]);
    for (body, place) in [("AAAA", "0"), (" AAAA", "1"), ("{\"inputs\":\n[}", "12"), ("{\"inputs\":", "10")] {
        let message = format!("failed to parse the request JSON buffer: Invalid value. at {place}");
        refused(&host.post("/v2/models/m/infer", body), 400, &["not an inference request", &message]);
    }
}

#[test]
fn what_the_protocol_does_not_have_is_refused_in_its_form() {
    let host = serve("plus1");
    for (method, path, status, allow) in [
        ("POST", "/v2", 405, Some("GET")),
        ("POST", "/v2/health/live", 405, Some("GET")),
        ("DELETE", "/v2/health/ready", 405, Some("GET")),
        ("POST", "/v2/models/m", 405, Some("GET")),
        ("PUT", "/v2/models/m/ready", 405, Some("GET")),
        ("GET", "/v2/models/m/infer", 405, Some("POST")),
        ("GET", "/v2/models/m/versions/1/infer", 405, Some("POST")),
        ("GET", "/v2/models/m/generate", 405, Some("POST")),
        ("GET", "/v2/models/m/versions/1/generate_stream", 405, Some("POST")),
        ("GET", "/v2/logging", 501, None),
        ("POST", "/v2/logging", 501, None),
        ("DELETE", "/v2/logging", 405, Some("GET, POST")),
        ("GET", "/v2/trace/setting", 501, None),
        ("POST", "/v2/models/m/trace/setting", 501, None),
        ("POST", "/v2/systemsharedmemory/status", 405, Some("GET")),
        ("GET", "/v2/systemsharedmemory/region/a/status", 404, None),
        ("POST", "/v2/systemsharedmemory/region/a/register", 501, None),
        ("GET", "/v2/systemsharedmemory/region/a/register", 405, Some("POST")),
        ("GET", "/v2/cudasharedmemory/unregister", 405, Some("POST")),
        ("POST", "/v2/cudasharedmemory/region/a/register", 501, None),
        ("POST", "/v2/cudasharedmemory/status", 405, Some("GET")),
        ("GET", "/v2/cudasharedmemory", 404, None),
        ("GET", "/v2/trace", 404, None),
        ("GET", "/v2/", 404, None),
        ("GET", "/v2/models", 404, None),
        ("GET", "/v2/models/m/versions", 404, None),
        ("POST", "/v2/models/m/explain", 404, None),
        ("GET", "/v2/health/fine", 404, None),
        ("GET", "/base/v2/models/m", 404, None),
        ("POST", "/base/path/v2/models/m/infer", 404, None),
    ] {
        let answer = host.client().request(method, path, &[], b"");
        let allow = allow.map(|allow| allow.replace("GET", "GET, HEAD"));
        assert_eq!((answer.status, answer.header("allow")), (status, allow.as_deref()), "{method} {path}");
        refused(&answer, status, &[]);
    }
}

#[test]
fn of_shared_memory_there_is_none() {
    let host = serve("plus1");
    for kind in ["systemsharedmemory", "cudasharedmemory"] {
        let answer = host.get(&format!("/v2/{kind}/status"));
        assert_eq!((answer.status, answer.json()), (200, json!([])), "{kind}");
        for path in ["unregister", "region/a/unregister"] {
            let answer = host.post(&format!("/v2/{kind}/{path}"), "");
            assert_eq!((answer.status, answer.body.len()), (200, 0), "{kind}/{path}");
        }
        let kind_of_region = if kind.starts_with("cuda") { "cuda" } else { "system" };
        let message = format!("Unable to find {kind_of_region} shared memory region: 'a'");
        refused(&host.get(&format!("/v2/{kind}/region/a/status")), 404, &[&message]);
    }
}

#[test]
fn a_transformer_passes_tensors_on() {
    let host = churn::setup("").start();
    assert_eq!(
        host.get("/v2/models/bankchurn").json()["inputs"],
        host.get("/v2/models/bankchurn-raw").json()["inputs"]
    );
    let row: Vec<f64> = (0..18).map(|feature| f64::from(feature) / 10.0).collect();
    let input = json!({"name": "input", "datatype": "FP32", "shape": [1, 18], "data": row});
    let request = json!({"inputs": [input], "outputs": [{"name": "probabilities"}]});
    let answers = ["bankchurn", "bankchurn-raw"].map(|model| {
        let answer = infer(&host, model, &request);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["outputs"].clone()
    });
    assert_eq!(answers[0], answers[1]);
    assert_eq!((&answers[0][0]["name"], &answers[0][0]["shape"]), (&json!("probabilities"), &json!([1, 2])));
    let mut explained = request;
    explained["parameters"] = json!({"explain": true});
    refused(&infer(&host, "bankchurn", &explained), 501, &["\"explain\" needs a record"]);
    assert_eq!(infer(&host, "bankchurn-raw", &explained).status, 200, "unknown parameters are the plugin's");
}

#[test]
fn what_json_cannot_carry_is_an_error_with_its_place() {
    let host = serve("log");
    let request =
        |value: f64| json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "data": [1, value]}]});
    let mend = "binary_data";
    refused(
        &infer(&host, "m", &request(-1.0)),
        400,
        &["output \"y\"[1] is NaN, which JSON cannot carry", mend],
    );
    refused(
        &infer(&host, "m", &request(0.0)),
        400,
        &["output \"y\"[1] is -inf, which JSON cannot carry", mend],
    );
    assert_eq!(infer(&host, "m", &request(1.0)).json()["outputs"][0]["data"], json!([0.0, 0.0]));
}
