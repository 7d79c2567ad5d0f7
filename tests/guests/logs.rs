//! Tests what a guest's output becomes in the log: each request has a budget of its own, its lines
//! carry its id, and the end of its stderr is never lost.

use crate::support::custom;
use crate::support::grpc;
use crate::support::slow;
use crate::support::streaming::{request, setup};
use crate::support::{Client, Host, Setup, plugin};
use serde_json::{Value, json};

/// Starts a host whose log has JSON lines.
fn start(setup: Setup) -> Host {
    setup.env("HOSTLER_LOG_FORMAT", "json").start()
}

/// Sends a request with this id, and returns the status.
fn ask(client: &mut Client, path: &str, id: &str, body: &Value) -> u16 {
    client.request("POST", path, &[("x-request-id", id)], body.to_string().as_bytes()).status
}

fn chat(client: &mut Client, id: &str, deed: &str, lines: u32) {
    ask(client, "/predict/stream", id, &request(&[0], 0, json!({"do": deed, "lines": lines})));
}

/// Returns the fields of all log lines of this request, once one of them contains `last`.
fn log_of(host: &Host, id: &str, last: &str) -> Vec<Value> {
    host.wait_for_log(&[&format!("\"request\":\"{id}\""), last]);
    let log = host.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.map(|line| line["fields"].clone()).filter(|fields| fields["request"] == id).collect()
}

fn messages(fields: &[Value]) -> Vec<&str> {
    fields.iter().filter_map(|fields| fields["message"].as_str()).collect()
}

#[test]
fn each_request_in_a_shared_instance_has_its_own_log() {
    let host = start(setup("log_kb = 1", ""));
    // Together many times `log_kb`.
    std::thread::scope(|scope| {
        for client in 0..8 {
            let host = &host;
            scope.spawn(move || {
                let mut connection = host.client();
                (0..20).for_each(|round| chat(&mut connection, &format!("c{client}-r{round}"), "chat", 3));
            });
        }
    });
    for client in 0..8 {
        for round in 0..20 {
            let id = format!("c{client}-r{round}");
            let fields = log_of(&host, &id, &format!("log 0 of {id} again."));
            let lines = messages(&fields);
            // Three lines on each way, a pause, and another one.
            for way in ["stdout", "stderr", "log"] {
                let wanted = ["0 of ID.", "1 of ID.", "2 of ID.", "0 of ID again."];
                let wanted = wanted.map(|line| format!("{way} {}", line.replace("ID", &id)));
                let found = lines.iter().filter(|line| line.starts_with(way));
                assert!(found.eq(wanted.iter()), "{lines:?}");
            }
            assert_eq!(lines.len(), 12, "{lines:?}");
        }
    }
    assert!(!host.log().contains("plugin log truncated"), "{}", host.log());
}

#[test]
fn the_last_words_of_a_lost_shared_instance_are_those_of_the_request_at_fault() {
    let host = start(setup("log_kb = 1", ""));
    let mut client = host.client();
    for round in 0..3 {
        // Also ends the pause after a lost instance.
        chat(&mut client, "innocent", "chat", 100);
        let id = format!("guilty-{round}");
        chat(&mut client, &id, "last-words", 100);
        let fields = log_of(&host, &id, "\"detail\"");
        let words = format!("last words of {id}");
        let details: Vec<&str> = fields.iter().filter_map(|fields| fields["detail"].as_str()).collect();
        assert!(details.iter().any(|detail| detail.contains(&words)), "{fields:?}");
        assert!(!details.iter().any(|detail| detail.contains("innocent")), "{details:?}");
        assert!(messages(&fields).iter().any(|line| line.contains(&words)), "also as a line: {fields:?}");
        assert!(messages(&fields).iter().any(|line| line.contains("more than log_kb in one call")));
    }
}

#[test]
fn what_a_shared_instance_writes_outside_of_requests_has_a_budget_of_its_own() {
    let host = start(setup("log_kb = 1", "[plugins.repeat.config]\ninitialize_lines = \"1000\"\n"));
    host.wait_for_log(&["plugin log truncated: more than log_kb in one minute outside of requests"]);
    let bytes: usize = host.log().lines().filter(|line| line.contains("of initialize.")).map(|_| 20).sum();
    assert!((500..=1400).contains(&bytes), "{bytes} bytes\n{}", host.log());
    chat(&mut host.client(), "after", "chat", 1);
    assert_eq!(log_of(&host, "after", "log 0 of after again.").len(), 6);
}

#[test]
fn a_traceback_in_python_is_logged_however_often() {
    let manifest =
        "[plugins.repeat]\npath = \"repeat.wasm\"\nlog_kb = 1\n\n[models.repeat]\nplugin = \"repeat\"\n";
    let host = start(Setup::new(manifest).file("repeat.wasm", plugin("repeat-py")));
    let mut client = host.client();
    for round in 0..20 {
        let id = format!("python-{round}");
        let body = request(&[0], 0, json!({"do": "trap"}));
        assert_eq!(ask(&mut client, "/predict/stream", &id, &body), 500);
        let fields = log_of(&host, &id, "KeyError: 'asked to trap'");
        let lines = messages(&fields);
        assert!(lines.iter().any(|line| line.contains("Traceback (most recent call last)")), "{lines:?}");
    }
}

