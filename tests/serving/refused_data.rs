//! Data that a model's graph refuses is reported as the client's error, in plain words. Nothing
//! that a client sends ends the host.

use crate::support::{Answer, Host, Setup, model, onnx, plugin};
use serde_json::{Value, json};

const MODELS: [&str; 7] = ["shared_name", "positions", "parse", "gather", "divide", "frames", "zeros"];

fn setup(more: &str) -> Setup {
    let models = MODELS.map(|name| format!("[models.{name}]\npath = \"{name}.onnx\"\n"));
    let setup = Setup::new(&(models.concat() + more));
    MODELS.iter().fold(setup, |setup, name| setup.file(&format!("{name}.onnx"), model(name)))
}

fn assert_plain(answer: &Answer) {
    for part in ["onnxruntime_src", ".cc", ".h:", "ONNXRuntimeError", "Non-zero status"] {
        assert!(!answer.text().contains(part), "{}", answer.text());
    }
}

#[test]
fn refused_data_is_the_callers_error_and_is_named() {
    let host = setup("").start();
    for (name, data, parts) in [
        (
            "shared_name",
            json!({"a": [[1.0, 2.0, 3.0]], "b": [[1.0, 2.0]]}),
            &["dimension \"len\"", "\"a\" [1,3] has 3", "\"b\" [1,2] has 2", "node \"/scale/Mul\" (Mul)"][..],
        ),
        (
            "positions",
            json!([1.0, 2.0, 3.0, 4.0, 5.0]),
            &["node \"/embed/Add\" (Add)", "\"x\" FP32 [5]", "4 by 5"],
        ),
        ("parse", json!(["12", "abc"]), &["a text is not a number", "Cast", "\"x\" BYTES [2]"]),
        ("parse", json!(["1e999"]), &["a text is not a number or is out of range"]),
        ("gather", json!([3, 99]), &["idx=99", "Gather", "\"x\" INT64 [2]"]),
        ("divide", json!({"a": [1], "b": [0], "c": [1], "d": [1]}), &["by zero", "\"b\" INT64 [1]"]),
        ("zeros", json!([-1]), &["ConstantOfShape", "must be >= 0"]),
    ] {
        let answer = host.predict(name, data.clone());
        let error = answer.refused(400, "invalid_input", parts);
        assert!(error["message"].as_str().unwrap().contains(&format!("model \"{name}:1\"")), "{error}");
        assert_eq!(error["model"], format!("{name}:1"));
        assert_plain(&answer);
    }
    let log = host.wait_for_log(&["shared_name", "onnxruntime_src"]);
    assert!(log.contains("INFO"), "the raw text is for the log: {log}");
    // The same over the Open Inference Protocol.
    let input = |name: &str, data: Value| {
        let length = data.as_array().unwrap().len();
        json!({"name": name, "datatype": "FP32", "shape": [1, length], "data": data})
    };
    let body = json!({"inputs": [input("a", json!([1.0, 2.0, 3.0])), input("b", json!([1.0, 2.0]))]});
    let answer = host.post("/v2/models/shared_name/infer", body.to_string());
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert!(answer.text().contains("\\\"len\\\""), "{}", answer.text());
    assert_plain(&answer);
}

#[test]
fn what_the_runtime_takes_is_never_refused_for_the_name_of_a_dimension() {
    let host = setup("").start();
    let answer = host.predict("shared_name", json!({"a": [[1.0, 2.0, 3.0]], "b": [[2.0]]}));
    assert_eq!(answer.result(), json!({"y": [[2.0, 4.0, 6.0]]}));
}

#[test]
fn the_runtimes_own_trouble_stays_the_hosts_error() {
    let host = setup("").start();
    let answer = host.predict("zeros", json!([1_u64 << 45]));
    answer.refused(500, "failed", &["model \"zeros:1\"", "ConstantOfShape", "allocate memory"]);
    assert_plain(&answer);
    host.wait_for_log(&["ERROR", "zeros", "onnxruntime_src"]);
    assert_eq!(host.predict("zeros", json!([2])).result(), json!({"y": [0.0, 0.0]}));
}

