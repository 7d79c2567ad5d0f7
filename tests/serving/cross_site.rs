//! Requests that browsers send on behalf of pages of other sites: refused where they would change
//! or reveal something, and answered where any client may ask.

use crate::support::{Answer, Client, Host, Setup, model};
use serde_json::{Value, json};
use std::net::SocketAddr;

const GOOD: &str = r#"{"model":"plus","data":[1]}"#;
const PREDICT: (&str, &str) = ("POST", "/predict");

/// The routes of the public listener that only the host's own pages may call.
const CONTROL: [(&str, &str, &str); 8] = [
    ("POST", "/v2/repository/models/plus/unload", "{}"),
    ("POST", "/v2/repository/models/plus/load", "{}"),
    ("POST", "/v2/repository/index", "{}"),
    ("POST", "/predict/async", GOOD),
    ("POST", "/predict/async/batch", r#"{"model":"plus","items":[{"data":[1]}]}"#),
    ("GET", "/jobs", ""),
    ("DELETE", "/jobs/1", ""),
    ("POST", "/jobs/1/cancel", ""),
];

const ADMIN: [(&str, &str); 5] = [
    ("POST", "/admin/policy/rollback"),
    ("POST", "/admin/policy/promote"),
    ("POST", "/admin/reload"),
    ("GET", "/admin/reload"),
    ("GET", "/admin/policy"),
];

fn start(server: &str) -> Host {
    let manifest =
        format!("[server]\nmodel_control = \"explicit\"\n{server}\n[models.plus]\npath = \"plus.onnx\"\n");
    Setup::new(&manifest).file("plus.onnx", model("plus1")).start()
}

fn ask(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    Client::new(address).request(method, path, headers, body.as_bytes())
}

/// Sends a request with the given `Host` headers: one, several or none.
fn raw(address: SocketAddr, method: &str, target: &str, hosts: &[&str], body: &str) -> Answer {
    let hosts: String = hosts.iter().map(|host| format!("host: {host}\r\n")).collect();
    let mut client = Client::new(address);
    let length = body.len();
    let text = format!("{method} {target} HTTP/1.1\r\n{hosts}content-length: {length}\r\n\r\n{body}");
    client.send(text.as_bytes()).expect("it can be sent");
    client.receive().expect("an answer")
}

fn forbidden(answer: &Answer, part: &str) {
    assert_eq!(answer.status, 403, "{}", answer.text());
    let error = answer.json()["error"].clone();
    let message = match &error {
        Value::String(message) => message.clone(),
        error => {
            assert_eq!(error["kind"], "forbidden", "{error}");
            error["message"].as_str().unwrap_or_default().to_owned()
        }
    };
    assert!(message.contains(part), "{message}\nlacks {part}");
}

fn is_allowed(answer: &Answer) -> bool {
    answer.status != 403
}

#[test]
fn a_page_of_another_site_changes_nothing() {
    let host = start("");
    let generation = host.generation();
    let foreign: [&[(&str, &str)]; 9] = [
        &[("origin", "http://evil.example")],
        &[("origin", "null")],
        &[("origin", "")],
        &[("origin", "http://localhost:1")],
        &[("origin", "http://127.0.0.1.evil.example")],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site")],
        &[("sec-fetch-site", "anything")],
        // A form: the browser sends no preflight before it.
        &[
            ("origin", "http://evil.example"),
            ("content-type", "text/plain"),
            ("sec-fetch-site", "cross-site"),
        ],
    ];
    for headers in foreign {
        for (method, path, body) in CONTROL {
            forbidden(&ask(host.http, method, path, headers, body), "");
        }
        for (method, path) in ADMIN {
            forbidden(&ask(host.admin, method, path, headers, ""), "");
        }
    }
    let both = [("origin", "http://evil.example"), ("sec-fetch-site", "same-origin")];
    forbidden(&ask(host.admin, "POST", "/admin/reload", &both, ""), "\"http://evil.example\"");
    let two = [("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")];
    forbidden(&ask(host.admin, "POST", "/admin/reload", &two, ""), "Sec-Fetch-Site is \"cross-site\"");
    assert_eq!(host.generation(), generation);
    assert_eq!(host.post("/predict", GOOD).status, 200, "the model is still there");
    assert_eq!(host.get("/jobs").json()["jobs"], json!([]));
    assert!(host.metric("hostler_errors_total{kind=\"forbidden\"}") >= 100.0);
}

#[test]
fn programs_and_own_pages_may_do_everything() {
    let host = start("");
    let own = |address: SocketAddr| format!("http://{address}");
    for address in [host.http, host.admin] {
        let origin = own(address);
        let allowed: [&[(&str, &str)]; 5] = [
            &[],
            &[("origin", &origin)],
            &[("origin", &origin), ("sec-fetch-site", "same-origin")],
            &[("sec-fetch-site", "none")],
            &[("referer", "http://evil.example/")],
        ];
        for headers in allowed {
            if address == host.http {
                assert!(
                    CONTROL.iter().all(|(method, path, body)| {
                        is_allowed(&ask(address, method, path, headers, body))
                    })
                );
            } else {
                assert!(
                    ADMIN.iter().all(|(method, path)| is_allowed(&ask(address, method, path, headers, "")))
                );
            }
        }
    }
    // The listener is addressed by another of its names.
    let port = host.admin.port();
    for name in ["localhost", "LOCALHOST", "localhost.", "[::1]", "10.1.2.3"] {
        assert_eq!(
            raw(host.admin, "GET", "/admin/policy", &[&format!("{name}:{port}")], "").status,
            200,
            "{name}"
        );
    }
    raw(host.admin, "GET", "/admin/policy", &[], "").refused(400, "invalid_input", &["no Host header"]);
}

#[test]
fn anybody_may_predict_and_look_at_health() {
    let host = start("");
    let headers = [("origin", "http://evil.example"), ("sec-fetch-site", "cross-site")];
    for path in
        ["/health", "/ready", "/metrics", "/v2/health/ready", "/v2/models/plus/ready", "/models", "/v2"]
    {
        let answer = ask(host.http, "GET", path, &headers, "");
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), None, "the page cannot read it");
    }
    for path in ["/health", "/metrics"] {
        assert_eq!(ask(host.admin, "GET", path, &headers, "").status, 200, "{path}");
    }
    let answer = ask(host.http, PREDICT.0, PREDICT.1, &headers, GOOD);
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, None));
    assert_eq!(ask(host.http, "OPTIONS", "/predict", &headers, "").status, 405);
}

