//! How much memory a request may take: dense bodies that would exceed the bound are refused, and
//! ordinary bodies of the same size are served. Neither is parsed on the threads that serve
//! connections.

use crate::support::{Answer, Host, Setup, model};
use flate2::Compression;
use flate2::read::GzEncoder;
use serde_json::{Value, json};
use std::io::Read;

const BODY_MB: usize = 4;

/// Four times the largest body, plus the body itself, plus what threads and the allocator take on
/// first use.
const GROWTH_KB_MAX: u64 = ((BODY_MB as u64) * (4 + 1) + 10) * 1024;

fn start() -> Host {
    let manifest = format!(
        "[server]\nmax_body_mb = {BODY_MB}\nmodel_control = \"explicit\"\n\
         [models.plus]\npath = \"plus.onnx\"\n[models.types]\npath = \"types.onnx\"\n"
    );
    let setup = Setup::new(&manifest).file("plus.onnx", model("plus1"));
    setup.file("types.onnx", model("datatypes")).start()
}

/// Returns `before`, `unit` repeated until the body is close to the size limit, and `after`.
fn filled(before: &str, unit: &str, after: &str) -> Vec<u8> {
    let room = (BODY_MB << 20) - before.len() - after.len();
    let mut body = before.as_bytes().to_vec();
    body.extend(unit.as_bytes().repeat(room / unit.len()));
    body.extend_from_slice(after.as_bytes());
    body
}

/// Like `filled`, with a running number in place of `#` in each unit.
fn numbered(before: &str, unit: &str, after: &str) -> Vec<u8> {
    let mut body = before.to_owned();
    for number in 0.. {
        let next = unit.replace('#', &format!("{number:x}"));
        if body.len() + next.len() + after.len() > BODY_MB << 20 {
            break;
        }
        body += &next;
    }
    (body + after).into_bytes()
}

struct Case {
    path: &'static str,
    body: Vec<u8>,
    status: u16,
    part: &'static str,
}

fn case(path: &'static str, body: Vec<u8>, status: u16, part: &'static str) -> Case {
    Case { path, body, status, part }
}

fn packed(body: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    GzEncoder::new(body, Compression::fast()).read_to_end(&mut packed).unwrap();
    packed
}

fn message(answer: &Answer) -> String {
    let error = answer.json()["error"].clone();
    let text = error.as_str().or(error["message"].as_str());
    text.unwrap_or_else(|| panic!("no message in {:.500}", answer.text())).to_owned()
}

/// Checks that every case is refused as specified and takes no more memory than a request may. Each
/// case has its own host, so that no memory is left over from another case.
fn check(cases: impl IntoIterator<Item = Case>) {
    for case in cases {
        let host = start();
        assert_eq!(host.predict("plus", json!([1.0])).status, 200);
        let (growth, answer) = host.peak_growth_kb(|| host.post(case.path, &case.body));
        let shown: String = String::from_utf8_lossy(&case.body).chars().take(60).collect();
        assert_eq!(answer.status, case.status, "{}: {shown}: {:.500}", case.path, answer.text());
        let message = message(&answer);
        assert!(message.contains(case.part), "{}: {shown}: {message:.500}\nlacks {}", case.path, case.part);
        assert!(message.len() < 20_000, "{}: {shown}: {} bytes of message", case.path, message.len());
        assert!(growth <= GROWTH_KB_MAX, "{}: {shown}: {growth} kB for {GROWTH_KB_MAX}", case.path);
        assert_eq!(host.predict("plus", json!([1.0])).status, 200);
    }
}

