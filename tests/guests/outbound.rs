//! Tests HTTP requests from plugins to other servers.

use crate::support::store::Store;
use crate::support::streaming::at_once;
use crate::support::{Answer, Host, Setup, eventually, plugin, replace, root};
use serde_json::{Value, json};
use std::net::TcpListener;

fn manifest(http: &str) -> String {
    let plugin = "[plugins.p]\npath = \"p.wasm\"\n";
    format!("{plugin}{http}\n[models.m]\nplugin = \"p\"\n")
}

/// Returns a setup with the model `m`, which sends the HTTP request that its input describes;
/// `http` is the plugin's HTTP table.
fn fetching(http: &str) -> Setup {
    Setup::new(&manifest(http)).file("p.wasm", plugin("fetch"))
}

fn table(allowed: &[String], more: &str) -> String {
    format!("[plugins.p.http]\nallow_hosts = {allowed:?}\n{more}\n")
}

fn only(store: &Store, more: &str) -> String {
    table(&[store.url("")], more)
}

fn ask_all(host: &Host, urls: &[String], parameters: Value) -> Answer {
    let body = json!({"model": "m", "data": {"url": urls}, "parameters": parameters});
    host.post("/predict", body.to_string())
}

fn ask(host: &Host, url: String, parameters: Value) -> Answer {
    ask_all(host, &[url], parameters)
}

fn texts(answer: &Answer) -> (i64, String, String) {
    let result = answer.result();
    let text = |name: &str| result[name][0].as_str().unwrap_or_else(|| panic!("{result}")).to_owned();
    (result["status"][0].as_i64().unwrap(), text("headers"), text("body"))
}

/// Returns a setup with the model `m`, which looks up users at `store`.
fn features(name: &str, store: &str, http: &str, more: &str) -> Setup {
    let config = format!("{more}\n[plugins.p.config]\nstore = \"{store}\"\n{http}");
    Setup::new(&manifest(&config)).file("p.wasm", plugin(name))
}

#[test]
fn a_plugin_asks_the_servers_that_its_manifest_allows() {
    let store = Store::start();
    let host = fetching(&only(&store, "")).start();
    let asked = json!({"method": "POST", "header": "x-Key: a b", "body": "what"});
    let (status, headers, body) = texts(&ask(&host, store.url("/echo/%20a?b=c#d"), asked));
    assert_eq!(status, 200);
    assert!(headers.contains("x-one: 1"), "{headers}");
    assert!(body.starts_with("POST /echo/%20a?b=c HTTP/1.1\r\n") && body.ends_with("\r\n\r\nwhat"), "{body}");
    let agent = format!("user-agent: hostler/{}\r\n", env!("CARGO_PKG_VERSION"));
    let named = format!("host: {}\r\n", store.address);
    for line in ["x-key: a b\r\n", "content-length: 4\r\n", &agent, &named] {
        assert!(body.contains(line), "{body}\nlacks {line}");
    }
    // Any status is an answer; redirects are not followed, and bodies are not decompressed.
    assert_eq!(texts(&ask(&host, store.url("/users/4000"), json!({}))).0, 404);
    let (status, headers, _) = texts(&ask(&host, store.url("/redirect"), json!({})));
    assert!(status == 302 && headers.contains("location: /users/1"), "{headers}");
    assert!(!store.asked().contains(&"GET /users/1".to_owned()), "{:?}", store.asked());
    let (_, headers, body) = texts(&ask(&host, store.url("/packed"), json!({})));
    assert!(headers.contains("content-encoding: gzip") && body == "as it was sent", "{headers}\n{body}");
    assert_eq!(texts(&ask(&host, store.url("/big/9"), json!({"method": "HEAD"}))).2, "");
}

#[test]
fn who_is_not_allowed_is_not_asked() {
    let (store, other) = (Store::start(), Store::start());
    let port = store.address.port();
    let allowed = [store.url(""), format!("http://127.1:{port}"), "*.example.org".to_owned()];
    let host = fetching(&table(&allowed, "")).start();
    for (url, why) in [
        (other.url("/users/1"), "is not one of its allow_hosts"),
        (format!("https://127.0.0.1:{port}/"), "is not one of its allow_hosts"),
        (format!("http://localhost:{port}/"), "is not one of its allow_hosts"),
        ("https://example.org/".to_owned(), "\"https://*.example.org\""),
        (format!("http://127.2:{port}/"), "is not one of its allow_hosts"),
    ] {
        ask(&host, url, json!({})).refused(500, "failed", &["plugin \"p\": ", "unsupported", why]);
    }
    let named = fetching(&table(&[format!("http://127.1:{port}")], "")).start();
    let guarded = ask(&named, format!("http://127.1:{port}/users/1"), json!({}));
    let mend = format!("add \"http://127.0.0.1:{port}\" to allow_hosts");
    guarded.refused(500, "failed", &["unsupported", "resolves to 127.0.0.1, a loopback address", &mend]);
    let silent = fetching("").start();
    let nobody = ask(&silent, store.url("/users/1"), json!({}));
    nobody.refused(
        500,
        "failed",
        &["unsupported", "may not call any server", "[plugins.p.http] allow_hosts"],
    );
    assert_eq!((store.connections(), other.connections()), (0, 0));
    // Once the address is allowed as well, the name resolves to an allowed server.
    assert_eq!(texts(&ask(&host, format!("http://127.1:{port}/users/1"), json!({}))).0, 200);
}

