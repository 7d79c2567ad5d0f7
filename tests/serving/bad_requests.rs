//! Invalid requests: each is refused clearly, and the host continues to serve.

use crate::support::{Answer, Client, Host, churn, eventually, model};
use serde_json::json;

/// Deeper than the stack of any recursive parser.
const DEPTH: usize = 250_000;

/// Starts a host where `plus` takes one input, `pair` two, and `bankchurn` a record through a
/// plugin.
fn start() -> Host {
    let manifest = "[models.plus]\npath = \"plus.onnx\"\n[models.pair]\npath = \"pair.onnx\"\n[models.bankchurn]\n\
        path = \"model.onnx\"\ntransformer = \"churn\"\n[plugins.churn]\npath = \"churn.wasm\"\n\
        [plugins.churn.assets]\nscaling = \"scaling.json\"\n";
    let setup = churn::setup("").text("hostler.toml", manifest);
    setup.file("plus.onnx", model("plus1")).file("pair.onnx", model("two_inputs")).start()
}

/// An invalid request and the answer that it must receive.
struct Case {
    path: &'static str,
    body: Vec<u8>,
    status: u16,
    kind: &'static str,
    parts: Vec<String>,
}

fn case(path: &'static str, body: impl AsRef<[u8]>, parts: &[&str]) -> Case {
    let parts = parts.iter().map(ToString::to_string).collect();
    Case { path, body: body.as_ref().to_vec(), status: 400, kind: "invalid_input", parts }
}

fn unknown(path: &'static str, body: impl AsRef<[u8]>, parts: &[&str]) -> Case {
    Case { status: 404, kind: "not_found", ..case(path, body, parts) }
}

/// Checks that every case is refused as specified, in the form of its protocol, and that a good
/// request is answered afterwards.
fn check(host: &Host, cases: impl IntoIterator<Item = Case>) {
    let mut client = host.client();
    for case in cases {
        let answer = client.post(case.path, &case.body);
        let shown = String::from_utf8_lossy(&case.body).chars().take(200).collect::<String>();
        let parts: Vec<&str> = case.parts.iter().map(|part| &**part).collect();
        let message = match case.path.starts_with("/v2") {
            true => oip_refused(&answer, &case),
            false => {
                let what = format!("{} {shown} gave {}", case.path, answer.text());
                assert_eq!(
                    (answer.status, &answer.error()["kind"]),
                    (case.status, &json!(case.kind)),
                    "{what}"
                );
                answer.refused(case.status, case.kind, &parts)["message"].as_str().unwrap().to_owned()
            }
        };
        assert!(message.len() < 20_000, "{} {shown}: a message of {} bytes", case.path, message.len());
        good(&mut client);
    }
    at_rest(host, client);
}

fn oip_refused(answer: &Answer, case: &Case) -> String {
    assert_eq!(answer.status, case.status, "{}", answer.text());
    let json = answer.json();
    let message = json["error"].as_str().unwrap_or_else(|| panic!("{json} is not an error of the protocol"));
    for part in &case.parts {
        assert!(message.contains(part), "{message}\nlacks {part}");
    }
    message.to_owned()
}