#[test]
fn dense_parameters_and_numbers_of_a_prediction_stay_within_the_bound() {
    let open = r#"{"model":"plus","data":[1],"#;
    let with = |rest: &str| format!("{open}{rest}");
    check([
        case(
            "/predict",
            filled(&with(r#""parameters":{"#), r#""":0,"#, r#""a":0}}"#),
            413,
            "parameters would take",
        ),
        case(
            "/predict",
            numbered(&with(r#""parameters":{"#), r##""#":0,"##, r#""a":0}}"#),
            413,
            "max_body_mb",
        ),
        case("/predict", filled(&with(r#""parameters":{"p":["#), "[],", "0]}}"), 400, "It is a list"),
        case("/predict", filled(&with(r#""timeout_ms":["#), "0,", "0]}"), 400, "timeout_ms is [0,0"),
        case("/predict", filled(&with(r#""version":["#), "0,", "0]}"), 400, "version must be a string"),
        case("/predict", filled(&with("\""), "\u{7f}", "\":1}"), 400, "unknown field"),
        case("/predict", filled(r#"{"data":[1],"model":""#, "\u{7f}", "\"}"), 404, "no model"),
        case(
            "/predict/stream",
            numbered(&with(r#""parameters":{"#), r##""#":0,"##, r#""a":0}}"#),
            413,
            "parameters",
        ),
    ]);
}

#[test]
fn dense_inputs_of_a_prediction_stay_within_the_bound() {
    let data = |start: &str| format!(r#"{{"model":"plus","data":{start}"#);
    check([
        case("/predict", filled(&data("{"), r#""":0,"#, r#""a":0}}"#), 400, "no input \"\""),
        case("/predict", filled(&data("["), r#""","#, "0]}"), 400, "input \"x\""),
        case("/predict", filled(&data("["), "[],", "[]]}"), 400, "expected shape [-1], got ["),
        case("/predict", filled(&data("\""), "\u{7f}", "\"}"), 400, "expected a number for FP32"),
        case("/predict/types", filled("{\"fp64\":[", "0,", "0]}"), 413, "inputs would take"),
        case("/predict/types", filled("{\"fp64\":[0],", "\"fp64\":0,", "\"a\":0}"), 400, "already exists"),
        case("/predict/plus", filled("{", r#""x":0,"#, r#""x":0}"#), 400, "already exists"),
    ]);
}

#[test]
fn dense_batches_and_jobs_stay_within_the_bound() {
    let shared = format!(r#"{{"model":"plus","parameters":{{"p":"{}"}},"items":["#, "x".repeat(100_000));
    let items = vec![r#"{"data":[1]}"#; 1000].join(",");
    let inherited = |start: &str| format!("{start}{items}]}}").into_bytes();
    let open = r#"{"model":"plus","data":[1],"#;
    check([
        case("/predict/batch", filled(r#"{"model":"plus","items":["#, "0,", "0]}"), 413, "at most 1000"),
        case(
            "/predict/batch",
            filled(r#"{"model":"plus","items":""#, "\u{7f}", "\"}"),
            400,
            "expected a list",
        ),
        case(
            "/predict/async",
            filled(&format!(r#"{open}"parameters":{{"#), r#""":0,"#, r#""a":0}}"#),
            413,
            "parameters",
        ),
        case(
            "/predict/async",
            filled(&format!(r#"{open}"max_attempts":["#), "0,", "0]}"),
            400,
            "max_attempts is [0,",
        ),
        case(
            "/predict/async/batch",
            filled(r#"{"model":"plus","items":["#, "0,", "0]}"),
            413,
            "at most 1000",
        ),
        case("/predict/async/batch", inherited(&shared), 413, "which each item has"),
    ]);
    // The items of a synchronous batch fail individually.
    let host = start();
    assert_eq!(host.predict("plus", json!([1.0])).status, 200);
    let (growth, answer) = host.peak_growth_kb(|| host.post("/predict/batch", inherited(&shared)).json());
    let errors = answer["errors"].as_array().unwrap();
    assert!(
        (900..950).contains(&errors.len()) && answer["results"][0]["y"] == json!([2.0]),
        "{}",
        errors.len()
    );
    assert_eq!(errors[0]["kind"], "too_large");
    assert!(growth <= GROWTH_KB_MAX, "{growth} kB for {GROWTH_KB_MAX}");
}

#[test]
fn dense_requests_of_the_inference_protocol_stay_within_the_bound() {
    let infer = "/v2/models/plus/infer";
    let x = r#"{"name":"x","datatype":"FP32","shape":[1],"data":[1]}"#;
    let with = |rest: &str| format!(r#"{{"inputs":[{x}],{rest}"#);
    check([
        case(
            infer,
            filled(r#"{"inputs":["#, r#"{"name":"","datatype":"","shape":[]},"#, "{}]}"),
            413,
            "inputs would take",
        ),
        case(
            infer,
            filled(&with(r#""outputs":["#), r#"{"name":""},"#, r#"{"name":""}]}"#),
            413,
            "outputs would take",
        ),
        case(
            infer,
            filled(&with(r#""parameters":{"#), r#""":0,"#, r#""a":0}}"#),
            413,
            "parameters would take",
        ),
        case(infer, filled(&with(r#""parameters":{"p":["#), "0,", "0]}}"), 400, "It is a list"),
        case(
            infer,
            filled(&with(r#""outputs":[{"name":"y","parameters":{"#), r#""":0,"#, r#""a":[]}}]}"#),
            400,
            "'a'",
        ),
        case(
            infer,
            filled(r#"{"inputs":[{"name":"x","datatype":"FP32","data":[1],"shape":["#, "1,", "1]}]}"),
            400,
            "dimensions; at most 16",
        ),
        case(
            infer,
            filled(r#"{"inputs":[{"name":"x","datatype":"FP32","data":[1],"shape":[""#, "\u{7f}", "\"]}]}"),
            400,
            "got the text",
        ),
        case(infer, filled(r#"{"inputs":[""#, "\u{7f}", "\"]}"), 400, "expected an object"),
        case(infer, filled(r#"{"inputs":""#, "\u{7f}", "\"}"), 400, "expected a list"),
        case(infer, filled(&with(r#""id":""#), "\u{7f}", "\"}"), 413, "the request's id has"),
        case("/v2/models/plus/generate", filled("{", r#""":0,"#, r#""a":0}"#), 413, "parameters would take"),
        case(
            "/v2/models/plus/generate_stream",
            filled(r#"{"parameters":{"#, r#""":0,"#, r#""a":0}}"#),
            413,
            "parameters would take",
        ),
        case("/v2/models/plus/generate", filled(r#"{"x":1,"p":["#, "[],", "0]}"), 400, "It is a list"),
    ]);
}

#[test]
fn dense_requests_of_model_control_stay_within_the_bound() {
    let load = "/v2/repository/models/plus/load";
    check([
        case(load, filled(r#"{"parameters":{"#, r#""":0,"#, r#""a":0}}"#), 413, "parameters would take"),
        case(load, filled(r#"{"parameters":{"config":"["#, "0,", "0]\"}}"), 413, "config would take"),
        case(load, filled(r#"{"parameters":{"config":["#, "0,", "0]}}"), 400, "it must be a text"),
        case(
            "/v2/repository/models/plus/unload",
            filled(r#"{"parameters":{"p":["#, "0,", "0]}}"),
            400,
            "is not known",
        ),
        case("/v2/repository/index", filled(r#"{"ready":""#, "\u{7f}", "\"}"), 400, "expected true or false"),
    ]);
}

#[test]
fn a_small_body_that_unpacks_to_a_dense_one_stays_within_the_bound() {
    let dense = filled(r#"{"inputs":[],"parameters":{"#, r#""":0,"#, r#""a":0}}"#);
    let empty_members = packed(b"").repeat(20_000);
    for (body, status) in [(packed(&dense), 413), ([&empty_members[..], &packed(b"{}")].concat(), 400)] {
        let host = start();
        assert_eq!(host.predict("plus", json!([1.0])).status, 200);
        let headers = [("content-encoding", "gzip")];
        let infer = "/v2/models/plus/infer";
        let (growth, answer) = host.peak_growth_kb(|| host.client().request("POST", infer, &headers, &body));
        assert_eq!(answer.status, status, "{:.500}", answer.text());
        assert!(growth <= GROWTH_KB_MAX, "{growth} kB for {GROWTH_KB_MAX}");
    }
}

#[test]
fn ordinary_requests_of_the_same_size_are_answered() {
    let host = start();
    let count = 450_000;
    let values: Vec<String> = (0..count).map(|index| format!("{}.25", index % 10_000)).collect();
    let list = format!("[{}]", values.join(","));
    assert!(list.len() > (BODY_MB << 20) * 3 / 4 && list.len() < BODY_MB << 20);
    let right = |result: &Value| {
        let result = result.as_array().unwrap();
        result.len() == count
            && result[0] == 1.25
            && result[count - 1] == json!((count - 1) % 10_000).as_f64().unwrap() + 1.25
    };
    let answer = host.post("/predict", format!(r#"{{"model":"plus","data":{list}}}"#));
    assert!(right(&answer.result()["y"]));
    let answer = host.post("/predict/plus", list.clone());
    assert!(right(&answer.result()["y"]));
    let input = format!(r#"{{"name":"x","datatype":"FP32","shape":[{count}],"data":{list}}}"#);
    let answer = host.post("/v2/models/plus/infer", format!("{{\"inputs\":[{input}]}}")).json();
    assert!(right(&answer["outputs"][0]["data"]));
    let answer = host.post("/v2/models/plus/generate", format!("{{\"x\":{list}}}")).json();
    assert!(right(&answer["y"]));

    // A thousand items, which together use the whole budget.
    let row = format!("{{\"data\":[{}]}}", vec!["0.5"; 900].join(","));
    let items = vec![row; 1000].join(",");
    let answer = host.post("/predict/batch", format!(r#"{{"model":"plus","items":[{items}]}}"#)).json();
    let results = answer["results"].as_array().unwrap();
    assert_eq!((results.len(), &answer["errors"]), (1000, &json!([])));
    assert!(results.iter().all(|result| result["y"].as_array().unwrap().len() == 900));
}

/// Returns the CPU time of the host's threads with this name, in clock ticks.
fn ticks(host: &Host, name: &str) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", host.pid())).unwrap();
    let of = |task: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(task.path().join("stat")).ok()?;
        let (comm, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
        let times: Vec<u64> =
            rest.split_whitespace().skip(11).take(2).filter_map(|time| time.parse().ok()).collect();
        comm.starts_with(name).then(|| times.iter().sum::<u64>())
    };
    tasks.filter_map(|task| of(task.ok()?)).sum()
}

#[test]
fn large_bodies_are_read_and_written_on_threads_of_their_own() {
    let host = start();
    assert_eq!(host.predict("plus", json!([1.0])).status, 200);
    assert_eq!(ticks(&host, "body-"), 0, "small ones are not");
    let body = filled(r#"{"model":"plus","data":["#, "0.12345,", "0]}");
    let mut client = host.client();
    let before = ticks(&host, "io");
    for _ in 0..5 {
        let answer = client.post("/predict", &body);
        assert_eq!(answer.status, 200, "{:.500}", answer.text());
    }
    let (io, elsewhere) = (ticks(&host, "io") - before, ticks(&host, "body-"));
    // The threads that serve connections only copy bytes.
    assert!(elsewhere > 2 * io, "{io} ticks on the threads that serve, {elsewhere} on those for bodies");
}
