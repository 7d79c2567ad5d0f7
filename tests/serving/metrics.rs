//! What the host reports about itself and its work: models, health, metrics and the access log.

use crate::support::{
    Host, Setup, churn, custom, eventually, exposition, model, never_seen, plugin, replace, streaming,
};
use serde_json::{Value, json};

fn plus(more: &str) -> Setup {
    let manifest = format!("{more}\n[models.plus]\npath = \"plus.onnx\"\ntimeout_ms = 2000\n");
    Setup::new(&manifest).file("plus.onnx", model("plus1"))
}

fn executor(name: &str, gauge: &str) -> String {
    format!("hostler_executor_{gauge}{{executor=\"{name}\"}}")
}

fn requests(model: &str, version: &str, code: u16) -> String {
    format!("hostler_requests_total{{code=\"{code}\",model=\"{model}\",version=\"{version}\"}}")
}

#[test]
fn models_are_listed_with_what_they_take_and_where_they_run() {
    let host = plus("[policy]\ndefault = \"gpu\"").start();
    assert_eq!(
        host.get("/models").json(),
        json!({
            "generation": 1,
            "models": [{
                "name": "plus",
                "version": "1",
                "executor": "gpu",
                "transformer": null,
                "timeout_ms": 2000,
                "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}],
                "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1]}],
            }],
        })
    );
    let churn = churn::setup("").start().get("/models").json();
    let names: Vec<(&Value, &Value)> = churn["models"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| (&model["name"], &model["transformer"]))
        .collect();
    assert_eq!(names, [(&json!("bankchurn"), &json!("churn")), (&json!("bankchurn-raw"), &Value::Null)]);
}

#[test]
fn health_and_readiness_are_told_on_the_public_listener() {
    let host = plus("").start();
    for (path, expected) in [("/health", json!({"status": "ok"})), ("/ready", json!({"ready": true}))] {
        let answer = host.get(path);
        assert_eq!((answer.status, answer.json()), (200, expected), "{path}");
        let wrong = host.post(path, "{}");
        assert_eq!((wrong.status, wrong.header("allow")), (405, Some("GET, HEAD")), "{path}");
    }
    assert_eq!(host.admin_get("/health").json(), json!({"status": "ok"}));
    assert_eq!(host.admin_get("/ready").status, 404, "readiness belongs to the public listener");
    host.get("/admin/policy").refused(404, "not_found", &["no route GET /admin/policy"]);
}

#[test]
fn requests_are_counted_by_model_version_and_code_and_errors_by_kind() {
    let host = plus("").start();
    let before = host.metric("hostler_errors_total{kind=\"invalid_input\"}");
    assert_eq!(before, 0.0);
    for _ in 0..3 {
        assert_eq!(host.predict("plus", json!([1.0])).status, 200);
    }
    host.predict("plus", json!("x")).refused(400, "invalid_input", &["input \"x\""]);
    host.post("/predict", "{").refused(400, "invalid_input", &["not what this path takes"]);
    host.predict("no-such-model", json!([1.0])).refused(404, "not_found", &["no-such-model"]);
    host.post("/v2/models/another-name/infer", "{}");
    let body = json!({"model": "plus", "items": [{"data": [1]}, {"data": "x"}, {"data": "y"}]});
    assert_eq!(host.post("/predict/batch", body.to_string()).status, 200);
    for (sample, expected) in [
        (&*requests("plus", "1", 200), 4.0),
        (&requests("plus", "1", 400), 1.0),
        (&requests("_unknown", "_unknown", 400), 1.0),
        (&requests("_unknown", "_unknown", 404), 2.0),
        // Single requests, and the items of the batch.
        ("hostler_errors_total{kind=\"invalid_input\"}", 4.0),
        ("hostler_errors_total{kind=\"not_found\"}", 2.0),
        ("hostler_request_duration_seconds_count{model=\"plus\",version=\"1\"}", 5.0),
        ("hostler_request_duration_seconds_bucket{model=\"plus\",version=\"1\",le=\"+Inf\"}", 5.0),
    ] {
        assert_eq!(host.metric(sample), expected, "{sample}");
    }
    let text = host.admin_get("/metrics").text();
    for name in ["no-such-model", "another-name"] {
        assert!(!text.contains(name), "a name from a request became a label:\n{text}");
    }
    let seconds = host.metric("hostler_request_duration_seconds_sum{model=\"plus\",version=\"1\"}");
    assert!(seconds > 0.0 && seconds < 60.0, "{seconds}");
}