/// Builds a model of one node, whose input `x` has `rank` dimensions of any size.
fn one_node(op: &str, rank: usize, inputs: &[&str], rest: &[Vec<u8>], weights: &[(&str, &[u64])]) -> Vec<u8> {
    let dims: Vec<u8> = (0..rank).flat_map(|at| onnx::field(1, onnx::field(2, format!("d{at}")))).collect();
    let tensor = [onnx::integer(1, onnx::FLOAT), onnx::field(2, dims)].concat();
    let value = |name: &str| [onnx::field(1, name), onnx::field(2, onnx::field(1, &tensor))].concat();
    let mut fields = vec![onnx::node(op, inputs, &["y"], rest)];
    for (name, dims) in weights {
        let zeros = vec![0.0; dims.iter().product::<u64>() as usize];
        fields.push(onnx::field(5, onnx::tensor(name, onnx::FLOAT, dims, &onnx::floats(&zeros))));
    }
    // The output may have any rank.
    let output =
        [onnx::field(1, "y"), onnx::field(2, onnx::field(1, onnx::integer(1, onnx::FLOAT)))].concat();
    onnx::model(&onnx::graph(&fields, &[value("x")], &[output]), &[])
}

fn infer(host: &Host, model: &str, shape: &[usize]) -> Answer {
    let data = vec![0.5; shape.iter().product()];
    let input = json!({"name": "x", "datatype": "FP32", "shape": shape, "data": data});
    host.post(&format!("/v2/models/{model}/infer"), json!({"inputs": [input]}).to_string())
}

#[test]
fn sizes_for_which_the_runtime_would_end_the_process_are_refused() {
    let number = |name: &str, value: u64| {
        onnx::field(5, [onnx::field(1, name), onnx::integer(3, value), onnx::integer(20, 2)].concat())
    };
    let unique = one_node("Unique", 2, &["x"], &[number("axis", 0)], &[]);
    let weights: [(&str, &[u64]); 2] = [("w", &[1, 8, 3]), ("r", &[1, 8, 2])];
    let lstm = one_node("LSTM", 3, &["x", "w", "r"], &[number("hidden_size", 2)], &weights);
    let manifest = "[models.unique]\npath = \"unique.onnx\"\n[models.lstm]\npath = \"lstm.onnx\"\n\
                    [executors.onnx]\nsessions = 1\n";
    let setup = Setup::new(manifest);
    std::fs::write(setup.path("unique.onnx"), unique).unwrap();
    std::fs::write(setup.path("lstm.onnx"), lstm).unwrap();
    let host = setup.start();
    assert_eq!(infer(&host, "unique", &[3, 2]).status, 200);
    assert_eq!(infer(&host, "lstm", &[4, 1, 3]).status, 200);
    for round in 0..256 {
        let answer = infer(&host, "unique", &[3, 0]);
        assert_eq!(answer.status, 400, "round {round}: {}", answer.text());
        assert!(
            answer.text().contains("does not support inputs of these sizes (x [3,0])"),
            "{}",
            answer.text()
        );
        if round % 32 == 0 {
            assert_eq!(infer(&host, "unique", &[3, 2]).status, 200, "the session goes on");
        }
    }
    let answer = infer(&host, "unique", &[3, 0]);
    assert!(answer.status == 503 && answer.text().contains("reload the model"), "{}", answer.text());
    for shape in [[4, 0, 3], [0, 1, 3]] {
        let answer = infer(&host, "lstm", &shape);
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert!(
            answer.text().contains("operator LSTM, which does not support a dimension of 0"),
            "{}",
            answer.text()
        );
    }
    assert_eq!(infer(&host, "lstm", &[4, 1, 3]).status, 200);
    host.wait_for_log(&["run aborted", "x [3,0]"]);
}