#[test]
fn what_is_no_request_is_refused_with_its_place() {
    let store = Store::start();
    let host = fetching(&only(&store, "")).start();
    let url = store.url("/echo");
    let header = |line: &str| json!({"header": line});
    for (url, parameters, why) in [
        ("features.internal".to_owned(), json!({}), "does not begin with"),
        ("ftp://features.internal".to_owned(), json!({}), "does not begin with"),
        (url.replace("//", "//me:secret@"), json!({}), "has a user"),
        ("http://a b/".to_owned(), json!({}), "is invalid"),
        ("http://127.0.0.1:99999/".to_owned(), json!({}), "the URL"),
        (format!("{url}/{}", "a".repeat(9000)), json!({}), "more than 8192 bytes"),
        (url.clone(), json!({"method": "CONNECT"}), "is not a supported method; supported: GET, HEAD"),
        (url.clone(), json!({"method": "get"}), "is not a supported method"),
        (url.clone(), header("Host: other"), "is set by the host"),
        (url.clone(), header("Transfer-Encoding: chunked"), "is set by the host"),
        (url.clone(), header("proxy-authorization: x"), "is set by the host"),
        (url.clone(), header("a b: x"), "has an invalid name"),
        (url.clone(), header("a: b\r\nc: d"), "control character"),
    ] {
        // The plugin passes on the host's error. The client sent no such request, so the status is
        // not 400.
        ask(&host, url, parameters).refused(500, "failed", &["failed with invalid_input", why]);
    }
    let long = header(&format!("x: {}", "y".repeat(20_000)));
    ask(&host, url, long).refused(500, "failed", &["failed with too_large", "16384 bytes together"]);
    assert_eq!(store.connections(), 0);
}

#[test]
fn answers_are_bounded_in_size_time_and_number() {
    let store = Store::start();
    let limits = "max_body_kb = 1\ntimeout_ms = 300\nmax_calls = 3";
    let host = fetching(&only(&store, limits)).start();
    let at = |path: &str| store.url(path);
    assert_eq!(texts(&ask(&host, at("/big/1024"), json!({}))).2.len(), 1024);
    for path in ["/big/1025", "/chunks/300", "/chunks/9000000"] {
        ask(&host, at(path), json!({})).refused(
            500,
            "failed",
            &["failed with too_large", "the answer exceeds max_body_kb = 1"],
        );
    }
    let body = json!({"method": "POST", "body": "x".repeat(1025)});
    ask(&host, at("/echo"), body).refused(
        500,
        "failed",
        &["failed with too_large", "a body of 1025 bytes", "max_body_kb is 1"],
    );
    ask(&host, at("/head/200000"), json!({})).refused(503, "unavailable", &["the connection failed"]);

    for path in ["/never", "/stall"] {
        let slow = ask(&host, at(path), json!({}));
        slow.refused(504, "deadline", &["no complete answer within 300 ms", "timeout_ms of its http table"]);
    }
    let hurried = ask(&host, at("/never"), json!({"give_ms": 20}));
    hurried.refused(504, "deadline", &["no complete answer within 20 ms", "the timeout of the HTTP request"]);
    store.wait_until_left(3);

    let url = at("/users/1");
    assert_eq!(texts(&ask_all(&host, &vec![url.clone(); 3], json!({}))).0, 200);
    let often = ask_all(&host, &vec![url; 4], json!({}));
    often.refused(500, "failed", &["made more than max_calls = 3 HTTP calls in one call"]);
}

#[test]
fn a_server_that_is_away_or_breaks_off_is_unavailable() {
    let store = Store::start();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let away = format!("http://{closed}");
    let unknown = "http://nobody.invalid".to_owned();
    let host =
        fetching(&table(&[store.url(""), away.clone(), unknown.clone()], "timeout_ms = 20000")).start();
    let refused = format!("cannot connect to {closed}: connection refused");
    for (url, part) in [
        (store.url("/half"), "the connection failed"),
        (store.url("/nonsense"), "the connection failed"),
        (away, &*refused),
        (unknown, "http://nobody.invalid: cannot resolve its name"),
    ] {
        ask(&host, url, json!({})).refused(503, "unavailable", &["plugin \"p\": http://", part]);
    }
}

