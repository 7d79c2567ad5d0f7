//! Tests ONNX models of every form: each works, or is refused at load with the reason.

use crate::support::{Answer, Host, Setup, model, plugin, replace};
use serde_json::{Value, json};

fn setup(name: &str) -> Setup {
    Setup::new("[models.m]\npath = \"m.onnx\"\n").file("m.onnx", model(name))
}

fn serve(name: &str) -> Host {
    setup(name).start()
}

/// Checks that `hostler check` fails and prints all of `parts`.
fn refused(setup: &Setup, parts: &[&str]) {
    let (code, out, err) = setup.run(&["check", "hostler.toml"]);
    assert_eq!(code, 1, "{out}{err}");
    for part in parts {
        assert!(err.contains(part), "{err}\nlacks {part}");
    }
}

fn ok(setup: &Setup) {
    let (code, out, err) = setup.run(&["check", "hostler.toml"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("hostler.toml: ok (1 models, "), "{out}");
}

fn answers(host: &Host, data: Value, expected: Value) {
    let answer = host.predict("m", data.clone());
    assert_eq!(answer.status, 200, "{data}: {}", answer.text());
    assert_eq!(answer.result(), expected, "{data}");
}

fn fault(answer: &Answer, message: &str, field: Option<&str>) {
    let error = answer.refused(400, "invalid_input", &[message]);
    assert_eq!(error["field"].as_str(), field, "{error}");
    assert_eq!(error["model"], "m:1");
}

#[test]
fn free_dimensions_take_any_size() {
    let host = serve("identity");
    for (data, expected) in [
        (json!([[1]]), json!({"y": [[1.0]]})),
        (json!([[1, 2, 3], [4, 5, 6]]), json!({"y": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]})),
        (json!({"x": [[0.1], [-0.0]]}), json!({"y": [[0.1], [-0.0]]})),
        (json!([[], []]), json!({"y": [[], []]})),
    ] {
        answers(&host, data, expected);
    }
    fault(&host.predict("m", json!([1])), "expected shape [-1,-1], got [1]: wrap the value", Some("x"));
    fault(&host.predict("m", json!([[[1]]])), "there is one list too many", Some("x"));
}

#[test]
fn a_model_without_a_batch_dimension_takes_its_own_shape_only() {
    let host = serve("fixed");
    answers(&host, json!([1, 2, 3]), json!({"y": [2.0, 4.0, 6.0]}));
    fault(&host.predict("m", json!([1, 2])), "input \"x\": expected shape [3], got [2]", Some("x"));
    fault(&host.predict("m", json!([[1, 2, 3]])), "one list too many around the value", Some("x"));
    answers(&host, json!([1, 2, 3]), json!({"y": [2.0, 4.0, 6.0]}));
}

#[test]
fn an_input_with_a_default_may_be_left_out() {
    let host = serve("optional");
    answers(&host, json!({"x": [1, 2]}), json!({"y": [11.0, 12.0]}));
    answers(&host, json!({"x": [1, 2], "bias": [0.5]}), json!({"y": [1.5, 2.5]}));
    fault(&host.predict("m", json!({"bias": [1]})), "input \"x\" (FP32 [-1]) is missing", Some("x"));
    fault(&host.predict("m", json!({"x": [1], "bias": [1, 2]})), "expected shape [1], got [2]", Some("bias"));
    let inputs = host.get("/v2/models/m").json()["inputs"].clone();
    assert_eq!(inputs.as_array().unwrap().len(), 2, "{inputs}");
}

#[test]
fn two_inputs_are_given_by_name() {
    let host = serve("two_inputs");
    answers(&host, json!({"a": [1, 2], "b": [10, 20]}), json!({"y": [11.0, 22.0]}));
    let bare = "the model has 2 inputs, so data must be an object with their names: {\"a\": …, \"b\": …}";
    host.predict("m", json!([1, 2])).refused(400, "invalid_input", &[bare]);
    fault(&host.predict("m", json!({"a": [1]})), "input \"b\" (FP32 [-1]) is missing", Some("b"));
    // Free dimensions may contradict each other, which only the run can detect. The client sent
    // both inputs, so the fault is the client's.
    let answer = host.predict("m", json!({"a": [1, 2], "b": [1, 2, 3]}));
    answer.refused(400, "invalid_input", &["dimension \"n\" must be the same", "2 by 3"]);
    // One log line reports it, with the request's id; the line of ONNX Runtime would repeat it and
    // is suppressed.
    let id = answer.header("x-request-id").unwrap().to_owned();
    host.wait_for_log(&["INFO", &format!("request=\"{id}\""), "2 by 3"]);
    assert!(!host.log().contains("[E:onnxruntime"), "{}", host.log());
    answers(&host, json!({"a": [1], "b": [1]}), json!({"y": [2.0]}));
}