#[test]
fn under_a_name_that_is_not_its_own_a_host_on_loopback_says_no_more_than_its_health() {
    let host = start("");
    let foreign =
        ["evil.example", "evil.example:80", "localhost.evil.example", "a@localhost", "localhost:1:2"];
    for name in foreign {
        for (method, path, body) in CONTROL {
            forbidden(&raw(host.http, method, path, &[name], body), "allowed_hosts");
        }
        for path in ["/models", "/v2", "/v2/models/plus", "/v2/models/plus/config"] {
            forbidden(&raw(host.http, "GET", path, &[name], ""), "allowed_hosts");
        }
        for (method, path) in ADMIN {
            forbidden(&raw(host.admin, method, path, &[name], ""), "allowed_hosts");
        }
        for path in ["/health", "/ready", "/metrics", "/v2/health/live", "/v2/models/plus/ready"] {
            assert_eq!(raw(host.http, "GET", path, &[name], "").status, 200, "{path} as {name}");
        }
        for path in ["/health", "/metrics"] {
            assert_eq!(raw(host.admin, "GET", path, &[name], "").status, 200, "{path} as {name}");
        }
        assert_eq!(raw(host.http, "POST", "/predict", &[name], GOOD).status, 200);
        assert!(is_allowed(&raw(host.http, "POST", "/v2/models/plus/infer", &[name], "{}")));
    }
    for two in [["localhost", "evil.example"], ["evil.example", "localhost"]] {
        let answer = raw(host.admin, "POST", "/admin/reload", &two, "");
        answer.refused(400, "invalid_input", &["several Host headers"]);
    }
    let target = "http://evil.example/admin/reload";
    forbidden(&raw(host.admin, "POST", target, &["localhost"], ""), "evil.example");
    let target = "http://localhost/admin/policy";
    assert_eq!(raw(host.admin, "GET", target, &["localhost"], "").status, 200);
    // Under DNS rebinding, a browser treats the page as one of the host's own.
    let page =
        [("origin", "http://evil.example"), ("sec-fetch-site", "same-origin"), ("host", "evil.example")];
    forbidden(&ask(host.admin, "POST", "/admin/reload", &page, ""), "allowed_hosts");
}