#[test]
fn connections_are_kept_and_one_that_was_closed_is_not_missed() {
    let store = Store::start();
    let host = fetching(&only(&store, "")).start();
    assert_eq!(texts(&ask_all(&host, &vec![store.url("/users/1"); 10], json!({}))).0, 200);
    assert_eq!(texts(&ask(&host, store.url("/users/1"), json!({}))).0, 200);
    assert_eq!(store.connections(), 1);
    assert_eq!(texts(&ask_all(&host, &vec![store.url("/closes"); 10], json!({}))).0, 200);
    assert_eq!(texts(&ask(&host, store.url("/users/1"), json!({}))).0, 200);
    let served = store.asked().iter().filter(|asked| asked.contains("closes")).count();
    assert_eq!(served, 10, "none was lost, and none was asked twice");
}

#[test]
fn a_caller_that_leaves_closes_the_connection_and_frees_the_place() {
    let store = Store::start();
    let host = fetching(&only(&store, "timeout_ms = 60000\nmax_in_flight = 1")).start();
    let body = json!({"model": "m", "data": {"url": [store.url("/never")]}}).to_string();
    let mut client = host.client();
    client.begin("POST", "/predict", &[], body.as_bytes()).unwrap();
    store.wait_until_asked(1);
    let full = ask(&host, store.url("/users/1"), json!({}));
    full.refused(429, "overloaded", &["at capacity: 1 HTTP calls in flight", "max_in_flight"]);
    client.leave();
    store.wait_until_left(1);
    let gone = || (host.metric("hostler_plugin_http_in_flight{plugin=\"p\"}") == 0.0).then_some(());
    eventually("the place being free", gone, || host.log());
    // A request's deadline frees the place in the same way.
    let short = json!({"model": "m", "data": {"url": [store.url("/never")]}, "timeout_ms": 100});
    assert_eq!(host.post("/predict", short.to_string()).status, 504);
    store.wait_until_left(2);
    eventually("the place being free", gone, || host.log());
    assert_eq!(texts(&ask(&host, store.url("/users/1"), json!({}))).0, 200);
}

#[test]
fn two_hundred_requests_wait_side_by_side_in_one_instance() {
    let store = Store::start();
    let http = only(&store, "timeout_ms = 20000");
    let host = features("features", &store.url("/together/200"), &http, "").start();
    // The store answers only once all requests have arrived.
    let (answers, took) = at_once(&host, 200, &json!({"model": "m", "data": {"users": [1]}}));
    for (status, lines) in answers {
        assert_eq!((status, &lines[0]["result"]["features"]), (200, &json!([[1.0, 2.0]])));
    }
    eprintln!("200 requests beside each other: {took:?}");
    assert_eq!(host.metric("hostler_plugin_traps_total{plugin=\"p\"}"), 0.0);
}

#[test]
fn synchronous_plugins_that_wait_hold_no_worker() {
    let store = Store::start();
    let workers = format!("{}\n[executors.cpu]\nworkers = 1\n", only(&store, "timeout_ms = 20000"));
    let host = fetching(&workers).start();
    // The store answers only once all requests have arrived.
    let body = json!({"model": "m", "data": {"url": [store.url("/together/20")]}});
    let (answers, _) = at_once(&host, 20, &body);
    for (status, lines) in answers {
        assert_eq!((status, &lines[0]["result"]["status"]), (200, &json!([200])), "{lines:?}");
    }
    host.wait_for_idle("cpu");
}

#[test]
fn a_streaming_model_gets_errors_as_values_and_leaves_with_its_caller() {
    let store = Store::start();
    let http = only(&store, "timeout_ms = 60000\nmax_calls = 3");
    let host = features("features", &store.url(""), &http, "").start();
    let users = |users: &[i64]| host.predict("m", json!({"users": users}));
    assert_eq!(users(&[7, 8]).result()["features"], json!([[7.0, 0.5], [8.0, 0.5]]));
    let error = users(&[7, 4000]).refused(400, "invalid_input", &["the store knows no user 4000"]);
    assert_eq!(error["field"], "users");
    users(&[1, 2, 3, 4]).refused(500, "failed", &["made more than max_calls = 3 HTTP calls"]);
    let silent = features("features", &store.url(""), "", "").start();
    let nobody = silent.predict("m", json!({"users": [1]}));
    nobody.refused(
        500,
        "failed",
        &["unsupported", "may not call any server", "[plugins.p.http] allow_hosts"],
    );

    let host = features("features", &store.url("/never"), &http, "").start();
    let mut client = host.client();
    let body = json!({"model": "m", "data": {"users": [1, 2]}}).to_string();
    let before = store.asked().len();
    client.begin("POST", "/predict", &[], body.as_bytes()).unwrap();
    store.wait_until_asked(before + 2);
    client.leave();
    store.wait_until_left(2);
    let gone = || (host.metric("hostler_plugin_http_in_flight{plugin=\"p\"}") == 0.0).then_some(());
    eventually("no call being under way", gone, || host.log());
    assert_eq!(host.metric("hostler_plugin_traps_total{plugin=\"p\"}"), 0.0);
}

