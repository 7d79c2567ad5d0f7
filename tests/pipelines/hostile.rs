//! Tests pipelines that could block, crash or mislead the host: steps that wait for each other's
//! places, huge sizes, readers that stop, and work that outlives its request.

use crate::support::pipelines::{ask, calls, manifest, serve, setup, steppers};
use crate::support::{Client, Host, eventually, model, replace};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn finished(host: &Host, plugin: &str) -> f64 {
    host.metric(&format!("hostler_plugin_events_total{{name=\"finished\",plugin=\"{plugin}\"}}"))
}

/// A request whose client has disconnected holds its place while it waits for a worker. Dropping
/// the request starts the next one, which must not deadlock with a reader of the metrics.
#[test]
fn a_look_at_the_metrics_does_not_lock_what_it_looks_at() {
    let host = serve(
        &[("slow", "sleep_ms = \"300\"")],
        "[executors.pipeline]\nworkers = 2\nqueue = 2\n[executors.cpu]\nworkers = 1\n\
         [pipelines.p]\noutputs = { r = \"a.y\" }\n\
         [pipelines.p.steps.a]\nmodel = \"slow\"\nin = { a = \"input.x\" }\n",
    );
    let body = json!({"model": "p", "data": {"x": [1]}}).to_string();
    let mut clients: Vec<Client> = Vec::new();
    for count in 1..=3 {
        let mut client = Client::new(host.http);
        client.begin("POST", "/predict", &[], body.as_bytes()).unwrap();
        clients.push(client);
        host.wait_for_executor("pipeline", "inflight", count);
    }
    clients[1].leave();
    for _ in 0..20 {
        host.metric("hostler_executor_busy{executor=\"cpu\"}");
    }
    assert_eq!(clients[0].receive().unwrap().status, 200);
    assert_eq!(clients[2].receive().unwrap().status, 200);
    host.wait_for_idle("pipeline");
}

#[test]
fn rows_without_elements_and_too_many_rows_are_refused_before_they_are_cut() {
    let text = format!(
        "{}[models.identity]\npath = \"identity.onnx\"\n\
         [models.p]\npipeline = \"p\"\n[pipelines.p]\nrows = \"each\"\ninputs = {{ x = \"FP32[-1,-1]\" }}\noutputs = {{ r = \"a.y\" }}\n\
         [pipelines.p.steps.a]\nmodel = \"identity\"\nin = {{ x = \"input.x\" }}\n\
         [models.q]\npipeline = \"q\"\n[pipelines.q]\noutputs = {{ r = \"a.y\" }}\n\
         [pipelines.q.steps.a]\nmodel = \"identity\"\nin = {{ x = \"input.x\" }}\neach = {{ split = [\"x\"] }}\n",
        steppers(&[])
    );
    let host = setup(&text).start();
    let infer = |name: &str, shape: [u64; 2], data: Vec<f32>| {
        let input = json!({"name": "x", "datatype": "FP32", "shape": shape, "data": data});
        host.post(&format!("/v2/models/{name}/infer"), json!({"inputs": [input]}).to_string())
    };
    for name in ["p", "q"] {
        for (rows, columns) in [(1_000_000_000_000, 0), (20_000, 1)] {
            let data = if columns == 0 { Vec::new() } else { vec![0.5; 20_000] };
            let refused = infer(name, [rows, columns], data);
            assert_eq!(refused.status, 413, "{name}: {}", refused.text());
            assert!(refused.text().contains("max_visits"), "{}", refused.text());
        }
        assert_eq!(infer(name, [2, 1], vec![1.0, 2.0]).json()["outputs"][0]["data"], json!([1.0, 2.0]));
    }
}

/// The host counts names before it looks any of them up.
#[test]
fn a_graph_with_too_many_names_is_refused_at_once() {
    let names: Vec<String> = (0..100_000).map(|name| format!("\"n{name}\"")).collect();
    let steps: String = (0..900)
        .map(|step| format!("[pipelines.p.steps.s{step}]\nmodel = \"one\"\nin = {{ a = \"input.x\" }}\n"))
        .collect();
    for (count, part) in
        [(100_000, "names in its steps and outputs; at most 20000"), (15_000, "no step \"n0\"")]
    {
        let names = names[..count].join(",");
        let text = manifest(
            &[("one", "")],
            &format!("[pipelines.p]\noutputs = {{ r = \"s0.y\" }}\n{steps}after = [{names}]\n"),
        );
        let (code, out, error) = setup(&text).run(&["check", "hostler.toml", "--quick"]);
        assert_ne!(code, 0);
        assert!(error.contains(part), "{out}{}", &error[..error.len().min(2_000)]);
        assert!(error.matches("no step").count() <= 40);
    }
}

