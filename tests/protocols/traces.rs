//! Traces: spans of requests arrive at a collector over OTLP, with the right parents. The collector
//! decodes them with the Python package `opentelemetry-proto`.
//!
//! `cargo xtask test` passes the folder of the Python packages. Without it the tests that need the
//! collector are skipped, but fail in CI.

use crate::support::host::{Lines, follow};
use crate::support::{Host, Setup, eventually, is_soak, model, plugin, root};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

struct Collector {
    program: Child,
    lines: Lines,
    grpc: u64,
    http: u64,
}

impl Collector {
    /// Returns `None`, after printing why, if the packages are not there; in CI that is a failure.
    fn start() -> Option<Self> {
        let Some(packages) = std::env::var_os("HOSTLER_TRITONCLIENT") else {
            assert!(
                std::env::var_os("CI").is_none(),
                "HOSTLER_TRITONCLIENT is not set: run `cargo xtask test`"
            );
            eprintln!("skipped: HOSTLER_TRITONCLIENT is not set; `cargo xtask test` sets it");
            return None;
        };
        let mut program = Command::new("python3")
            .arg(root().join("tests/clients/collector.py"))
            .env("PYTHONPATH", packages)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 runs");
        let lines = follow(program.stdout.take().expect("a pipe"));
        let first = || lines.lock().unwrap().first().cloned();
        let ports = eventually("the collector to listen", first, || "it says nothing".into());
        let ports: Value = serde_json::from_str(&ports).expect("JSON");
        let port = |name: &str| ports[name].as_u64().expect("a port");
        Some(Collector { grpc: port("grpc"), http: port("http"), program, lines })
    }