#[test]
fn every_datatype_has_its_json_form_and_its_limits() {
    let host = serve("datatypes");
    let names = [
        "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "fp16", "bf16",
        "fp32", "fp64", "bytes",
    ];
    let request = |name: &str, value: &Value| {
        let entries = names.iter().map(|other| match *other == name {
            true => (other.to_string(), json!([value])),
            false => (other.to_string(), json!([])),
        });
        Value::Object(entries.collect())
    };
    for (name, value) in [
        ("bool", json!(true)),
        ("uint64", json!(u64::MAX)),
        ("int64", json!(i64::MIN)),
        ("fp16", json!(-0.25)),
        ("bf16", json!(1.5)),
        ("fp64", json!(1e300)),
        ("bytes", json!("tëxt \u{1F600} \\ \"")),
        ("bytes", json!("")),
        ("bytes", json!("a\u{0}b\u{0}")),
    ] {
        let result = host.predict("m", request(name, &value)).result();
        assert_eq!(result[format!("{name}_out")], json!([value]), "{name}");
        assert_eq!(result["int8_out"] == json!([]), name != "int8");
    }
    for (name, value, part) in [
        ("bool", json!(1), "expected true or false for BOOL, got 1"),
        ("uint8", json!(256), "256 is out of range for UINT8 (0 to 255)"),
        ("uint16", json!(-1), "-1 is out of range for UINT16"),
        ("int32", json!(1.5), "expected a whole number for INT32, got the number 1.5"),
        ("int32", json!(1e30), "1e30 is out of range for INT32 (-2147483648 to 2147483647)"),
        ("uint64", json!(2e19), "2e19 is out of range for UINT64 (0 to 18446744073709551615)"),
        ("uint8", json!(-1e30), "-1e30 is out of range for UINT8 (0 to 255)"),
        ("int64", json!(u64::MAX), "out of range for INT64"),
        ("fp16", json!(65_536), "6.5536e4 is out of range for FP16"),
        ("fp32", json!(1e39), "1e39 is out of range for FP32"),
        ("fp64", json!("NaN"), "expected a number for FP64, got the string \"NaN\""),
        ("bytes", json!(1), "expected a string for BYTES, got 1"),
        ("int8", json!(null), "got null"),
    ] {
        fault(&host.predict("m", request(name, &value)), part, Some(name));
    }
}

#[test]
fn what_json_cannot_carry_is_refused_with_output_and_place() {
    let host = serve("log");
    for (x, message) in [
        (json!([1, -1, 0]), "output \"y\"[1] is NaN, which JSON cannot carry"),
        (json!([0]), "output \"y\"[0] is -inf, which JSON cannot carry"),
    ] {
        let answer = host.predict("m", x);
        answer.refused(400, "invalid_input", &[message, "/v2", "binary_data"]);
        answers(&host, json!([1]), json!({"y": [0.0]}));
    }
    let host = serve("plus1");
    answers(&host, json!([3e38]), json!({"y": [3e38]}));
}

#[test]
fn weights_beside_the_model_are_part_of_it() {
    let external = |setup: Setup| setup.file("external.bin", model("external").with_extension("bin"));
    let manifest = "[models.m]\npath = \"external.onnx\"\n";
    let host = external(Setup::new(manifest).file("external.onnx", model("external"))).start();
    answers(&host, json!([[1, 1, 1]]), json!({"y": [[1.0, 2.0, 3.0]]}));

    let weights: Vec<u8> = [7.0_f32, 8.0, 9.0].iter().flat_map(|weight| weight.to_le_bytes()).collect();
    replace(&host.path("external.bin"), &weights);
    let policy = host.wait_for_generation(2);
    let change = policy["last_reload"]["changes"][0].as_str().unwrap().to_owned();
    assert!(change.starts_with("model \"m:1\": external.external.bin "), "{change}");
    answers(&host, json!([[1, 1, 1]]), json!({"y": [[7.0, 8.0, 9.0]]}));

    replace(&host.path("external.bin"), &weights[..4]);
    let policy = host.wait_for_outcome("rejected");
    let errors = policy["last_reload"]["errors"].to_string();
    assert!(errors.contains("needs 12 bytes of external.bin, which has 4"), "{policy}");
    answers(&host, json!([[1, 1, 1]]), json!({"y": [[7.0, 8.0, 9.0]]}));
    assert_eq!(host.generation(), 2);
}

#[test]
fn missing_weights_are_named() {
    let manifest = "[models.m]\npath = \"external.onnx\"\n";
    let setup = Setup::new(manifest).file("external.onnx", model("external"));
    refused(&setup, &["hostler.toml:2:8", "model \"m:1\"", "external.bin: No such file"]);
    ok(&setup.file("external.bin", model("external").with_extension("bin")));
}

#[test]
fn models_that_are_not_tensors_to_tensors_are_refused_with_the_reason() {
    for (name, parts) in [
        (
            "sequence",
            &["output \"y\" is a sequence, not a tensor", "export the model with tensor outputs"][..],
        ),
        ("zipmap", &["output \"y\" is a sequence of maps", "zipmap=False"]),
        ("optional_type", &["input \"x\" is of an optional type", "plain tensors"]),
    ] {
        let setup = setup(name);
        refused(&setup, &[&["model \"m:1\": "], parts].concat());
        let log = setup.try_start().err().unwrap_or_else(|| panic!("{name} was served"));
        assert!(parts.iter().all(|part| log.contains(part)), "{log}");
    }
}