#[test]
fn metrics_are_the_same_on_both_listeners() {
    let host = churn::setup("").start();
    assert_eq!(host.predict("bankchurn", churn::rows()[0].0.clone()).status, 200);
    // The start is counted concurrently with the first requests.
    let counted = || (host.metric("hostler_reloads_total{outcome=\"applied\"}") == 1.0).then_some(());
    eventually("the start to be counted", counted, || host.log());
    let (public, admin) = (host.get("/metrics"), host.admin_get("/metrics"));
    for answer in [&public, &admin] {
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4"));
    }
    // Metrics that change over time without any request.
    let moving = ["hostler_uptime_seconds ", "hostler_http_connections "];
    let still = |text: &str| {
        let kept = text.lines().filter(|line| !moving.iter().any(|name| line.starts_with(name)));
        kept.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(still(&public.text()), still(&admin.text()));
    for name in [
        "hostler_requests_total",
        "hostler_request_duration_seconds",
        "hostler_executor_workers",
        "hostler_executor_busy",
        "hostler_executor_inflight",
        "hostler_executor_queue_length",
        "hostler_executor_queue_capacity",
        "hostler_executor_queue_wait_seconds",
        "hostler_executor_timeouts_total",
        "hostler_executor_overloaded_total",
        "hostler_executor_overdue_total",
        "hostler_plugin_calls_total",
        "hostler_plugin_traps_total",
        "hostler_plugin_instantiate_seconds",
        "hostler_plugin_instances",
        "hostler_reloads_total",
        "hostler_policy_generation",
        "hostler_policy_stale",
        "hostler_build_info",
        "hostler_http_connections",
        "hostler_access_log_dropped_total",
        "hostler_log_dropped_total",
        "hostler_uptime_seconds",
    ] {
        assert!(public.text().contains(&format!("# HELP {name} ")), "{name} is missing");
        assert!(public.text().contains(&format!("# TYPE {name} ")), "{name} is missing");
    }
}

#[test]
fn gauges_follow_an_executor_while_it_works_and_when_it_rests() {
    let manifest = "[executors.onnx]\nworkers = 1\nqueue = 5\n[models.loop]\npath = \"loop.onnx\"\n";
    let host = Setup::new(manifest).file("loop.onnx", model("loop")).start();
    let gauges = |host: &Host| {
        ["workers", "busy", "inflight", "queue_length", "queue_capacity"]
            .map(|gauge| host.metric(&executor("onnx", gauge)))
    };
    assert_eq!(gauges(&host), [1.0, 0.0, 0.0, 0.0, 5.0]);
    let long = json!({"model": "loop", "data": {"n": [1_000_000_000]}}).to_string();
    let request =
        format!("POST /predict HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{long}", long.len());
    let mut clients: Vec<_> = (0..3).map(|_| host.client()).collect();
    let wait_for = |expected: [f64; 5]| {
        let what = format!("the gauges {expected:?}");
        eventually(&what, || (gauges(&host) == expected).then_some(()), || format!("{:?}", gauges(&host)));
    };
    clients[0].send(request.as_bytes()).unwrap();
    wait_for([1.0, 1.0, 1.0, 0.0, 5.0]);
    for client in &mut clients[1..] {
        client.send(request.as_bytes()).unwrap();
    }
    wait_for([1.0, 1.0, 3.0, 2.0, 5.0]);
    let executors = host.policy()["executors"].clone();
    assert_eq!((&executors["onnx"]["busy"], &executors["onnx"]["inflight"]), (&json!(1), &json!(3)));
    // The queued requests first: otherwise the worker that the running request frees would start
    // them.
    clients[1..].iter_mut().for_each(super::support::client::Client::leave);
    wait_for([1.0, 1.0, 1.0, 0.0, 5.0]);
    clients[0].leave();
    wait_for([1.0, 0.0, 0.0, 0.0, 5.0]);
    assert_eq!(host.predict("loop", json!({"n": [1]})).status, 200);
    let waited = host.metric("hostler_executor_queue_wait_seconds_count{executor=\"onnx\"}");
    assert_eq!(waited, 2.0, "only the first of the three and the last were ever started");
}

#[test]
fn the_access_log_has_one_line_for_each_request() {
    let host = churn::setup("").start();
    let ask = |id: &str, path: &str, body: &Value| {
        let headers = [("x-request-id", id), ("content-type", "application/json")];
        host.client().request("POST", path, &headers, body.to_string().as_bytes());
        host.access_log(id)
    };
    let record = churn::rows()[0].0.clone();
    let keys = |line: &Value| line.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");

    let line = ask("good", "/predict", &json!({"model": "bankchurn", "data": record}));
    assert_eq!(
        keys(&line),
        "executor generation id model ms protocol queue_ms service_ms status ts version",
        "{line}"
    );
    for (key, expected) in [
        ("protocol", json!("plain")),
        ("model", json!("bankchurn")),
        ("version", json!("1")),
        ("executor", json!("onnx")),
        ("generation", json!(1)),
        ("status", json!(200)),
    ] {
        assert_eq!(line[key], expected, "{line}");
    }
    let ms = |key: &str| line[key].as_f64().unwrap();
    assert!(ms("ms") > 0.0 && ms("service_ms") > 0.0 && ms("queue_ms") >= 0.0, "{line}");
    assert!(ms("ms") >= ms("service_ms"), "the whole is no less than its part: {line}");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((now - ms("ts")).abs() < 60.0, "{line}");

    let line = ask("faulty", "/predict", &json!({"model": "bankchurn", "data": {}}));
    assert_eq!(
        (&line["status"], &line["kind"], &line["plugin"]),
        (&json!(400), &json!("invalid_input"), &json!("churn"))
    );
    assert!(line["error"].as_str().unwrap().contains("credit_score: expected"), "{line}");

    let line = ask("stranger", "/predict", &json!({"model": "nobody", "data": 1}));
    assert_eq!(keys(&line), "error generation id kind ms protocol queue_ms service_ms status ts");
    assert_eq!((&line["status"], &line["kind"]), (&json!(404), &json!("not_found")));

    let line = ask("tensors", "/v2/models/bankchurn/infer", &json!({"inputs": []}));
    assert_eq!((&line["protocol"], &line["status"]), (&json!("oip"), &json!(400)));
    assert_eq!(ask("many", "/predict/batch", &json!({"model": "bankchurn", "items": []}))["status"], 200);

    let lines = host.stdout();
    let of = |id: &str| lines.iter().filter(|line| line.contains(&format!("\"id\":\"{id}\""))).count();
    assert_eq!(["good", "faulty", "stranger", "tensors", "many"].map(of), [1; 5]);
}

#[test]
fn the_access_log_can_be_switched_off() {
    for (key, written) in [("", true), ("access_log = true", true), ("access_log = false", false)] {
        let mut host = plus(&format!("[server]\n{key}")).start();
        let headers = [("x-request-id", "asked")];
        let answer = host.client().request("POST", "/predict", &headers, br#"{"model":"plus","data":[1]}"#);
        assert_eq!(answer.status, 200);
        if written {
            assert_eq!(host.access_log("asked")["status"], 200);
        } else {
            host.signal("TERM");
            assert!(host.wait().success());
            assert!(!host.stdout().join("\n").contains("asked"), "{key}");
        }
    }
}

/// Reads the samples of `/metrics` with a strict parser.
fn samples(host: &Host) -> exposition::Samples {
    exposition::read(&host.get("/metrics").text())
}

/// Returns the value of a series by its name and all of its labels.
fn value(host: &Host, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let labels = labels.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect();
    samples(host).get(&(name.to_owned(), labels)).copied()
}

#[test]
fn plugins_of_every_role_and_language_have_metrics_with_labels() {
    let manifest = "[plugins.hostile]\npath = \"hostile.wasm\"\n[models.sync]\nplugin = \"hostile\"\n\
                    transformer = \"hostile\"\n[plugins.repeat]\npath = \"repeat.wasm\"\nconfig = { meter = \"1\" }\n\
                    [models.repeat]\nplugin = \"repeat\"\n[plugins.py]\npath = \"py.wasm\"\n[models.py]\n\
                    plugin = \"py\"\n[plugins.js]\npath = \"js.wasm\"\n[models.js]\nplugin = \"js\"\n";
    let host = Setup::new(manifest)
        .file("hostile.wasm", plugin("hostile"))
        .file("repeat.wasm", plugin("repeat"))
        .file("py.wasm", plugin("meter-py"))
        .file("js.wasm", plugin("meter-js"))
        .start();
    for _ in 0..2 {
        let body = json!({"model": "sync", "data": 1, "parameters": {"do": "meter"}});
        assert_eq!(host.post("/predict", body.to_string()).status, 200);
    }
    for place in ["preprocess", "predict", "postprocess"] {
        let labels = [("place", place), ("plugin", "hostile")];
        assert_eq!(value(&host, "hostler_plugin_counter_places_total", &labels), Some(2.0), "{place}");
    }
    streaming::ask(&host, &streaming::request(&[0], 0, json!({})));
    for place in ["initialize", "execute"] {
        let labels = [("odd", "a\"b\\c\nd é"), ("place", place), ("plugin", "repeat")];
        assert_eq!(value(&host, "hostler_plugin_counter_calls_total", &labels), Some(1.0), "{place}");
        let labels = [("place", place), ("plugin", "repeat")];
        assert_eq!(value(&host, "hostler_plugin_gauge_last", &labels), Some(1.5), "{place}");
    }
    let bucket =
        |le| value(&host, "hostler_plugin_histogram_spread_bucket", &[("le", le), ("plugin", "repeat")]);
    assert_eq!(["0.5", "1", "+Inf"].map(bucket), [Some(0.0), Some(2.0), Some(2.0)]);
    for language in ["py", "js"] {
        let message = json!({"message": ["abc", "d"]});
        let answer = host.predict(language, message.clone());
        assert_eq!(answer.status, 200, "{language}: {}", answer.text());
        let own = [("plugin", language)];
        let labels = [("model", language), ("plugin", language)];
        assert_eq!(value(&host, "hostler_plugin_counter_answers_total", &labels), Some(1.0), "{language}");
        assert_eq!(value(&host, "hostler_plugin_gauge_elements", &own), Some(2.0), "{language}");
        assert_eq!(value(&host, "hostler_plugin_histogram_lengths_sum", &own), Some(3.0), "{language}");
        let body = json!({"model": language, "data": message, "parameters": {"again": true}});
        host.post("/predict", body.to_string()).refused(
            500,
            "failed",
            &["\"answers\" is a counter", "already"],
        );
    }
    // Two plugins share one metric family.
    let text = host.get("/metrics").text();
    assert_eq!(text.matches("# TYPE hostler_plugin_counter_answers_total ").count(), 1);
}

#[test]
fn metrics_that_are_too_much_or_wrong_are_errors_and_no_traps() {
    let host = custom::setup("hostile-executor", "", "").start();
    let cases = [
        ("names", 500, "failed", "64 metrics"),
        ("series", 500, "failed", "1000 time series"),
        ("value", 500, "failed", "128 are allowed"),
        ("buckets", 500, "failed", "32 are allowed"),
        ("missing", 500, "failed", "has 1 labels (n), not 0"),
        ("name", 500, "failed", "letters, digits"),
        ("twice", 500, "failed", "is a gauge with no labels"),
        ("relabelled", 500, "failed", "cannot be a gauge with the labels b"),
        ("less", 500, "failed", "only grows"),
        ("nan", 500, "failed", "not a finite number"),
    ];
    for (number, (what, status, kind, part)) in (1..).zip(cases) {
        // Each case runs in its own generation: the metrics that one case defines would exhaust the
        // limits of the next.
        replace(&host.path("hostile-executor.wasm"), &{
            let file = std::fs::read(plugin("hostile-executor")).unwrap();
            never_seen(&file, number)
        });
        assert_eq!(host.admin_post("/admin/reload").status, 200, "{what}");
        let body = json!({"model": "asked", "data": [1.0], "parameters": {"do": "labels", "what": what}});
        let answer = host.post("/predict", body.to_string());
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
        answer.refused(status, kind, &[part]);
        samples(&host);
    }
    assert_eq!(host.metric("hostler_plugin_traps_total{plugin=\"hostile-executor\"}"), 0.0);
}

#[test]
fn what_a_plugin_counts_survives_swaps_and_goes_with_the_plugin() {
    let meter = "[plugins.hostile]\npath = \"hostile.wasm\"\n[models.sync]\nplugin = \"hostile\"\n\
                 transformer = \"hostile\"\n";
    let other = "[executors.other]\nkind = \"thread-pool\"\n[models.plus]\npath = \"plus.onnx\"\n[policy]\nplus = \"other\"\n";
    let host = Setup::new(&format!("{other}{meter}"))
        .file("hostile.wasm", plugin("hostile"))
        .file("plus.onnx", model("plus1"))
        .start();
    let count = || {
        let body = json!({"model": "sync", "data": 1, "parameters": {"do": "meter", "at": "predict"}});
        assert_eq!(host.post("/predict", body.to_string()).status, 200);
    };
    let labels = [("place", "predict"), ("plugin", "hostile")];
    let counted = || value(&host, "hostler_plugin_counter_places_total", &labels);
    count();
    let file = std::fs::read(plugin("hostile")).unwrap();
    for number in 1..=3 {
        replace(&host.path("hostile.wasm"), &never_seen(&file, number));
        assert_eq!(host.admin_post("/admin/reload").status, 200);
        assert_eq!(counted(), Some(f64::from(number)), "before the new one has counted");
        count();
    }
    assert_eq!(counted(), Some(4.0));
    assert_eq!(
        value(&host, "hostler_executor_workers", &[("executor", "other")]).map(|n| n > 0.0),
        Some(true)
    );
    // The series disappear with their plugin, and so do those of an executor that no longer exists.
    let plus = "[models.plus]\npath = \"plus.onnx\"\n";
    replace(&host.path("hostler.toml"), plus.as_bytes());
    assert_eq!(host.admin_post("/admin/reload").status, 200);
    let left = samples(&host);
    let of = |label: &str, value: &str| {
        let has = |(_, labels): &&(String, std::collections::BTreeMap<String, String>)| {
            labels.get(label).is_some_and(|known| known == value)
        };
        left.keys().filter(has).map(|(name, _)| name.clone()).collect::<Vec<_>>()
    };
    assert_eq!((of("plugin", "hostile"), of("executor", "other")), (vec![], vec![]));
    assert!(!of("executor", "onnx").is_empty());
    // After the rollback they are back, with their previous values.
    assert_eq!(host.admin_post("/admin/policy/rollback").status, 200);
    assert_eq!(counted(), Some(4.0));
    count();
    assert_eq!(counted(), Some(5.0));
}