#[test]
fn python_asks_as_well() {
    let store = Store::start();
    let host = features("features-py", &store.url(""), &only(&store, ""), "instances = \"reused\"").start();
    let users = |users: &[i64]| host.predict("m", json!({"users": users}));
    assert_eq!(users(&[7, 8]).result()["features"], json!([[7.0, 0.5], [8.0, 0.5]]));
    users(&[4000]).refused(400, "invalid_input", &["the store knows no user 4000"]);
    assert_eq!(store.connections(), 1);
}

#[test]
fn certificates_are_verified() {
    let store = Store::with_tls();
    let port = store.address.port();
    let tls = |name: &str| root().join("tests/tls").join(name);
    let trusted = |name: &str, more: &str| {
        let both = [format!("localhost:{port}"), format!("127.0.0.1:{port}")];
        let setup = fetching(&table(&both, more)).file("ca.pem", tls("ca.pem"));
        setup.env("SSL_CERT_FILE", tls(name).to_str().unwrap()).env("SSL_CERT_DIR", "")
    };
    let at = |host: &str| format!("https://{host}:{port}/users/1");
    // Trusted are the machine's certificates, and those of the manifest in addition.
    assert_eq!(texts(&ask(&trusted("ca.pem", "").start(), at("localhost"), json!({}))).0, 200);
    let host = trusted("other.pem", "ca_file = \"ca.pem\"").start();
    assert_eq!(texts(&ask(&host, at("localhost"), json!({}))).0, 200);
    ask(&host, at("127.0.0.1"), json!({})).refused(503, "unavailable", &["TLS: ", "certificate", "name"]);
    let stranger = trusted("other.pem", "").start();
    ask(&stranger, at("localhost"), json!({})).refused(503, "unavailable", &["TLS: ", "UnknownIssuer"]);
    let bad = trusted("other.pem", "ca_file = \"ca.pem\"").text("ca.pem", "nothing").try_start();
    let said = bad.err().expect("it does not start");
    assert!(said.contains("plugin \"p\": ca_file has no certificate in PEM"), "{said}");
}

#[test]
fn what_may_be_asked_is_reloaded_checked_counted_and_logged() {
    let (store, other) = (Store::start(), Store::start());
    let host = fetching(&only(&store, "")).env("HOSTLER_LOG", "debug").start();
    assert_eq!(ask(&host, other.url("/users/7?key=secret"), json!({})).status, 500);
    replace(&host.path("hostler.toml"), manifest(&only(&other, "")).as_bytes());
    let policy = host.wait_for_generation(2);
    let changes = policy["last_reload"]["changes"].to_string();
    assert!(changes.contains("http.allow_hosts"), "{changes}");
    assert_eq!(texts(&ask(&host, other.url("/users/7?key=secret"), json!({}))).0, 200);
    assert_eq!(ask(&host, store.url("/users/7"), json!({})).status, 500);
    host.wait_for_log(&["HTTP call finished", "plugin=\"p\"", "path=\"/users/7\"", "status=200"]);
    assert!(!host.log().contains("secret"), "{}", host.log());
    let calls = |outcome: &str| {
        host.metric(&format!("hostler_plugin_http_calls_total{{outcome=\"{outcome}\",plugin=\"p\"}}"))
    };
    assert_eq!((calls("answered"), calls("unsupported")), (1.0, 2.0));
    assert_eq!(host.metric("hostler_plugin_http_seconds_count{plugin=\"p\"}"), 3.0);

    for (more, parts) in [
        (
            "allow_hosts = [\"*\"]",
            &["\"*\" has a '*' in another place", "write \"features.internal:8080\""][..],
        ),
        ("allow_hosts = [\"a.org/x\"]", &["is more than a host and a port"]),
        ("timeout_ms = 0", &["http: timeout_ms must be at least 1"]),
        ("max_body_kb = 9999999", &["max_body_kb must be at most 1048576"]),
        ("allow_host = []", &["unknown key \"allow_host\"", "did you mean \"allow_hosts\"?"]),
        ("ca_file = \"no.pem\"", &["plugin \"p\": http: ca_file: cannot read"]),
    ] {
        let setup = fetching(&format!("[plugins.p.http]\n{more}\n"));
        let (code, _, said) = setup.run(&["check", "hostler.toml"]);
        assert_eq!(code, 1, "{more}: {said}");
        for part in parts {
            assert!(said.contains(part), "{said}\nlacks {part}");
        }
    }
}