#[test]
fn a_file_that_is_no_model_is_refused() {
    let whole = std::fs::read(crate::support::example("bankchurn/model.onnx")).unwrap();
    for content in [&b""[..], b"hello", b"\0asm\x0d\0\x01\0", &whole[..100], &whole[..whole.len() / 2]] {
        let setup = Setup::new("[models.m]\npath = \"m.onnx\"\n");
        replace(&setup.path("m.onnx"), content);
        refused(&setup, &["model \"m:1\": ONNX Runtime cannot load it: "]);
    }
}

#[test]
fn a_device_that_is_not_there_is_an_error_and_not_the_cpu() {
    for device in ["cuda", "cuda:3"] {
        let manifest = format!("[executors.onnx]\ndevice = \"{device}\"\n[models.m]\npath = \"m.onnx\"\n");
        let setup = Setup::new(&manifest).file("m.onnx", model("plus1"));
        let index = device.strip_prefix("cuda:").unwrap_or("0");
        refused(&setup, &["model \"m:1\": ", &format!("device \"cuda:{index}\""), "device = \"cpu\""]);
        let (code, out, err) = setup.run(&["check", "--quick", "hostler.toml"]);
        assert_eq!(code, 0, "a plan does not look for devices: {out}{err}");
    }
    let manifest = "[executors.onnx]\ndevice = \"tpu\"\n[models.m]\npath = \"m.onnx\"\n";
    let setup = Setup::new(manifest).file("m.onnx", model("plus1"));
    refused(
        &setup,
        &["hostler.toml:2:10", "device \"tpu\" is not known", "devices: cpu, cuda, cuda:<index>"],
    );
}

#[test]
fn a_model_runs_where_its_kind_can_and_a_refusal_says_where_it_could() {
    let onnx = |executor: &str| {
        let manifest = format!("[models.m]\npath = \"m.onnx\"\n[policy]\nm = \"{executor}\"\n");
        Setup::new(&manifest).file("m.onnx", model("plus1"))
    };
    for executor in ["cpu", "gpu", "onnx"] {
        let host = onnx(executor).start();
        answers(&host, json!([1]), json!({"y": [2.0]}));
        assert_eq!(host.get("/models").json()["models"][0]["executor"], executor);
    }
    let echo = |executor: &str| {
        let manifest = format!(
            "[models.m]\nplugin = \"echo\"\n[plugins.echo]\npath = \"echo.wasm\"\n[policy]\nm = \"{executor}\"\n"
        );
        Setup::new(&manifest).file("echo.wasm", plugin("echo"))
    };
    answers(&echo("gpu").start(), json!(["hi"]), json!({"message": ["hi"]}));
    refused(
        &echo("onnx"),
        &[
            "model \"m:1\": executor \"onnx\" is of kind onnx",
            "plugin \"echo\"",
            "of kind thread-pool, such as \"cpu\"",
        ],
    );
}

#[test]
fn without_onnx_runtime_the_error_says_how_to_get_it() {
    let mend = ["pip install onnxruntime==", "[server] onnxruntime", "ORT_DYLIB_PATH"];
    let text = |setup: Setup| setup.text("readme.txt", "no library");
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let other =
        maps.lines().find_map(|line| line.split_whitespace().last().filter(|path| path.contains("libc.so")));
    let other = other.expect("this process has a C library");
    for (setup, parts) in [
        (
            setup("plus1").env("ORT_DYLIB_PATH", "/no/such.so"),
            ["ORT_DYLIB_PATH: /no/such.so ", "does not exist or is not a file"],
        ),
        (
            setup("plus1").env("ORT_DYLIB_PATH", "."),
            ["ORT_DYLIB_PATH: . ", "does not exist or is not a file"],
        ),
        (
            text(setup("plus1").env("ORT_DYLIB_PATH", "readme.txt")),
            ["cannot load ONNX Runtime", "readme.txt"],
        ),
        (setup("plus1").env("ORT_DYLIB_PATH", other), ["cannot load ONNX Runtime", other]),
    ] {
        refused(&setup, &[&["model \"m:1\": "], &parts[..], &mend].concat());
    }
    for (file, part) in [("none.so", "[server] onnxruntime: "), ("readme.txt", "cannot load ONNX Runtime")] {
        let manifest = format!("[server]\nonnxruntime = \"{file}\"\n[models.m]\npath = \"m.onnx\"\n");
        let setup = text(Setup::new(&manifest).file("m.onnx", model("plus1")));
        refused(&setup, &[&[part, &format!("/{file}")], &mend[..]].concat());
    }
    // A manifest with plugins only needs no ONNX Runtime.
    let manifest = "[models.m]\nplugin = \"echo\"\n[plugins.echo]\npath = \"echo.wasm\"\n";
    ok(&Setup::new(manifest).file("echo.wasm", plugin("echo")).env("ORT_DYLIB_PATH", "/no/such.so"));
}
