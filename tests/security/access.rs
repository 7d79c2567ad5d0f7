//! Access rules: who may do what, over each interface.

use crate::support::http2::{self, Http2, framed, path};
use crate::support::{Answer, Client, Host, Setup, grpc, model, plugin, replace};
use serde_json::{Value, json};
use std::process::Command;
use tonic::Code;

/// A key for tests, and its entry in a file of keys.
pub fn key(name: &str) -> (String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_hostler")).args(["key", "new", name]).output();
    let output = output.expect("it runs");
    assert!(output.status.success());
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    (text(&output.stdout).trim().to_owned(), text(&output.stderr))
}

/// Keys `app`, `other`, `reader`, `loader`, `scraper`, `ops` and one that no rule mentions.
pub struct Keys {
    pub app: String,
    pub other: String,
    pub reader: String,
    pub loader: String,
    pub scraper: String,
    pub ops: String,
    pub stranger: String,
    pub file: String,
}

impl Keys {
    pub fn make() -> Self {
        let mut file = String::new();
        let mut next = |name: &str| {
            let (key, entry) = key(name);
            file += &entry;
            key
        };
        let (app, other, reader) = (next("app"), next("other"), next("reader"));
        let (loader, scraper, ops, stranger) =
            (next("loader"), next("scraper"), next("ops"), next("stranger"));
        Keys { app, other, reader, loader, scraper, ops, stranger, file }
    }
}

pub const RULES: &str = r#"
keys = "keys.toml"

[[rules]]
who = ["key:app"]
verbs = ["predict", "jobs"]
models = ["plus", "caller"]

[[rules]]
who = ["key:other"]
verbs = ["predict", "jobs"]
models = ["plus:1"]

[[rules]]
who = ["key:reader"]
verbs = ["read"]
models = ["plus"]

[[rules]]
who = ["key:loader"]
verbs = ["load"]
models = ["minus"]

[[rules]]
who = ["key:scraper"]
verbs = ["metrics"]

[[rules]]
who = ["key:ops"]
verbs = ["predict", "jobs", "read", "load", "metrics", "admin"]
"#;

pub const MANIFEST: &str = r#"
[server]
access_rules = "access.toml"
model_control = "explicit"

[models.plus]
path = "plus.onnx"

[models.minus]
path = "plus.onnx"
"#;

fn setup(keys: &Keys, rules: &str) -> Setup {
    Setup::new(MANIFEST)
        .file("plus.onnx", model("plus1"))
        .text("keys.toml", &keys.file)
        .text("access.toml", rules)
        .grpc()
}

/// Sends a request with a key.
fn send(address: std::net::SocketAddr, method: &str, path: &str, key: &str, body: &str) -> Answer {
    let authorization = format!("Authorization: Bearer {key}");
    let headers: &[&str] = if key.is_empty() { &[] } else { &[&authorization] };
    raw(&mut Client::new(address), method, path, headers, body)
}

/// Sends a request with headers as lines.
fn raw(client: &mut Client, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
    let split =
        |line: &&'_ str| line.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
    let headers: Vec<(String, String)> = headers.iter().filter_map(split).collect();
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
    client.request(method, path, &headers, body.as_bytes())
}

fn metric(host: &Host, key: &str, name: &str) -> f64 {
    let text = send(host.admin, "GET", "/metrics", key, "").text();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("{name} in {text}")).parse().expect("a number")
}

fn predict(host: &Host, key: &str, model: &str) -> Answer {
    send(host.http, "POST", "/predict", key, &json!({"model": model, "data": [1]}).to_string())
}

fn expect(answer: &Answer, status: u16, kind: &str) {
    let body: Value = answer.json();
    assert_eq!(answer.status, status, "{body}");
    assert!(body["error"]["kind"] == kind || body["error"].is_string(), "{body}");
}