#[test]
fn an_index_that_is_no_place_is_an_error_and_no_panic() {
    for index in ["9223372036854775808", "18446744073709551615", "7"] {
        let text = format!(
            "{}[models.identity]\npath = \"identity.onnx\"\n[models.p]\npipeline = \"p\"\n\
             [pipelines.p]\nrows = \"each\"\noutputs = {{ r = [\"a.y\", \"input.x\"] }}\n\
             [pipelines.p.steps.a]\nmodel = \"identity\"\nin = {{ x = \"input.x\" }}\nwhen = \"input.x[0][{index}] > 1\"\n",
            steppers(&[])
        );
        let host = setup(&text).start();
        // The condition reads the request only, so the error is the client's.
        host.predict("p", json!({"x": [[1, 2]]})).refused(400, "invalid_input", &["there is no element"]);
        assert!(!host.log().contains("panicked"), "{}", host.log());
    }
}

const REPEAT: &str = "[plugins.repeat]\npath = \"repeat.wasm\"\n[models.repeat]\nplugin = \"repeat\"\n\
    [plugins.whole]\npath = \"stepper.wasm\"\n[plugins.whole.config]\nint32 = \"true\"\n[models.whole]\nplugin = \"whole\"\n\
    [plugins.late]\npath = \"stepper.wasm\"\n[plugins.late.config]\nint32 = \"true\"\nsleep_ms = \"50\"\n[models.late]\nplugin = \"late\"\n";

const STREAM: &str = "steps.s]\nmodel = \"repeat\"\nin = { IN = \"input.IN\", DELAY = \"input.DELAY\", WAIT = { const = [0] } }\n";

fn data(elements: &[i32]) -> Value {
    json!({"IN": elements, "DELAY": vec![0; elements.len()]})
}

#[test]
fn a_streaming_pipeline_runs_in_the_place_of_the_one_around_it() {
    let text = format!(
        "{REPEAT}[executors.pipeline]\nworkers = 1\nqueue = 50\n[models.inner]\npipeline = \"inner\"\n[models.p]\npipeline = \"p\"\n\
         [pipelines.inner]\nstreaming = true\noutputs = {{ r = \"a.y\" }}\n[pipelines.inner.{STREAM}\
         [pipelines.inner.steps.a]\nmodel = \"whole\"\nin = {{ a = \"s.OUT\" }}\n\
         [pipelines.p]\noutputs = {{ r = {{ from = \"s.r\", gather = \"stack\" }} }}\n\
         [pipelines.p.steps.s]\nmodel = \"inner\"\nin = {{ IN = \"input.IN\", DELAY = \"input.DELAY\" }}\n"
    );
    let host = setup(&text).start();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(host.predict("p", data(&[1, 2])).result(), json!({"r": [1, 2]})));
        }
    });
    host.wait_for_idle("pipeline");
}

#[test]
fn items_wait_for_what_the_request_has_beside_them() {
    let text = format!(
        "{REPEAT}[models.p]\npipeline = \"p\"\n[pipelines.p]\nstreaming = true\noutputs = {{ r = \"s.OUT\", w = \"w.y\" }}\n[pipelines.p.{STREAM}\
         [pipelines.p.steps.w]\nmodel = \"late\"\nin = {{ a = \"input.IN\" }}\n"
    );
    let host = setup(&text).start();
    let body = json!({"model": "p", "data": data(&[5, 6, 7])}).to_string();
    let text = host.post("/predict/stream", body).text();
    let items: Vec<Value> =
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["result"].clone()).collect();
    let expected: Vec<Value> = [5, 6, 7].iter().map(|item| json!({"r": [item], "w": [5, 6, 7]})).collect();
    assert_eq!(items, expected);
    host.wait_for_idle("pipeline");
}