#[test]
fn a_listener_that_others_reach_is_asked_under_any_name_unless_the_manifest_lists_them() {
    let on_all = |server: &str| {
        let manifest = format!("[server]\n{server}\n[models.plus]\npath = \"plus.onnx\"\n");
        let setup = Setup::new(&manifest).file("plus.onnx", model("plus1"));
        let mut host = setup.listen("0.0.0.0:0").start();
        host.http.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        host
    };
    let models = |host: &Host, name: &str| raw(host.http, "GET", "/models", &[name], "").status;
    let host = on_all("");
    assert_eq!(models(&host, "models.example.org"), 200);
    let page = [("origin", "http://evil.example")];
    forbidden(&ask(host.http, "GET", "/jobs", &page, ""), "");
    let host = on_all("allowed_hosts = [\"models.example.org\"]");
    assert_eq!(models(&host, "Models.Example.org:8000"), 200);
    assert_eq!(models(&host, "other.example.org"), 403);
    let host = start("allowed_hosts = [\"models.example.org\"]");
    assert_eq!(models(&host, "models.example.org"), 200);
    assert_eq!(raw(host.admin, "GET", "/admin/policy", &["models.example.org"], "").status, 200);
    assert_eq!(models(&host, "other.example.org"), 403);
    assert_eq!(models(&start("allowed_hosts = [\"*\"]"), "other.example.org"), 200);
}

#[test]
fn pages_of_an_allowed_origin_may_ask_and_read() {
    const PAGE: &str = "https://app.example.org";
    let host = start(&format!("allowed_origins = [\"{PAGE}\", \"http://localhost:3000\"]"));
    let page = [("origin", PAGE), ("sec-fetch-site", "cross-site")];
    let readable = |answer: &Answer| answer.header("access-control-allow-origin") == Some(PAGE);
    for (method, path, body) in [
        ("POST", "/predict", GOOD),
        ("POST", "/predict", "{"),
        ("POST", "/predict/stream", GOOD),
        ("POST", "/v2/models/plus/infer", "{}"),
        ("POST", "/predict/async", GOOD),
        ("GET", "/jobs", ""),
        ("GET", "/models", ""),
        ("GET", "/nowhere", ""),
    ] {
        let answer = ask(host.http, method, path, &page, body);
        assert!(is_allowed(&answer) && readable(&answer), "{method} {path}: {answer:?}");
        assert!(answer.header("vary").is_some_and(|vary| vary.contains("origin")), "{answer:?}");
        assert_eq!(answer.header("access-control-allow-credentials"), None);
        assert!(
            answer
                .header("access-control-expose-headers")
                .is_some_and(|names| names.contains("x-request-id"))
        );
    }
    let preflight = [
        ("origin", PAGE),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "content-type,x-user"),
    ];
    for path in ["/predict", "/predict/plus", "/predict/async", "/v2/models/plus/infer", "/jobs/1"] {
        let answer = ask(host.http, "OPTIONS", path, &preflight, "");
        assert_eq!(answer.status, 204, "{path}: {answer:?}");
        assert!(readable(&answer), "{answer:?}");
        assert!(answer.header("access-control-allow-methods").is_some_and(|names| names.contains("DELETE")));
        assert_eq!(answer.header("access-control-allow-headers"), Some("content-type,x-user"));
    }
    // Pages of other origins may still send requests but cannot read the answers. The admin
    // listener accepts no page of another origin.
    for origin in ["https://evil.example", "http://app.example.org", "https://app.example.org:8443", "null"] {
        let answer = ask(host.http, "POST", "/predict", &[("origin", origin)], GOOD);
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, None), "{origin}");
        forbidden(&ask(host.http, "GET", "/jobs", &[("origin", origin)], ""), "allowed_origins");
        let mut preflight = preflight;
        preflight[0].1 = origin;
        assert_eq!(ask(host.http, "OPTIONS", "/predict", &preflight, "").status, 405);
    }
    forbidden(&ask(host.admin, "POST", "/admin/reload", &page, ""), PAGE);
    assert_eq!(host.post("/predict", GOOD).header("access-control-allow-origin"), None);
}

#[test]
fn origins_and_hosts_that_cannot_be_are_named() {
    for (key, value, hint) in [
        ("allowed_origins", "*", "https://app.example.org"),
        ("allowed_origins", "null", "is not an origin"),
        ("allowed_origins", "app.example.org", "is not an origin"),
        ("allowed_origins", "https://app.example.org/", "is not an origin"),
        ("allowed_origins", "https://*.example.org", "is not an origin"),
        ("allowed_origins", "ftp://app.example.org", "is not an origin"),
        ("allowed_hosts", "https://app.example.org", "is not the name of a host"),
        ("allowed_hosts", "app.example.org:80", "is not the name of a host"),
        ("allowed_hosts", "", "is not the name of a host"),
    ] {
        let setup = Setup::new(&format!("[server]\n{key} = [\"{value}\"]\n"));
        let (code, out, log) = setup.run(&["check", "hostler.toml"]);
        let said = out + &log;
        assert_eq!(code, 1, "{key} {value}: {said}");
        assert!(said.contains(key) && said.contains(hint), "{key} {value}: {said}");
    }
}