#[test]
fn each_key_may_do_what_its_rules_say_and_nothing_else() {
    let keys = Keys::make();
    let host = setup(&keys, RULES).start();
    let inference = r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}]}"#;
    let all = [&keys.app, &keys.other, &keys.reader, &keys.loader, &keys.scraper, &keys.ops, &keys.stranger];
    let names = ["app", "other", "reader", "loader", "scraper", "ops", "stranger"];
    let predict = json!({"model": "plus", "data": [1]}).to_string();
    let minus = json!({"model": "minus", "data": [1]}).to_string();
    for (method, target, body, allowed) in [
        ("POST", "/predict", &*predict, &["app", "other", "ops"][..]),
        ("POST", "/predict", &minus, &["ops"]),
        ("POST", "/predict/plus", "[1]", &["app", "other", "ops"]),
        ("POST", "/predict/%70lus", "[1]", &["app", "other", "ops"]),
        ("POST", "/predict/minus", "[1]", &["ops"]),
        ("POST", "/predict/%6Dinus", "[1]", &["ops"]),
        ("POST", "/predict/async", &predict, &["app", "other", "ops"]),
        ("POST", "/predict/async", &minus, &["ops"]),
        ("POST", "/predict/async/minus", "[1]", &["ops"]),
        ("POST", "/v2/models/plus/infer", inference, &["app", "other", "ops"]),
        ("POST", "/v2/models/minus/infer", inference, &["ops"]),
        ("POST", "/v2/models/minus/versions/1/infer", inference, &["ops"]),
        ("GET", "/v2/models/plus", "", &["reader", "ops"]),
        ("GET", "/v2/models/minus", "", &["ops"]),
        ("GET", "/v2/models/minus/config", "", &["ops"]),
        ("GET", "/v2/models/minus/stats", "", &["ops"]),
        ("GET", "/v2/models/minus/ready", "", &["ops"]),
        ("GET", "/models", "", &["reader", "ops"]),
        ("GET", "/v2", "", &["reader", "ops"]),
        ("POST", "/v2/repository/index", "", &["reader", "ops"]),
        ("GET", "/jobs", "", &["app", "other", "ops"]),
        ("GET", "/metrics", "", &["scraper", "ops"]),
    ] {
        for (key, name) in all.iter().zip(names) {
            let answer = send(host.http, method, target, key, body);
            let is_allowed = (200..300).contains(&answer.status);
            assert_eq!(is_allowed, allowed.contains(&name), "{name}: {method} {target}: {}", answer.text());
            if !is_allowed {
                expect(&answer, 403, "forbidden");
            }
        }
        let answer = send(host.http, method, target, "", body);
        expect(&answer, 401, "unauthenticated");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"), "{method} {target}");
    }
    for (target, allowed) in [("/admin/policy", &["ops"][..]), ("/metrics", &["scraper", "ops"])] {
        for (key, name) in all.iter().zip(names) {
            let answer = send(host.admin, "GET", target, key, "");
            assert_eq!(answer.status == 200, allowed.contains(&name), "{name}: {target}: {}", answer.text());
        }
        expect(&send(host.admin, "GET", target, "", ""), 401, "unauthenticated");
    }
    for target in ["/health", "/ready", "/v2/health/live", "/v2/health/ready"] {
        assert_eq!(send(host.http, "GET", target, "", "").status, 200, "{target}");
    }
    assert_eq!(send(host.admin, "GET", "/health", "", "").status, 200);
    // Lists show what may be read.
    let listed = send(host.http, "GET", "/models", &keys.reader, "").text();
    assert!(listed.contains("plus") && !listed.contains("minus"), "{listed}");
    let indexed = send(host.http, "POST", "/v2/repository/index", &keys.reader, "").text();
    assert!(indexed.contains("plus") && !indexed.contains("minus"), "{indexed}");
    // Loading, and that a refused unload changes nothing.
    expect(&send(host.http, "POST", "/v2/repository/models/minus/unload", &keys.app, ""), 403, "forbidden");
    expect(&send(host.http, "POST", "/v2/repository/models/plus/unload", &keys.loader, ""), 403, "forbidden");
    assert_eq!(send(host.http, "POST", "/v2/repository/models/minus/unload", &keys.loader, "").status, 200);
    assert_eq!(predict_status(&host, &keys.ops, "minus"), 404);
    // No hint at other models in what a client may load and what does not exist.
    let rules = RULES.replace("models = [\"minus\"]", "models = [\"plu*\"]");
    replace(&host.path("access.toml"), rules.replace("[\"key:app\"]", "[\"key:nobody\"]").as_bytes());
    host.wait_for_log(&["access rules applied", "generation=2"]);
    for act in ["load", "unload"] {
        let hint = send(host.http, "POST", &format!("/v2/repository/models/plux/{act}"), &keys.loader, "");
        assert!(hint.status == 404 && !hint.text().contains("\"plus\\\""), "{}", hint.text());
    }
    // Nothing of a key is in what the host writes.
    let written = host.log() + &host.stdout().join("\n");
    for key in all {
        assert!(!written.contains(&key[10..]), "{written}");
    }
}

fn predict_status(host: &Host, key: &str, model: &str) -> u16 {
    predict(host, key, model).status
}