#[test]
fn what_waits_for_the_end_of_its_own_stream_is_refused() {
    for (outputs, steps) in [
        (
            "{ r = { from = \"n.y\", gather = \"stack\" } }",
            "[pipelines.p.steps.n]\nmodel = \"two\"\nin = { a = \"s.OUT\", b = { from = \"s.OUT\", gather = \"stack\" } }\n",
        ),
        (
            "{ r = { from = \"n.y\", gather = \"stack\" } }",
            "[pipelines.p.steps.m]\nmodel = \"whole\"\nin = { a = { from = \"s.OUT\", gather = \"stack\" } }\n\
             [pipelines.p.steps.n]\nmodel = \"two\"\nin = { a = \"s.OUT\", b = \"m.y\" }\n",
        ),
    ] {
        let text = format!(
            "{REPEAT}[plugins.two]\npath = \"stepper.wasm\"\n[plugins.two.config]\nint32 = \"true\"\ninputs = \"a,b\"\n[models.two]\nplugin = \"two\"\n\
             [models.p]\npipeline = \"p\"\n[pipelines.p]\noutputs = {outputs}\n[pipelines.p.{STREAM}{steps}"
        );
        let (code, _, error) = setup(&text).run(&["check", "hostler.toml"]);
        assert_eq!(code, 1);
        assert!(error.contains("waits for the end of \"s\""), "{error}");
    }
}

#[test]
fn a_stream_that_failed_is_no_shorter_stream() {
    let text = format!(
        "{REPEAT}[models.p]\npipeline = \"p\"\n[pipelines.p]\noutputs = {{ r = \"g.y?\", n = \"w.y\" }}\n[pipelines.p.{STREAM}on_error = \"skip\"\n\
         [pipelines.p.steps.g]\nmodel = \"whole\"\nin = {{ a = {{ from = \"s.OUT\", gather = \"stack\" }} }}\n\
         [pipelines.p.steps.w]\nmodel = \"whole\"\nin = {{ a = \"input.IN\" }}\n"
    );
    let host = setup(&text).start();
    assert_eq!(host.predict("p", data(&[1, 2, 3])).result(), json!({"r": [1, 2, 3], "n": [1, 2, 3]}));
    let body =
        json!({"model": "p", "data": data(&[1, 2, 3]), "parameters": {"do": "fail", "at": 2}}).to_string();
    assert_eq!(host.post("/predict", body).result(), json!({"n": [1, 2, 3]}));
}

/// ONNX Runtime stops only between nodes, and this model has one long node.
#[test]
fn a_step_that_is_late_and_skipped_does_not_hold_the_answer_up() {
    let text = format!(
        "{}[models.big]\npath = \"huge_node.onnx\"\n[models.p]\npipeline = \"p\"\n\
         [pipelines.p]\noutputs = {{ r = \"one.y\", b = \"big.y?\" }}\n\
         [pipelines.p.steps.big]\nmodel = \"big\"\nin = {{ n = \"input.n\" }}\ntimeout_ms = 50\non_error = \"skip\"\n\
         [pipelines.p.steps.one]\nmodel = \"one\"\nin = {{ a = \"input.x\" }}\n",
        steppers(&[("one", "add = \"1\"")])
    );
    let host = setup(&text).file("huge_node.onnx", model("huge_node")).start();
    let began = Instant::now();
    let answer = host.predict("p", json!({"x": [1], "n": [4000]})).result();
    eprintln!("answered after {:?}", began.elapsed());
    assert_eq!(answer, json!({"r": [2.0]}));
    // The worker and the place are held while the node runs, and then freed.
    host.wait_for_idle("onnx");
    host.wait_for_idle("pipeline");
}

#[test]
fn rounds_of_a_loop_let_others_in() {
    let host = serve(
        &[("one", "add = \"1\"")],
        "[executors.cpu]\nworkers = 1\n\
         [pipelines.p]\nmax_visits = 100000000\noutputs = { r = \"a.y\" }\n\
         [pipelines.p.steps.a]\nmodel = \"one\"\nin = { a = \"input.x\" }\n\
         loop = { while = \"max(self.y) < 1000000000\", max = 1000000, carry = { a = \"y\" } }\n",
    );
    let body = json!({"model": "p", "data": {"x": [1]}}).to_string();
    let mut client = Client::new(host.http);
    client.begin("POST", "/predict", &[], body.as_bytes()).unwrap();
    eventually("the loop runs", || (calls(&host, "one") > 50.0).then_some(()), || host.log());
    for _ in 0..20 {
        assert_eq!(host.predict("one", json!({"a": [1]})).result(), json!({"y": [2.0]}));
    }
    client.leave();
    host.wait_for_idle("cpu");
    host.wait_for_idle("pipeline");
}