fn good(client: &mut Client) {
    let answer = client.post("/predict", r#"{"model":"plus","data":[1]}"#);
    assert_eq!(answer.result(), json!({"y": [2.0]}));
}

/// Checks that no worker is busy and no connection is left open.
fn at_rest(host: &Host, mut client: Client) {
    client.leave();
    let gauges = || {
        let executors = ["onnx", "cpu"]
            .map(|name| host.metric(&format!("hostler_executor_inflight{{executor=\"{name}\"}}")));
        (executors, host.metric("hostler_http_connections"))
    };
    // The one connection is the one that reads the gauges.
    eventually("rest", || (gauges() == ([0.0, 0.0], 1.0)).then_some(()), || format!("{:?}", gauges()));
}

const PATHS: [&str; 4] = ["/predict", "/predict/batch", "/predict/plus", "/v2/models/plus/infer"];

#[test]
fn a_body_that_is_not_json_is_refused_on_every_path() {
    let bodies: [&[u8]; 12] = [
        b"",
        b" ",
        b"{",
        b"{\"model\":\"plus\",\"data\":[1]",
        b"{\"model\":\"plus\",\"data\":[1]} x",
        b"hello",
        b"\xff\xfe",
        b"{\"\xff\":1}",
        b"{'model':'plus'}",
        b"[NaN]",
        b"[1,]",
        b"model=plus&data=1",
    ];
    let cases = bodies.iter().flat_map(|body| PATHS.map(|path| case(path, body, &["the body is"])));
    check(&start(), cases);
}

#[test]
fn json_nested_without_end_is_refused_wherever_it_stands() {
    let open = "[".repeat(DEPTH);
    let nest = format!("{open}{}", "]".repeat(DEPTH));
    let objects = format!("{}1{}", "{\"a\":".repeat(DEPTH), "}".repeat(DEPTH));
    let around = |before: &str, deep: &str, after: &str| format!("{before}{deep}{after}");
    let mut cases = Vec::new();
    for deep in [&open, &nest, &objects] {
        cases.extend(
            ["/predict", "/predict/batch", "/v2/models/plus/infer"].map(|path| case(path, deep, &["body"])),
        );
    }
    for deep in [&nest, &objects] {
        let tensor = if deep.starts_with('[') { "nested more than 16 deep" } else { "\"a\"" };
        let record = "too many brackets";
        cases.extend([
            case("/predict/plus", deep, &[tensor]),
            case("/predict/bankchurn", deep, &[record]),
            case("/predict", around(r#"{"model":"plus","data":"#, deep, "}"), &[tensor]),
            case("/predict", around(r#"{"model":"pair","data":{"a":"#, deep, "}}"), &["input \"a\""]),
            case("/predict", around(r#"{"model":"bankchurn","data":"#, deep, "}"), &[record]),
            case("/predict", around(r#"{"model":"#, deep, r#","data":[1]}"#), &["expected"]),
            case("/predict", around(r#"{"model":"plus","data":[1],"version":"#, deep, "}"), &["body"]),
            case(
                "/predict",
                around(r#"{"model":"plus","data":[1],"timeout_ms":"#, deep, "}"),
                &["timeout_ms is", "a whole number of milliseconds"],
            ),
            case(
                "/predict",
                around(r#"{"model":"plus","data":[1],"parameters":{"p":"#, deep, "}}"),
                &["parameter 'p' has invalid type"],
            ),
            case("/predict", around(r#"{"model":"plus","data":[1],"x":"#, deep, "}"), &["unknown field `x`"]),
            case("/v2/models/plus/infer", around(r#"{"inputs":"#, deep, "}"), &["body"]),
            case(
                "/v2/models/plus/infer",
                around(r#"{"inputs":[],"parameters":{"p":"#, deep, "}}"),
                &["parameter 'p' has invalid type"],
            ),
            case(
                "/v2/models/plus/infer",
                around(r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":"#, deep, "}]}"),
                &["input \"x\""],
            ),
            case(
                "/v2/models/plus/infer",
                around(r#"{"inputs":[{"name":"x","datatype":"FP32","data":[1],"shape":"#, deep, "}]}"),
                &["body"],
            ),
        ]);
    }
    check(&start(), cases);
    // The outermost list is the batch, which has one item.
    let host = start();
    let answer = host.post("/predict/batch", around(r#"{"model":"plus","items":"#, &nest, "}"));
    assert_eq!(
        (&answer.json()["results"], &answer.json()["errors"][0]["index"]),
        (&json!([null]), &json!(0))
    );
}

#[test]
fn a_request_of_the_wrong_form_is_told_what_is_expected() {
    let single = |body: &str, part: &str| case("/predict", body, &[part]);
    let batch = |body: &str, part: &str| case("/predict/batch", body, &[part]);
    check(
        &start(),
        [
            single("1", "expected a JSON object"),
            single("\"plus\"", "expected a JSON object"),
            single("[]", "expected a JSON object"),
            single(r#"["plus",null,[1],null,null]"#, "expected a JSON object"),
            single("{}", "missing field `model`"),
            single(r#"{"model":"plus"}"#, "missing field `data`"),
            single(r#"{"data":[1]}"#, "missing field `model`"),
            single(r#"{"model":1,"data":[1]}"#, "expected a string"),
            single(r#"{"model":null,"data":[1]}"#, "expected a string"),
            single(r#"{"model":"plus","model":"plus","data":[1]}"#, "duplicate field `model`"),
            single(r#"{"model":"plus","data":[1],"data":[2]}"#, "duplicate field `data`"),
            single(r#"{"model":"plus","data":[1],"modle":1}"#, "unknown field `modle`"),
            single(r#"{"model":"plus","data":[1],"items":[]}"#, "unknown field `items`"),
            single(
                r#"{"model":"plus","data":[1],"version":1.5}"#,
                "version must be a string or a whole number",
            ),
            single(
                r#"{"model":"plus","data":[1],"version":-1}"#,
                "version must be a string or a whole number",
            ),
            single(
                r#"{"model":"plus","data":[1],"version":[]}"#,
                "version must be a string or a whole number",
            ),
            single(r#"{"model":"plus","data":[1],"version":1e999}"#, "number out of range"),
            single(r#"{"model":"plus","data":[1],"parameters":[]}"#, "expected an object"),
            single(r#"{"model":"plus","data":[1],"parameters":1}"#, "expected an object"),
            batch("[]", "expected a JSON object"),
            batch(r#"{"model":"plus"}"#, "missing field `items`"),
            batch(r#"{"model":"plus","items":{}}"#, "expected a list"),
            batch(r#"{"model":"plus","items":null}"#, "expected a list"),
            batch(r#"{"model":"plus","items":[],"data":[1]}"#, "unknown field `data`"),
            case("/v2/models/plus/infer", "[]", &["expected a JSON object"]),
            case("/v2/models/plus/infer", "{}", &["missing field `inputs`"]),
            case("/v2/models/plus/infer", r#"{"inputs":{}}"#, &["expected a list"]),
            case("/v2/models/plus/infer", r#"{"inputs":[],"inputs":[]}"#, &["duplicate field `inputs`"]),
            case(
                "/v2/models/plus/infer",
                r#"{"inputs":[],"id":7}"#,
                &["got the number 7, expected a string"],
            ),
            case("/v2/models/plus/infer", r#"{"inputs":[7]}"#, &["got the number 7, expected an object"]),
            case(
                "/v2/models/plus/infer",
                r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1.5],"data":[1]}]}"#,
                &["got the number 1.5, expected a whole number of 64 bits"],
            ),
            case(
                "/v2/models/plus/infer",
                r#"{"inputs":[{"name":"x","datatype":"FP32","shape":["1"],"data":[1]}]}"#,
                &["got the text \"1\", expected a whole number of 64 bits"],
            ),
            case(
                "/v2/models/plus/infer",
                r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[9223372036854775809],"data":[1]}]}"#,
                &["got the number 9223372036854775809, expected a whole number of 64 bits"],
            ),
            case("/v2/models/plus/infer", r#"{"inputs":{}}"#, &["got an object, expected a list"]),
            unknown(
                "/predict",
                r#"{"model":"pl\u0000us\u001b[1m","data":[1]}"#,
                &["no model \"pl\\u{0}us\\u{1b}[1m\""],
            ),
            case("/v2/models/plus/infer", r#"{"inputs":[],"outputs":["y"]}"#, &["not an inference request"]),
        ],
    );
}

#[test]
fn timeouts_and_parameters_are_checked() {
    let mut cases = Vec::new();
    for (bad, shown) in [
        ("0", "0"),
        ("-1", "-1"),
        ("1.5", "1.5"),
        ("\"x\"", "\"x\""),
        ("\"100\"", "\"100\""),
        ("true", "true"),
        ("[]", "[]"),
        ("{}", "{}"),
        ("18446744073709551616", "1.8446744073709552e+19"),
        ("1e30", "1e+30"),
    ] {
        let message = format!("timeout_ms is {shown};");
        for (path, input) in [("/predict", "\"data\":[1]"), ("/predict/batch", "\"items\":[]")] {
            let body = format!("{{\"model\":\"plus\",{input},\"timeout_ms\":{bad}}}");
            cases.push(case(path, body, &[&message, "a whole number of milliseconds, at least 1"]));
        }
    }
    for (bad, part) in [
        ("null", "parameter 'p' has invalid type. It is null"),
        ("[1]", "parameter 'p' has invalid type. It is a list"),
        ("{\"q\":1}", "parameter 'p' has invalid type. It is an object"),
        ("9223372036854775808", "parameter 'p' has invalid type. It is an integer over 9223372036854775807"),
        ("1e999", "number out of range"),
    ] {
        for (path, input) in [("/predict", "\"data\":[1]"), ("/predict/batch", "\"items\":[]")] {
            let body = format!("{{\"model\":\"plus\",{input},\"parameters\":{{\"p\":{bad}}}}}");
            cases.push(case(path, body, &[part]));
        }
        let input = r#"{"name":"x","datatype":"FP32","shape":[1],"data":[1]}"#;
        let body = format!("{{\"inputs\":[{input}],\"parameters\":{{\"p\":{bad}}}}}");
        cases.push(case("/v2/models/plus/infer", body, &[part]));
    }
    let host = start();
    check(&host, cases);
    // `null` counts as absent.
    let body = r#"{"model":"plus","data":[1],"version":null,"parameters":null,"timeout_ms":null}"#;
    assert_eq!(host.post("/predict", body).status, 200);
    let body = r#"{"model":"plus","data":[1],"timeout_ms":18446744073709551615}"#;
    assert_eq!(host.post("/predict", body).status, 200, "more than the operator allows is cut to that");
}

#[test]
fn inputs_that_are_not_the_models_are_named() {
    let data = |data: &str, parts: &[&str]| case("/predict/plus", data, parts);
    let pair = |data: &str, parts: &[&str]| case("/predict/pair", data, parts);
    check(
        &start(),
        [
            data("{}", &["input \"x\" (FP32 [-1]) is missing"]),
            data("{\"z\":[1]}", &["no input \"z\"", "inputs: \"x\""]),
            data("{\"x\":[1],\"z\":[1]}", &["no input \"z\""]),
            data("{\"x\":[1],\"x\":[1]}", &["input 'x' already exists in request"]),
            data("{\"x\":[1],\"\\u0078\":[1]}", &["input 'x' already exists in request"]),
            data("[[1]]", &["expected shape [-1], got [1,1]", "one list too many"]),
            data("1", &["expected shape [-1], got []", "wrap the value in one more list"]),
            data("\"1\"", &["expected a number for FP32, got the string \"1\""]),
            data("null", &["got null"]),
            data("[1,true]", &["input \"x\"[1]: expected a number for FP32, got true"]),
            data("[1,{}]", &["input \"x\"[1]: expected a number for FP32, got an object"]),
            data("[[1,2],[3]]", &["input \"x\"[1]: lists of unequal length: expected 2 elements, got 1"]),
            data("[1,[2]]", &["input \"x\"[1]: expected an element, got a list"]),
            data("[1e39]", &["input \"x\"[0]: 1e39 is out of range for FP32"]),
            data("[1e999]", &["input \"x\"[0]: number out of range"]),
            data(&format!("[{}]", "9".repeat(400)), &["input \"x\"[0]: number out of range"]),
            pair("[1]", &["the model has 2 inputs", "{\"a\": …, \"b\": …}"]),
            pair("{\"a\":[1]}", &["input \"b\" (FP32 [-1]) is missing"]),
            pair("{\"a\":[1],\"b\":[[1]]}", &["input \"b\": expected shape [-1], got [1,1]"]),
            case(
                "/v2/models/plus/infer",
                r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,1000000000000],"data":[1]}]}"#,
                &["shape says [1,1000000000000], but data has shape [1]"],
            ),
        ],
    );
}

#[test]
fn names_of_every_kind_are_only_names() {
    let long = "n".repeat(10_000);
    let mut cases = Vec::new();
    for name in ["", " ", "../../etc/passwd", "a\u{0}b", "ü\u{1F600}\u{202E}", "plus\n", "\"", "\\", &long] {
        let shown: String = name.chars().take(80).collect::<String>().replace('\u{0}', "\\u{0}");
        let message = format!("no model \"{shown}\"");
        cases.push(unknown("/predict", json!({"model": name, "data": [1]}).to_string(), &[&message]));
        cases.push(unknown("/predict/batch", json!({"model": name, "items": []}).to_string(), &[&message]));
        let message = format!("model \"plus\" has no version \"{shown}\"");
        cases.push(unknown(
            "/predict",
            json!({"model": "plus", "version": name, "data": [1]}).to_string(),
            &[&message],
        ));
    }
    for version in ["2", "1.0", "01", "18446744073709551615"] {
        let body = format!("{{\"model\":\"plus\",\"version\":\"{version}\",\"data\":[1]}}");
        cases.push(unknown("/predict", body, &[&format!("no version \"{version}\""), "versions: 1"]));
    }
    cases.push(unknown("/predict", r#"{"model":"plus","version":2,"data":[1]}"#, &["no version \"2\""]));
    for (path, part) in [
        ("/predict/", "no model \"\""),
        ("/predict/%00", "no model \"\\u{0}\""),
        ("/predict/a%2Fb", "no model \"a/b\""),
        ("/predict/plus:", "has no version \"\""),
        ("/predict/plus:1:1", "has no version \"1:1\""),
        ("/v2/models/%2e%2e/infer", "no model \"..\""),
        ("/v2/models/plus/versions/%20/infer", "has no version \" \""),
    ] {
        cases.push(unknown(path, "[1]", &[part]));
    }
    for path in ["/predict/%ff", "/v2/models/%ff/infer", "/v2/models/plus/versions/%c3%28/infer"] {
        cases.push(case(path, "[1]", &["the path is not UTF-8"]));
    }
    for path in ["/predict/%zz", "/predict/plus%", "/v2/models/plus%2/infer"] {
        cases.push(case(path, "[1]", &["which is not a percent-encoded byte"]));
    }
    check(&start(), cases);
}

#[test]
fn a_name_as_long_as_the_body_allows_costs_little_and_is_not_echoed() {
    let host = start();
    let before = peak_mb(&host);
    let long = "n".repeat(8 << 20);
    let input = |name: &str| json!({"name": name, "datatype": "FP32", "shape": [1], "data": [1]});
    check(
        &host,
        [
            case("/predict/plus", json!({&*long: [1]}).to_string(), &["no input \"nnn"]),
            case(
                "/predict",
                json!({"model": "plus", "data": [1], "parameters": {&*long: null}}).to_string(),
                &["nnn"],
            ),
            case(
                "/predict",
                json!({"model": "plus", "data": [1], "timeout_ms": long}).to_string(),
                &["timeout_ms is"],
            ),
            case(
                "/predict",
                json!({"model": "plus", "data": [1], &*long: 1}).to_string(),
                &["unknown field"],
            ),
            unknown("/predict", json!({"model": long, "data": [1]}).to_string(), &["no model \"nnn"]),
            unknown(
                "/predict",
                json!({"model": "plus", "version": long, "data": [1]}).to_string(),
                &["no version"],
            ),
            case("/v2/models/plus/infer", json!({"inputs": [input(&long)]}).to_string(), &["no input \"nnn"]),
            case(
                "/v2/models/plus/infer",
                json!({"inputs": [{"name": "x", "datatype": long, "shape": [1], "data": [1]}]}).to_string(),
                &["no datatype \"nnn"],
            ),
            case(
                "/v2/models/plus/infer",
                json!({"inputs": [input("x")], "outputs": [{"name": long}]}).to_string(),
                &["no output \"nnn"],
            ),
        ],
    );
    let grown = peak_mb(&host) - before;
    assert!(grown < 150, "the host grew by {grown} MB");
}

/// Returns the peak resident memory of the host.
fn peak_mb(host: &Host) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", host.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}