#[test]
fn what_is_shown_must_be_valid() {
    let keys = Keys::make();
    let host =
        setup(&keys, &(RULES.to_owned() + "\n[[rules]]\nwho = [\"*\"]\nverbs = [\"predict\"]\n")).start();
    let body = json!({"model": "plus", "data": [1]}).to_string();
    let post = |headers: &[&str]| raw(&mut Client::new(host.http), "POST", "/predict", headers, &body);
    assert_eq!(post(&[]).status, 200, "everyone may");
    let bearer = format!("Authorization: Bearer {}", keys.app);
    let lower = format!("authorization: bearer   {}", keys.app);
    let api_key = format!("X-API-Key: {}", keys.app);
    for good in [&bearer, &lower, &api_key] {
        assert_eq!(post(&[good]).status, 200, "{good}");
    }
    let cut = &bearer[..bearer.len() - 1];
    let longer = format!("{bearer}A");
    let upper = format!("Authorization: Bearer {}", keys.app.to_uppercase());
    let basic = format!("Authorization: Basic {}", keys.app);
    let bare = format!("Authorization: {}", keys.app);
    for bad in [
        &[cut][..],
        &[&longer],
        &[&upper],
        &[&basic],
        &[&bare],
        &["Authorization: Bearer"],
        &["Authorization: Bearer hostler_"],
        &["Authorization: Bearer a.b.c"],
        &["Authorization:"],
        &["X-API-Key:"],
        &[&bearer, &api_key],
    ] {
        expect(&post(bad), 401, "unauthenticated");
    }
    assert!(metric(&host, &keys.ops, "hostler_access_refused_credentials_total") >= 11.0);
}

#[test]
fn rules_hold_over_grpc_and_within_streams() {
    let keys = Keys::make();
    let host = setup(&keys, RULES).start();
    let caller = grpc::Caller::new(&host);
    let infer = |key: &str, model: &str| {
        let mut request = tonic::Request::new(grpc::floats(model, &[1.0]));
        if !key.is_empty() {
            request.metadata_mut().insert("authorization", format!("Bearer {key}").parse().expect("ASCII"));
        }
        caller.infer(request).map_err(|status| status.code())
    };
    assert!(infer(&keys.app, "plus").is_ok());
    assert_eq!(infer(&keys.app, "minus").unwrap_err(), Code::PermissionDenied);
    assert_eq!(infer(&keys.app, "gone").unwrap_err(), Code::PermissionDenied, "it does not say what exists");
    assert_eq!(infer(&keys.ops, "gone").unwrap_err(), Code::NotFound);
    assert_eq!(infer(&keys.reader, "plus").unwrap_err(), Code::PermissionDenied);
    assert_eq!(infer("", "plus").unwrap_err(), Code::Unauthenticated);
    assert_eq!(infer("hostler_x", "plus").unwrap_err(), Code::Unauthenticated);
    let connection = Http2::connect(&host);
    let status = |method: &str, key: &str, message: Vec<u8>| {
        connection.run(async {
            let authorization = format!("Bearer {key}");
            let headers = [("authorization", &*authorization)];
            let mut call = http2::begin(&connection.sender, &path(method), &headers).await.unwrap();
            let mut body = vec![0];
            body.extend((message.len() as u32).to_be_bytes());
            body.extend(message);
            call.body.send_data(body.into(), true).unwrap();
            let reply = http2::finish(call.response.await.unwrap()).await.unwrap();
            reply.raw("grpc-status").to_owned()
        })
    };
    // A message whose first field is the name of the model.
    let named = |field: u8| [&[field << 3 | 2, 5][..], b"minus"].concat();
    for (method, field, key, expected) in [
        ("ModelMetadata", 1, &keys.reader, "7"),
        ("ModelMetadata", 1, &keys.ops, "0"),
        ("ModelConfig", 1, &keys.reader, "7"),
        ("ModelReady", 1, &keys.reader, "7"),
        ("ModelStatistics", 1, &keys.reader, "7"),
        ("RepositoryModelUnload", 2, &keys.reader, "7"),
        ("RepositoryModelLoad", 2, &keys.app, "7"),
        ("ServerLive", 1, &keys.stranger, "0"),
        ("ServerMetadata", 1, &keys.stranger, "7"),
        ("RepositoryIndex", 1, &keys.stranger, "7"),
    ] {
        let message = if method.starts_with("Server") || method == "RepositoryIndex" {
            Vec::new()
        } else {
            named(field)
        };
        assert_eq!(status(method, key, message), expected, "{method}");
    }
    // A key that is revoked ends the rights of a stream that is open.
    connection.run(async {
        let authorization = format!("Bearer {}", keys.app);
        let headers = [("authorization", &*authorization)];
        let mut call = http2::begin(&connection.sender, &path("ModelStreamInfer"), &headers).await.unwrap();
        call.body.send_data(framed(&grpc::floats("plus", &[1.0])), false).unwrap();
        let mut answers = call.response.await.unwrap();
        let first = answers.body_mut().data().await.unwrap().unwrap();
        assert!(!String::from_utf8_lossy(&first).contains("may not"), "{first:?}");
        let without =
            keys.file.split("[keys.").filter(|entry| !entry.starts_with("\"app\"")).collect::<Vec<_>>();
        replace(&host.path("keys.toml"), without.join("[keys.").as_bytes());
        tokio::task::block_in_place(|| host.wait_for_log(&["access rules applied", "generation=2"]));
        call.body.send_data(framed(&grpc::floats("plus", &[1.0])), false).unwrap();
        let second = answers.body_mut().data().await.unwrap().unwrap();
        assert!(String::from_utf8_lossy(&second).contains("the host does not know this key"), "{second:?}");
    });
}