    fn spans(&self) -> Vec<Value> {
        let lines = self.lines.lock().unwrap();
        lines.iter().skip(1).map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// Waits for a span of this name.
    fn wait_for(&self, name: &str, count: usize) -> Vec<Value> {
        let named = || {
            let found: Vec<Value> = self.spans().into_iter().filter(|span| span["name"] == name).collect();
            (found.len() >= count).then_some(found)
        };
        eventually(name, named, || format!("{:#?}", self.spans()))
    }

    /// Returns the table of a manifest that exports over gRPC.
    fn table(&self, more: &str) -> String {
        format!("[server.traces]\nendpoint = \"http://localhost:{}\"\n{more}", self.grpc)
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

fn post(host: &Host, parent: Option<&str>, body: &Value) -> crate::support::Answer {
    let mut headers = vec![("x-request-id", "one")];
    headers.extend(parent.map(|parent| ("traceparent", parent)));
    headers.extend(parent.map(|_| ("tracestate", "vendor=1")));
    let answer = host.client().request("POST", "/predict", &headers, body.to_string().as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer
}

/// Returns the only span of this name and parent.
fn child<'a>(spans: &'a [Value], parent: &Value, name: &str) -> &'a Value {
    let found: Vec<&Value> =
        spans.iter().filter(|span| span["parent"] == parent["id"] && span["name"] == name).collect();
    assert_eq!(found.len(), 1, "{name} within {}: {spans:#?}", parent["name"]);
    let (span, at) = (found[0], |span: &Value, key: &str| span[key].as_u64().unwrap());
    assert!(at(span, "start") <= at(span, "end"));
    // Each process reads its clock once for a trace, and may be interrupted at it.
    let is_same = span["resource"]["service.name"] == parent["resource"]["service.name"];
    let tolerance = if is_same { 1_000_000 } else { 10_000_000_000 };
    assert!(at(span, "start") + tolerance >= at(parent, "start"), "{name} begins before its parent");
    assert!(at(span, "end") <= at(parent, "end") + tolerance, "{name} ends after its parent");
    span
}

#[test]
fn a_pipeline_with_batches_and_a_remote_is_one_trace() {
    let Some(collector) = Collector::start() else { return };
    let manifest =
        format!("[models.far]\npath = \"plus.onnx\"\n{}service_name = \"far\"\n", collector.table(""));
    let far = Setup::new(&manifest).file("plus.onnx", model("plus1")).grpc().start();
    let grpc = far.grpc.expect("a listener");
    let manifest = format!(
        "{}sample = 0.0\n[executors.remote]\nkind = \"triton\"\nurl = \"{grpc}\"\n\
         [models.near]\npath = \"plus.onnx\"\nmax_batch_size = 2\nmax_queue_delay_us = 1000000\n\
         [models.far]\nremote = {{ name = \"far\" }}\n[policy]\nfar = \"remote\"\n\
         [models.both]\npipeline = \"both\"\n[pipelines.both]\noutputs = {{ y = \"second.y\" }}\n\
         [pipelines.both.steps.first]\nmodel = \"near\"\nin = {{ x = \"input.x\" }}\n\
         [pipelines.both.steps.second]\nmodel = \"far\"\nin = {{ x = \"first.y\" }}\n",
        collector.table("")
    );
    let host = Setup::new(&manifest).file("plus.onnx", model("plus1")).start();
    // Two items, whose first steps share a run.
    let body = json!({"model": "both", "items": [{"data": [1.0]}, {"data": [2.0]}]});
    let headers = [("x-request-id", "one"), ("traceparent", PARENT), ("tracestate", "vendor=1")];
    let answer = host.client().request("POST", "/predict/batch", &headers, body.to_string().as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["results"], json!([{"y": [3.0]}, {"y": [4.0]}]));
    collector.wait_for("predict both", 1);
    collector.wait_for("predict far", 2);
    let spans = collector.spans();
    let spans: Vec<Value> = spans.into_iter().filter(|span| span["trace"] == TRACE).collect();
    let request = spans.iter().find(|span| span["name"] == "predict both").expect("the request");
    assert_eq!((&request["parent"], &request["kind"]), (&json!("b7ad6b7169203331"), &json!(2)));
    assert_eq!((&request["state"], &request["error"]), (&json!("vendor=1"), &Value::Null));
    assert_eq!(request["attributes"]["hostler.request_id"], "one");
    assert_eq!(request["attributes"]["hostler.model"], "both");
    assert_eq!(request["resource"]["service.name"], "hostler");
    child(&spans, request, "admission");
    let items: Vec<&Value> = spans.iter().filter(|span| span["name"] == "call both").collect();
    assert_eq!(items.len(), 2);
    for item in items {
        assert_eq!(item["parent"], request["id"]);
        child(&spans, item, "queue");
        child(&spans, item, "run");
        let first = child(&spans, item, "step first");
        child(&spans, first, "queue");
        let run = child(&spans, first, "run");
        assert_eq!(run["attributes"]["hostler.batch.calls"], 2);
        assert_eq!(run["attributes"]["hostler.batch.rows"], 2);
        assert_eq!(run["attributes"]["hostler.executor"], "onnx");
        let second = child(&spans, item, "step second");
        let remote = child(&spans, second, "remote far");
        assert_eq!(remote["kind"], 3, "a client");
        // The other host goes on with the trace.
        let there = child(&spans, remote, "predict far");
        assert_eq!((&there["resource"]["service.name"], &there["kind"]), (&json!("far"), &json!(2)));
        assert_eq!(there["state"], "vendor=1");
        child(&spans, there, "run");
    }
    let ids: BTreeMap<&str, usize> = spans.iter().fold(BTreeMap::new(), |mut ids, span| {
        *ids.entry(span["id"].as_str().unwrap()).or_default() += 1;
        ids
    });
    assert!(ids.values().all(|count| *count == 1), "each span is sent once");
    assert_eq!(host.access_log("one")["trace_id"], TRACE);
}

#[test]
fn plugins_jobs_and_reloads_have_spans_over_http() {
    let Some(collector) = Collector::start() else { return };
    let manifest = format!(
        "[server.traces]\nendpoint = \"http://127.0.0.1:{}\"\nprotocol = \"http\"\nheaders_file = \"otlp.headers\"\n\
         [models.plus1]\npath = \"plus.onnx\"\n[models.caller]\nplugin = \"caller\"\n[plugins.caller]\npath = \"caller.wasm\"\n\
         [models.hostile]\npath = \"plus.onnx\"\ntransformer = \"hostile\"\n[plugins.hostile]\npath = \"hostile.wasm\"\n",
        collector.http
    );
    let host = Setup::new(&manifest)
        .file("plus.onnx", model("plus1"))
        .file("caller.wasm", plugin("caller"))
        .file("hostile.wasm", plugin("hostile"))
        .text("otlp.headers", "# a key\nX-Api-Key: secret\n")
        .start();
    let reload = collector.wait_for("reload", 1).remove(0);
    assert_eq!(reload["attributes"]["hostler.outcome"], "applied");
    assert_eq!((&reload["protocol"], &reload["headers"]["x-api-key"]), (&json!("http"), &json!("secret")));
    let parameters = json!({"to": "plus1"});
    host.client().request(
        "POST",
        "/predict",
        &[],
        json!({"model": "caller", "data": [1.0], "parameters": parameters}).to_string().as_bytes(),
    );
    let request = collector.wait_for("predict caller", 1).remove(0);
    assert_eq!(request["parent"], "", "the trace begins here");
    let answer = host.post("/predict/async", json!({"model": "plus1", "data": [1.0]}).to_string());
    assert_eq!(answer.status, 202);
    let job = collector.wait_for("job plus1", 1).remove(0);
    assert_eq!(job["kind"], 1);
    // What fails is an error of the span; a mistake of the caller is none.
    let trap = json!({"model": "hostile", "data": ["a"], "parameters": {"do": "trap", "at": "preprocess"}});
    assert_eq!(host.post("/predict", trap.to_string()).status, 500);
    let failed = collector.wait_for("predict hostile", 1).remove(0);
    assert!(failed["error"].as_str().is_some_and(|error| error.contains("hostile")), "{failed}");
    assert_eq!(host.post("/predict", json!({"model": "plus1", "data": "x"}).to_string()).status, 400);
    let mistake = collector.wait_for("predict plus1", 1).remove(0);
    assert_eq!(
        (&mistake["error"], &mistake["attributes"]["error.type"]),
        (&Value::Null, &json!("invalid_input"))
    );
    host.wait_for_log(&["trace_id", failed["trace"].as_str().unwrap()]);
}

#[test]
fn the_parent_decides_or_the_share_does() {
    let Some(collector) = Collector::start() else { return };
    let start = |more: &str| {
        let manifest = format!("[models.m]\npath = \"plus.onnx\"\n{}", collector.table(more));
        Setup::new(&manifest).file("plus.onnx", model("plus1")).start()
    };
    let unsampled = PARENT.replace("-01", "-00");
    let body = json!({"model": "m", "data": [1.0]});
    for (more, parent, is_traced) in [
        ("sample = 0.0\n", None, false),
        ("sample = 0.0\n", Some(PARENT), true),
        ("sample = 1.0\n", Some(&*unsampled), false),
        ("sample = 0.0\nfollow_parent = false\n", Some(PARENT), false),
        ("sample = 1.0\nfollow_parent = false\n", Some(&*unsampled), true),
        ("sample = 1.0\n", Some("nonsense"), true),
    ] {
        let host = start(more);
        post(&host, parent, &body);
        let is_logged = host.access_log("one").get("trace_id").is_some();
        assert_eq!(is_logged, is_traced, "{more} {parent:?}");
    }
}

#[test]
fn a_dead_collector_costs_neither_memory_nor_time() {
    // Nothing listens there, or it accepts and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = {
        let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        held.local_addr().unwrap()
    };
    for (address, protocol) in [(dead, "grpc"), (silent.local_addr().unwrap(), "grpc"), (dead, "http")] {
        let manifest = format!(
            "[server]\naccess_log = false\n[server.traces]\nendpoint = \"http://{address}\"\nprotocol = \"{protocol}\"\n\
             [models.m]\npath = \"plus.onnx\"\n"
        );
        let host = Setup::new(&manifest).file("plus.onnx", model("plus1")).start();
        let mut client = host.client();
        let body = json!({"model": "m", "data": [1.0]}).to_string();
        let mut ask = |count: usize| {
            for _ in 0..count {
                assert_eq!(client.post("/predict", &body).status, 200);
            }
        };
        // More spans than the queue has.
        ask(2300);
        assert!(host.metric("hostler_trace_spans_dropped_total") > 0.0);
        let (growth_kb, ()) = host.peak_growth_kb(|| ask(if is_soak() { 1_000_000 } else { 1000 }));
        assert!(growth_kb < 64 << 10, "{growth_kb} kB");
        host.wait_for_log(&["traces not exported"]);
        assert_eq!(host.metric("hostler_trace_spans_exported_total"), 0.0);
    }
}

#[test]
fn settings_of_traces_are_checked() {
    let check = |table: &str| {
        let manifest = format!("[models.m]\npath = \"plus.onnx\"\n[server.traces]\n{table}");
        let setup = Setup::new(&manifest).file("plus.onnx", model("plus1"));
        let (code, out, err) = setup.run(&["check", "hostler.toml", "--quick"]);
        (code, out + &err)
    };
    for (table, part) in [
        ("", "traces has no endpoint"),
        ("endpoint = \"localhost:4317\"\n", "traces endpoint"),
        ("endpoint = \"http://localhost:4317/v1/traces\"\n", "has a path"),
        ("endpoint = \"https://localhost:4317/?key=SECRET\"\nprotocol = \"http\"\n", "has a query"),
        ("endpoint = \"http://localhost:4317\"\nca = \"ca.pem\"\n", "ca is set, but the endpoint has no TLS"),
        ("endpoint = \"http://localhost:4317\"\nprotocol = \"udp\"\n", "protocol = \"udp\" is not known"),
        ("endpoint = \"http://localhost:4317\"\nsample = 1.5\n", "sample = 1.5 is not a share"),
        ("endpoint = \"http://localhost:4317\"\nsample = nan\n", "is not a share"),
        ("endpoint = \"http://localhost:4317\"\nservice_name = \"\"\n", "service_name is empty"),
        ("endpoint = \"http://localhost:4317\"\nsampling = 1.0\n", "unknown key \"sampling\""),
    ] {
        let (code, said) = check(table);
        assert!(code == 1 && said.contains(part), "{table}: {said}");
    }
    let (code, said) =
        check("endpoint = \"https://otel.example.org:4318\"\nprotocol = \"http\"\nsample = 0.01\n");
    assert_eq!(code, 0, "{said}");
    let setup = |table: &str| {
        let manifest = format!("[models.m]\npath = \"plus.onnx\"\n[server.traces]\n{table}");
        let setup = Setup::new(&manifest).file("plus.onnx", model("plus1")).text("empty.pem", "nothing");
        let setup = setup.text("bad.headers", "my header: a\n").text("odd.headers", "secret\n");
        setup.text("own.headers", "grpc-timeout: 1n\n")
    };
    for (table, part) in [
        ("endpoint = \"http://localhost:4317\"\nheaders_file = \"none\"\n", "none"),
        (
            "endpoint = \"http://localhost:4317\"\nheaders_file = \"odd.headers\"\n",
            "line 1 is not \"name: value\"",
        ),
        (
            "endpoint = \"http://localhost:4318\"\nprotocol = \"http\"\nheaders_file = \"bad.headers\"\n",
            "headers_file",
        ),
        ("endpoint = \"http://localhost:4317\"\nheaders_file = \"own.headers\"\n", "line 1 sets a header"),
        ("endpoint = \"https://localhost:4317\"\nca = \"empty.pem\"\n", "ca has no certificate in PEM"),
    ] {
        let (code, out, err) = setup(table).run(&["check", "hostler.toml", "--quick"]);
        let refused = setup(table).try_start().err().unwrap();
        for said in [out + &err, refused] {
            assert!(said.contains("[server.traces]") && said.contains(part), "{table}: {said}");
        }
        assert_eq!(code, 1, "{table}");
    }
}

#[test]
fn what_is_given_up_has_a_span_too() {
    let Some(collector) = Collector::start() else { return };
    let manifest = format!(
        "{}[models.hostile]\nplugin = \"hostile\"\n[plugins.hostile]\npath = \"hostile.wasm\"\n\
         [models.p]\npipeline = \"p\"\n[pipelines.p]\noutputs = {{ y = \"slow.data?\" }}\n\
         [pipelines.p.steps.slow]\nmodel = \"hostile\"\nin = {{ data = \"input.x\" }}\ntimeout_ms = 50\non_error = \"skip\"\n",
        collector.table("")
    );
    let host = Setup::new(&manifest).file("hostile.wasm", plugin("hostile")).start();
    let parameters = json!({"do": "sleep", "ms": 60_000, "at": "predict"});
    let answer =
        host.post("/predict", json!({"model": "p", "data": ["a"], "parameters": parameters}).to_string());
    assert_eq!(answer.status, 200, "{}", answer.text());
    let step = collector.wait_for("step slow", 1).remove(0);
    assert!(step["error"].is_string(), "{step}");
    let request = collector.wait_for("predict p", 1).remove(0);
    assert_eq!(step["trace"], request["trace"]);
}