#[test]
fn the_last_words_of_every_role_outlive_the_budget() {
    let plugin_of = |name: &str, instances: &str| {
        format!(
            "[plugins.{name}]\npath = \"hostile.wasm\"\nlog_kb = 1\ninstances = \"{instances}\"\n\n\
             [models.{name}]\nplugin = \"{name}\"\ntransformer = \"{name}\"\n\n"
        )
    };
    let host = start(slow::setup(&(plugin_of("fresh", "fresh") + &plugin_of("reused", "reused"))));
    let mut client = host.client();
    for model in ["fresh", "reused"] {
        for at in ["preprocess", "predict", "postprocess"] {
            for round in 0..2 {
                let id = format!("{model}-{at}-{round}");
                let body =
                    json!({"model": model, "data": {"a": 1}, "parameters": {"do": "last-words", "at": at}});
                assert_eq!(ask(&mut client, "/predict", &id, &body), 500);
                has_last_words(&host, &id);
            }
        }
    }
    let executor = custom::setup("hostile-executor", "", "");
    let manifest = std::fs::read_to_string(executor.path("hostler.toml")).expect("the manifest");
    let manifest = manifest.replacen("instances = \"reused\"\n", "instances = \"reused\"\nlog_kb = 1\n", 1);
    let host = start(executor.text("hostler.toml", &manifest));
    let body = json!({"model": "asked", "data": [1.0], "parameters": {"do": "last-words", "count": 1000}});
    assert_eq!(ask(&mut host.client(), "/predict", "executor", &body), 500);
    has_last_words(&host, "executor");
}

/// Checks that the log of a request has its last words, in its own line and in the detail of the
/// failure, and not all of its chatter.
fn has_last_words(host: &Host, id: &str) {
    let fields = log_of(host, id, "\"detail\"");
    let (lines, words) = (messages(&fields), format!("last words of {id}"));
    assert!(lines.iter().any(|line| line.contains(&words)), "{lines:?}");
    assert!(fields.iter().any(|fields| fields["detail"].as_str().is_some_and(|text| text.contains(&words))));
    let chatter = lines.iter().filter(|line| line.contains("chatter")).count();
    assert!((10..500).contains(&chatter), "{chatter} lines of chatter");
}

#[test]
fn the_id_of_a_client_cannot_pass_as_lines() {
    use hostler::proto::inference::InferParameter;
    use hostler::proto::inference::infer_parameter::ParameterChoice;
    let host = slow::setup(slow::MODELS).grpc().start();
    let caller = grpc::Caller::new(&host);
    let raw = vec![1, 0, 0, 0, b'a', 1, 0, 0, 0, b'b'];
    let call = grpc::request("hostile", vec![grpc::input("data", "BYTES", &[2])], vec![raw]);
    let mut call = grpc::named(call, "honest\r\n2026-01-01T00:00:00Z ERROR forged \u{1b}[31m\u{202e}");
    for (name, value) in [("do", "trap"), ("at", "predict")] {
        let parameter_choice = Some(ParameterChoice::StringParam(value.into()));
        call.parameters.insert(name.into(), InferParameter { parameter_choice });
    }
    caller.infer(call).expect_err("it traps");
    // An id with such characters is not used.
    host.wait_for_log(&["plugin \"hostile\" panicked", "request=\""]);
    let written = host.log() + &host.stdout().join("\n");
    assert!(!written.contains("honest") && !written.contains("forged"), "{written}");
    assert!(!written.contains(['\r', '\u{1b}', '\u{202e}']), "{written:?}");
}

/// Returns the lines that operators see of a plugin, after this one.
fn tail(host: &Host, plugin: &str, query: &str) -> Value {
    host.admin_get(&format!("/admin/plugins/{plugin}/log{query}")).json()
}

#[test]
fn operators_see_the_last_lines_of_a_plugin_and_wait_for_more() {
    let host = start(setup("log_kb = 64", ""));
    let plugin = "repeat";
    assert_eq!(tail(&host, plugin, ""), json!({"lines": [], "next": 0, "lost": 0}));
    let waiting = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| tail(&host, plugin, "?after=0&wait_ms=30000"));
        chat(&mut host.client(), "first", "chat", 3);
        waiting.join().unwrap()
    });
    let first = &waiting["lines"][0];
    assert_eq!((&first["seq"], &first["request"]), (&json!(1), &json!("first")), "{waiting}");
    log_of(&host, "first", "log 0 of first again.");
    let all = tail(&host, plugin, "");
    let lines = all["lines"].as_array().unwrap();
    assert_eq!((lines.len(), &all["next"]), (12, &json!(12)), "{all}");
    let levels: Vec<&str> = lines.iter().filter_map(|line| line["level"].as_str()).collect();
    assert!(levels.contains(&"INFO") && levels.contains(&"WARN"), "{levels:?}");
    // What was written meanwhile and is not kept any more is counted.
    chat(&mut host.client(), "many", "chat", 100);
    log_of(&host, "many", "log 0 of many again.");
    let later = tail(&host, plugin, "?after=12");
    assert_eq!(later["lines"].as_array().unwrap().len(), 200, "{later}");
    assert_eq!(later["lost"], 303 - 200, "{later}");
    for (path, status) in [
        ("/admin/plugins/none/log", 404),
        ("/admin/plugins/repeat/log?after=x", 400),
        ("/admin/plugins/repeat/log?since=1", 400),
    ] {
        assert_eq!(host.admin_get(path).status, status, "{path}");
    }
}