#[test]
fn jobs_belong_to_who_submitted_them() {
    let keys = Keys::make();
    let host = setup(&keys, RULES).start();
    let body = json!({"model": "plus", "data": [1]}).to_string();
    let idempotent = |key: &str| {
        let authorization = format!("Authorization: Bearer {key}");
        let headers = [&*authorization, "Idempotency-Key: one"];
        let answer = raw(&mut Client::new(host.http), "POST", "/predict/async", &headers, &body);
        assert_eq!(answer.status, 202, "{}", answer.text());
        answer.json()["job_id"].as_str().expect("an id").to_owned()
    };
    let job = idempotent(&keys.app);
    assert_eq!(idempotent(&keys.app), job, "the same key of the same owner");
    assert_ne!(idempotent(&keys.other), job, "the same key of another owner");
    let done = send(host.http, "GET", &format!("/jobs/{job}?wait_ms=20000"), &keys.app, "");
    assert_eq!(done.json()["state"], "succeeded", "{}", done.text());
    for (method, end) in
        [("GET", ""), ("GET", "/result"), ("POST", "/cancel"), ("POST", "/retry"), ("DELETE", "")]
    {
        let target = format!("/jobs/{job}{end}");
        let answer = send(host.http, method, &target, &keys.other, "");
        expect(&answer, 404, "not_found");
        let gone = send(host.http, method, &format!("/jobs/gone{end}"), &keys.other, "");
        let same =
            |answer: &Answer| answer.json()["error"]["message"].as_str().expect("a message").to_owned();
        assert_eq!(same(&answer).replace(&job, "gone"), same(&gone), "{method} {end}");
        expect(&send(host.http, method, &target, &keys.reader, ""), 403, "forbidden");
        expect(&send(host.http, method, &target, "", ""), 401, "unauthenticated");
    }
    let listed =
        |key: &str| send(host.http, "GET", "/jobs", key, "").json()["jobs"].as_array().expect("jobs").len();
    assert_eq!((listed(&keys.app), listed(&keys.other), listed(&keys.ops)), (1, 1, 2));
    assert_eq!(send(host.http, "GET", &format!("/jobs/{job}"), &keys.ops, "").status, 200, "an operator");
}

#[test]
fn a_plugin_calls_models_on_its_own_behalf() {
    let keys = Keys::make();
    let manifest = MANIFEST.to_owned()
        + "[plugins.caller]\npath = \"caller.wasm\"\n[models.caller]\nplugin = \"caller\"\n";
    let allowed = RULES.to_owned()
        + "\n[[rules]]\nwho = [\"plugin:caller\"]\nverbs = [\"predict\"]\nmodels = [\"minus\"]\n";
    let host = Setup::new(&manifest)
        .file("plus.onnx", model("plus1"))
        .file("caller.wasm", plugin("caller"))
        .text("keys.toml", &keys.file)
        .text("access.toml", RULES)
        .start();
    let call = |model: &str| {
        let body = json!({"model": "caller", "data": [1.0], "parameters": {"to": model}}).to_string();
        send(host.http, "POST", "/predict", &keys.app, &body)
    };
    let refused = call("minus");
    assert_ne!(refused.status, 200, "{}", refused.text());
    assert!(refused.text().contains("plugin:caller may not"), "{}", refused.text());
    replace(&host.path("access.toml"), allowed.as_bytes());
    host.wait_for_log(&["access rules applied", "generation=2"]);
    assert_eq!(call("minus").status, 200, "although key:app may not: {}", call("minus").text());
    assert_ne!(call("plus").status, 200, "although key:app may");
}