#[test]
fn a_loop_that_asks_about_another_step_waits_for_it() {
    let host = serve(
        &[("one", "add = \"1\""), ("limit", "sleep_ms = \"50\"")],
        "[pipelines.p]\noutputs = { r = \"a.y\" }\n\
         [pipelines.p.steps.l]\nmodel = \"limit\"\nin = { a = \"input.limit\" }\n\
         [pipelines.p.steps.a]\nmodel = \"one\"\nin = { a = \"input.x\" }\n\
         loop = { while = \"max(self.y) < max(l.y)\", max = 100, carry = { a = \"y\" } }\n",
    );
    assert_eq!(host.predict("p", json!({"x": [1], "limit": [9]})).result(), json!({"r": [9.0]}));
    let text = manifest(
        &[("one", "add = \"1\"")],
        "[pipelines.p]\noutputs = { r = \"a.y\" }\n\
         [pipelines.p.steps.a]\nmodel = \"one\"\nin = { a = \"input.x\" }\n\
         loop = { while = \"max(a.y) < 9\", max = 100, carry = { a = \"y\" } }\n",
    );
    let (_, _, error) = setup(&text).run(&["check", "hostler.toml", "--quick"]);
    assert!(error.contains("write self.OUTPUT"), "{error}");
}

#[test]
fn detached_work_ends_whatever_becomes_of_its_request() {
    let text = manifest(
        &[("slow", "sleep_ms = \"400\""), ("fails", "fail_below = \"5\""), ("log", "sleep_ms = \"200\"")],
        "[pipelines.p]\noutputs = { r = \"b.y\" }\n\
         [pipelines.p.steps.a]\nmodel = \"slow\"\nin = { a = \"input.x\" }\n\
         [pipelines.p.steps.b]\nmodel = \"fails\"\nin = { a = \"a.y\" }\n\
         [pipelines.p.steps.log]\nmodel = \"log\"\nin = { a = \"input.x\" }\ndetach = true\ntimeout_ms = 5000\n",
    );
    let mut host = setup(&text).start();
    let wait_for = |host: &Host, count: f64| {
        eventually("the detached step", || (finished(host, "log") == count).then_some(()), || host.log());
    };
    let body = json!({"model": "p", "data": {"x": [1]}}).to_string();
    let mut client = Client::new(host.http);
    client.begin("POST", "/predict", &[], body.as_bytes()).unwrap();
    eventually("it runs", || (calls(&host, "log") == 1.0).then_some(()), || host.log());
    client.leave();
    wait_for(&host, 1.0);
    let late = json!({"model": "p", "data": {"x": [1]}, "timeout_ms": 100}).to_string();
    host.post("/predict", late).refused(504, "deadline", &[]);
    wait_for(&host, 2.0);
    host.predict("p", json!({"x": [1]})).refused(500, "failed", &["step \"b\""]);
    wait_for(&host, 3.0);
    host.wait_for_idle("pipeline");
    // The client has its answer, and the host is told to stop.
    let early = manifest(
        &[("one", "add = \"1\""), ("log", "sleep_ms = \"300\"")],
        "[pipelines.p]\noutputs = { r = \"a.y\" }\n\
         [pipelines.p.steps.a]\nmodel = \"one\"\nin = { a = \"input.x\" }\n\
         [pipelines.p.steps.log]\nmodel = \"log\"\nin = { a = \"a.y\" }\ndetach = true\ntimeout_ms = 5000\n",
    );
    replace(&host.path("hostler.toml"), early.as_bytes());
    assert_eq!(host.admin_post("/admin/reload").json()["outcome"], "applied");
    let began = Instant::now();
    assert_eq!(ask(&host, &[1.0]), json!({"r": [2.0]}));
    host.signal("TERM");
    assert!(host.wait().success(), "{}", host.log());
    assert!(began.elapsed() >= Duration::from_millis(300), "it did not wait: {:?}", began.elapsed());
}