#[test]
fn integers_that_overflow_in_a_division_do_not_end_the_host() {
    let host = setup("").start();
    let (least, least_32) = (i64::MIN, i32::MIN);
    let data = json!({"a": [least, 7, -7], "b": [-1, 2, 2], "c": [least_32, 7, -7], "d": [-1, 2, -1]});
    let result = host.predict("divide", data).result();
    assert_eq!(result["quotient"], json!([least, 3, -3]), "it wraps around");
    assert_eq!(result["rest"], json!([0, 1, 1]));
    assert_eq!(result["quotient_32"], json!([least_32, 3, 7]));
    // Where the runtime does not check for zero itself, the host does not return the result.
    let data = json!({"x": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], "window": [], "length": [0]});
    host.predict("frames", data).refused(400, "invalid_input", &["model \"frames:1\"", "by zero"]);
    assert_eq!(host.predict("gather", json!([1])).status, 200);
}

#[test]
fn one_bad_request_of_a_batch_fails_alone() {
    let host = setup("[models.batched]\npath = \"gather.onnx\"\nmax_batch_size = 16\n").start();
    let items: Vec<Value> =
        (0..12).map(|item| json!({"data": [if item == 5 { 99 } else { item % 10 }]})).collect();
    let answer = host.post("/predict/batch", json!({"model": "batched", "items": items}).to_string()).json();
    assert_eq!(answer["errors"].as_array().unwrap().len(), 1, "{answer}");
    assert_eq!(
        (&answer["errors"][0]["index"], &answer["errors"][0]["kind"]),
        (&json!(5), &json!("invalid_input"))
    );
}

// Plugins

fn behind_plugins() -> Host {
    setup(
        "[executors.passed]\nkind = \"custom\"\nplugin = \"pass\"\ninner = \"onnx\"\n\n[executors.onnx]\nkind = \"onnx\"\n\n\
         [plugins.pass]\npath = \"pass.wasm\"\n\n[plugins.caller]\npath = \"caller.wasm\"\n\n[plugins.outer]\n\
         path = \"caller.wasm\"\n\n[plugins.outer.config]\nto = \"positions\"\n\n[models.made]\npath = \"positions.onnx\"\n\
         transformer = \"caller\"\n\n[models.made-passed]\npath = \"positions.onnx\"\ntransformer = \"caller\"\n\n\
         [models.passed]\npath = \"positions.onnx\"\n\n[models.outer]\nplugin = \"outer\"\n\n[policy]\n\
         passed = \"passed\"\nmade-passed = \"passed\"\n",
    )
    .file("pass.wasm", plugin("pass"))
    .file("caller.wasm", plugin("caller"))
    .start()
}

#[test]
fn a_plugin_that_passes_the_callers_tensors_on_is_not_at_fault() {
    let host = behind_plugins();
    for name in ["passed", "outer"] {
        let answer = host.predict(name, json!([1.0, 2.0, 3.0, 4.0, 5.0]));
        let error = answer.refused(400, "invalid_input", &["node \"/embed/Add\" (Add)", "\"x\" FP32 [5]"]);
        assert_eq!(error["plugin"], Value::Null, "{error}");
        assert_eq!(
            host.predict(name, json!([1.0, 2.0, 3.0, 4.0])).result(),
            json!({"y": [2.0, 3.0, 4.0, 5.0]})
        );
    }
}

#[test]
fn a_plugin_that_made_the_tensors_is_at_fault() {
    let host = behind_plugins();
    for name in ["made", "made-passed"] {
        let answer = host.predict(name, json!([1.0, 2.0, 3.0, 4.0, 5.0]));
        let parts = ["plugin \"caller\" made tensors that were refused", "node \"/embed/Add\" (Add)"];
        let error = answer.refused(500, "failed", &parts);
        assert_eq!(error["plugin"], "caller", "{error}");
        assert_plain(&answer);
        host.wait_for_log(&["ERROR", name, "made tensors", "onnxruntime_src"]);
        assert_eq!(host.predict(name, json!([1.0, 2.0, 3.0, 4.0])).status, 200);
    }
}