#[test]
fn rules_change_at_once_and_a_bad_file_keeps_the_old_ones() {
    let keys = Keys::make();
    let host = setup(&keys, RULES).start();
    let mut kept = host.client();
    let authorization = format!("Authorization: Bearer {}", keys.app);
    let body = json!({"model": "plus", "data": [1]}).to_string();
    let mut ask = || raw(&mut kept, "POST", "/predict", &[&authorization], &body).status;
    assert_eq!(ask(), 200);
    for (bad, part) in [
        ("", "have no rule"),
        ("[[rules]]\nwho = [\"ci\"]\nverbs = [\"predict\"]\n", "line 2: who has \"ci\""),
        ("[[rules]]\nwho = [\"*\"]\nverbs = [\"predikt\"]\n", "did you mean"),
        (
            "[[rules]]\nwho = [\"*\"]\nverbs = [\"predict\"]\nmodels = [\"a*b\"]\n",
            "a * that is not its last character",
        ),
        ("keys = \"gone.toml\"\n[[rules]]\nwho = [\"*\"]\nverbs = [\"predict\"]\n", "gone.toml"),
        ("[[rulez]]\n", "rulez"),
    ] {
        replace(&host.path("access.toml"), bad.as_bytes());
        host.wait_for_log(&["access rules rejected", part]);
        assert_eq!(ask(), 200, "{bad}");
        assert_eq!(metric(&host, &keys.ops, "hostler_access_stale"), 1.0);
    }
    let without = RULES.replace("[\"key:app\"]", "[\"key:nobody\"]");
    replace(&host.path("access.toml"), without.as_bytes());
    host.wait_for_log(&["access rules applied", "generation=2"]);
    assert_eq!(ask(), 403, "on the same connection");
    assert_eq!(metric(&host, &keys.ops, "hostler_access_stale"), 0.0);
    assert_eq!(metric(&host, &keys.ops, "hostler_access_generation"), 2.0);
    // A rollback of the policy does not bring the old rules back.
    replace(
        &host.path("hostler.toml"),
        (MANIFEST.to_owned() + "[models.third]\npath = \"plus.onnx\"\n").as_bytes(),
    );
    crate::support::eventually(
        "the new policy",
        || (predict_status(&host, &keys.ops, "third") == 200).then_some(()),
        || host.log(),
    );
    assert_eq!(send(host.admin, "POST", "/admin/policy/rollback", &keys.ops, "").status, 200);
    assert_eq!(ask(), 403);
}

#[test]
fn a_bad_file_at_start_lets_nobody_in_until_it_is_mended() {
    let keys = Keys::make();
    let host = setup(&keys, "[[rules]]\n").start();
    host.wait_for_log(&["access rules rejected", "all requests are refused"]);
    let answer = predict(&host, &keys.ops, "plus");
    expect(&answer, 403, "forbidden");
    assert!(answer.text().contains("cannot load its access rules"), "{}", answer.text());
    expect(&send(host.admin, "GET", "/admin/policy", &keys.ops, ""), 403, "forbidden");
    assert_eq!(send(host.http, "GET", "/health", "", "").status, 200);
    for path in ["/ready", "/v2/health/ready"] {
        assert_eq!(send(host.http, "GET", path, "", "").status, 503, "{path}");
    }
    replace(&host.path("access.toml"), RULES.as_bytes());
    host.wait_for_log(&["access rules applied", "generation=1"]);
    assert_eq!(predict_status(&host, &keys.ops, "plus"), 200);
    assert_eq!(send(host.http, "GET", "/ready", "", "").status, 200);
}

#[test]
fn a_check_says_what_a_key_may_do() {
    let keys = Keys::make();
    let setup = setup(&keys, RULES).text("app.key", &(keys.app.clone() + "\n")).text("bad.key", "hostler_no");
    let (code, out, err) = setup.run(&["check", "--quick", "--as-key-file", "app.key"]);
    assert_eq!(code, 0, "{err}");
    for line in ["key:app:", "  predict: plus:1", "  read: no model", "  admin: no"] {
        assert!(out.lines().any(|shown| shown == line), "{out}\nlacks {line}");
    }
    let (code, _, err) = setup.run(&["check", "--quick", "--as-key-file", "bad.key"]);
    assert!(code != 0 && err.contains("the host does not know this key"), "{err}");
}