#[test]
fn what_is_not_held_is_not_counted() {
    let text = format!(
        "{}[models.zeros]\npath = \"zeros.onnx\"\n[models.p]\npipeline = \"p\"\n\
         [pipelines.p]\nmax_mb = 1\noutputs = {{ r = [\"big.y\", \"small.y\"] }}\n\
         [pipelines.p.steps.big]\nmodel = \"zeros\"\nin = {{ n = \"input.n\" }}\non_error = \"skip\"\n\
         [pipelines.p.steps.small]\nmodel = \"zeros\"\nin = {{ n = {{ const = [2] }} }}\nafter = [\"big\"]\n\
         [models.inner]\npipeline = \"inner\"\n[pipelines.inner]\noutputs = {{ y = \"a.y\" }}\n\
         [pipelines.inner.steps.a]\nmodel = \"thing\"\nin = {{ a = \"input.x\" }}\n\
         [models.q]\npipeline = \"q\"\n[pipelines.q]\nmax_mb = 1\noutputs = {{ r = \"s.y\" }}\n\
         [pipelines.q.steps.s]\nmodel = \"inner\"\nin = {{ x = \"input.x\" }}\n\
         loop = {{ while = \"size(self.y) > 0\", max = 50, at_max = \"go-on\", carry = {{ x = \"y\" }} }}\n",
        steppers(&[("thing", "pass = \"true\"")])
    );
    let host = setup(&text).file("zeros.onnx", model("zeros")).start();
    let skipped = host.predict("p", json!({"n": [1_000_000]})).result();
    assert_eq!(skipped["r"].as_array().unwrap().len(), 2, "{skipped}");
    // Fifty rounds of 200 KB, each freed before the next.
    let floats = vec![0.5; 50_000];
    assert_eq!(host.predict("q", json!({"x": floats})).status, 200);
}

#[test]
fn a_row_that_gives_more_or_less_than_a_row_is_an_error() {
    let text = format!(
        "{}[models.positives]\npath = \"positives.onnx\"\n[models.p]\npipeline = \"p\"\n\
         [pipelines.p]\nrows = \"each\"\noutputs = {{ r = \"a.y\", x = \"input.x\" }}\n\
         [pipelines.p.steps.a]\nmodel = \"positives\"\nin = {{ x = \"input.x\" }}\n\
         [models.q]\npipeline = \"q\"\n[pipelines.q]\nrows = \"each\"\ninputs = {{ x = \"FP32[-1]\" }}\noutputs = {{ r = \"input.x\", s = \"a.y\" }}\n\
         [pipelines.q.steps.a]\nmodel = \"one\"\nin = {{ a = \"input.x\" }}\n",
        steppers(&[("one", "add = \"1\"")])
    );
    let host = setup(&text).file("positives.onnx", model("positives")).start();
    assert_eq!(host.predict("p", json!({"x": [1, 2]})).status, 200);
    host.predict("p", json!({"x": [1, -1, 2]})).refused(
        500,
        "failed",
        &["row 1: the output \"r\" has shape [0]"],
    );
    // This output needs no step to run.
    let input = json!({"name": "x", "datatype": "FP32", "shape": [100], "data": vec![1.0; 100]});
    let infer = json!({"inputs": [input], "outputs": [{"name": "r"}]}).to_string();
    assert_eq!(host.post("/v2/models/q/infer", infer).json()["outputs"][0]["shape"], json!([100]));
    assert_eq!(calls(&host, "one"), 0.0);
}

#[test]
fn a_pace_can_be_mended_by_a_reload() {
    let text = |per_s: &str| {
        manifest(
            &[("one", "add = \"1\"")],
            &format!(
                "[pipelines.p]\noutputs = {{ r = \"a.y\" }}\n\
                 [pipelines.p.steps.a]\nmodel = \"one\"\nin = {{ a = \"input.x\" }}\nmax_per_s = {per_s}\n"
            ),
        )
    };
    let host = setup(&text("0.001")).start();
    assert_eq!(ask(&host, &[1.0]), json!({"r": [2.0]}));
    let late = json!({"model": "p", "data": {"x": [1]}, "timeout_ms": 100}).to_string();
    host.post("/predict", late).refused(504, "deadline", &[]);
    replace(&host.path("hostler.toml"), text("1000").as_bytes());
    assert_eq!(host.admin_post("/admin/reload").json()["outcome"], "applied");
    assert_eq!(ask(&host, &[1.0]), json!({"r": [2.0]}));
}
