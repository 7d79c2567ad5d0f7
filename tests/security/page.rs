//! The page for operators as a client of its own sees it: files, sessions, tokens, and attempts to
//! get around them. `browser.rs` looks at it in a browser.

use super::access::{Keys, MANIFEST, RULES};
use crate::support::certificates::Certificates;
use crate::support::streaming;
use crate::support::tls::TlsClient;
use crate::support::{Answer, Client, Host, Setup, eventually, model, plugin, replace};
use serde_json::{Value, json};

fn plain() -> Host {
    Setup::new("[models.plus]\npath = \"plus.onnx\"\n").file("plus.onnx", model("plus1")).start()
}

fn guarded(keys: &Keys) -> Host {
    Setup::new(&format!("{MANIFEST}\n[plugins.hostile]\npath = \"hostile.wasm\"\n"))
        .file("plus.onnx", model("plus1"))
        .file("hostile.wasm", plugin("hostile"))
        .text("keys.toml", &keys.file)
        .text("access.toml", RULES)
        .start()
}

/// A browser that has signed in, or tries to do without.
#[derive(Default)]
struct Browser {
    cookie: String,
    token: String,
}

impl Browser {
    fn sign_in(host: &Host, key: &str) -> Result<Self, Answer> {
        let body = json!({"key": key}).to_string();
        let answer = Client::new(host.admin).request("POST", "/ui/api/session", &[], body.as_bytes());
        if answer.status != 200 {
            return Err(answer);
        }
        let set = answer.header("set-cookie").expect("a cookie").to_owned();
        let (cookie, rest) = set.split_once(';').expect("attributes");
        assert_eq!(rest.trim(), "Max-Age=43200; HttpOnly; SameSite=Strict");
        let token = answer.json()["csrf"].as_str().expect("a token").to_owned();
        Ok(Browser { cookie: cookie.to_owned(), token })
    }

    fn send(&self, host: &Host, method: &str, path: &str, more: &[(&str, &str)], body: &str) -> Answer {
        let own = [("cookie", &*self.cookie), ("x-hostler-csrf", &*self.token)];
        let own = own
            .into_iter()
            .filter(|(name, value)| !value.is_empty() && !more.iter().any(|(other, _)| other == name));
        let headers: Vec<(&str, &str)> = own.chain(more.iter().copied()).collect();
        Client::new(host.admin).request(method, path, &headers, body.as_bytes())
    }

    fn get(&self, host: &Host, path: &str) -> Answer {
        self.send(host, "GET", path, &[], "")
    }
}

#[test]
fn files_have_their_types_and_nothing_can_be_added_to_the_page() {
    let host = plain();
    let root = host.admin_get("/ui");
    assert_eq!((root.status, root.header("location")), (308, Some("ui/")));
    let index = host.admin_get("/ui/");
    let text = index.text();
    assert!(text.starts_with("<!doctype html>"), "{text}");
    // Everything that the page names is there, in the type that browsers demand.
    let is_file = |name: &&str| [".css", ".js", ".svg"].iter().any(|ending| name.ends_with(ending));
    let names = text.split('"').filter(is_file);
    let mut open: Vec<String> = names.map(str::to_owned).chain(["index.html".into()]).collect();
    let mut seen = Vec::new();
    while let Some(name) = open.pop() {
        if seen.contains(&name) {
            continue;
        }
        let file = host.admin_get(&format!("/ui/{name}"));
        assert_eq!(file.status, 200, "{name}");
        let (_, ending) = name.rsplit_once('.').unwrap();
        let expected = match ending {
            "html" => "text/html; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            "js" => "text/javascript; charset=utf-8",
            "svg" => "image/svg+xml; charset=utf-8",
            other => panic!("{other}"),
        };
        assert_eq!(file.header("content-type"), Some(expected), "{name}");
        let policy = file.header("content-security-policy").unwrap();
        for part in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"] {
            assert!(policy.contains(part) && !policy.contains("unsafe"), "{name}: {policy}");
        }
        assert!(policy.contains("require-trusted-types-for 'script'"), "{policy}");
        assert_eq!(file.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(file.header("referrer-policy"), Some("no-referrer"));
        let tag = file.header("etag").unwrap().to_owned();
        let again = host.admin_request("GET", &format!("/ui/{name}"), &[("if-none-match", &tag)]);
        assert_eq!((again.status, again.body.len()), (304, 0), "{name}");
        let imports = file.text();
        let imports = imports.lines().filter_map(|line| line.split_once(" from \"./")?.1.split_once('"'));
        open.extend(imports.map(|(name, _)| name.to_owned()));
        seen.push(name);
    }
    assert!(seen.len() > 10, "{seen:?}");
    for path in ["/ui/nothing.js", "/ui//", "/ui/../admin/policy", "/ui/%2e%2e/admin/policy", "/ui/page.rs"] {
        let answer = host.admin_get(path);
        assert_eq!(answer.error()["kind"], "not_found", "{path}");
    }
    assert_eq!(host.admin_post("/ui/").status, 405);
    assert_eq!(host.get("/ui/").status, 404, "not on the public listener");
    assert_eq!(host.get("/ui/api/session").status, 404);
}

#[test]
fn without_access_rules_other_sites_still_cannot_act() {
    let host = plain();
    let session = host.admin_get("/ui/api/session").json();
    assert_eq!((&session["required"], &session["caller"]), (&json!(false), &Value::Null));
    let token = session["csrf"].as_str().unwrap();
    let reload = |headers: &[(&str, &str)]| host.admin_request("POST", "/ui/api/admin/reload", headers);
    let good = ("x-hostler-csrf", token);
    assert_eq!(reload(&[good]).json()["outcome"], "unchanged");
    let own = format!("http://{}", host.admin);
    assert_eq!(reload(&[good, ("origin", &own), ("sec-fetch-site", "same-origin")]).status, 200);
    for headers in [
        &[][..],
        &[("x-hostler-csrf", "")],
        &[("x-hostler-csrf", "guess")],
        &[good, ("origin", "http://evil.example")],
        &[good, ("origin", "null")],
        &[good, ("sec-fetch-site", "cross-site")],
        &[good, ("sec-fetch-site", "same-site")],
    ] {
        let answer = reload(headers);
        assert_eq!((answer.status, &answer.error()["kind"]), (403, &json!("forbidden")), "{headers:?}");
    }
    // A page that lets its own name resolve to this address.
    for path in ["/ui/", "/ui/api/session", "/ui/api/admin/status"] {
        let mut client = Client::new(host.admin);
        client.send(format!("GET {path} HTTP/1.1\r\nhost: evil.example\r\n\r\n").as_bytes()).unwrap();
        assert_eq!(client.receive().unwrap().status, 403, "{path}");
    }
    for (method, path, status) in [
        ("GET", "/ui/api/nothing", 404),
        ("GET", "/ui/api/admin/nothing", 404),
        ("GET", "/ui/api/admin/reload", 405),
        ("POST", "/ui/api/admin/status", 405),
        ("POST", "/ui/api/models", 405),
        ("GET", "/ui/api/predict", 405),
        ("PUT", "/ui/api/session", 405),
        ("GET", "/ui/api/metrics", 404),
        ("POST", "/ui/api/v2/models/plus/infer", 404),
    ] {
        assert_eq!(host.admin_request(method, path, &[good]).status, status, "{method} {path}");
    }
}

#[test]
fn a_streaming_model_answers_with_a_list_that_has_an_end() {
    let host = streaming::setup("", "").start();
    let token = host.admin_get("/ui/api/session").json()["csrf"].as_str().unwrap().to_owned();
    let ask = |delays: &[u32]| {
        let body = streaming::request(delays, 0, json!({})).to_string();
        let headers = [("x-hostler-csrf", &*token)];
        Client::new(host.admin).request("POST", "/ui/api/predict", &headers, body.as_bytes()).json()
    };
    let few = ask(&[0, 1, 2]);
    let count = few["result"].as_array().unwrap().len();
    assert_eq!((&few["responses"], &few["is_cut"]), (&json!(count), &json!(false)), "{few}");
    assert!(count >= 3, "{few}");
    let many = ask(&[0; 500]);
    assert_eq!((&many["responses"], &many["is_cut"]), (&json!(100), &json!(true)), "{many}");
    host.wait_for_idle("cpu");
}

#[test]
fn an_operator_signs_in_and_a_session_is_good_for_the_page_alone() {
    let keys = Keys::make();
    let host = guarded(&keys);
    let nobody = Browser::default();
    let session = nobody.get(&host, "/ui/api/session").json();
    assert_eq!(session["required"], true);
    assert!(session["caller"].is_null() && session["csrf"].is_null(), "{session}");
    assert_eq!(nobody.get(&host, "/ui/").status, 200, "the form to sign in");
    let refused = |key: &str| Browser::sign_in(&host, key).err().expect("it is refused");
    for (key, status) in [("", 401), ("hostler_guess", 401), ("a\r\nb", 401), (&*keys.app, 403)] {
        let answer = refused(key);
        assert_eq!(answer.status, status, "{}", answer.text());
        assert_eq!(answer.header("set-cookie"), None);
    }
    for body in ["", "[]", "{\"key\": 1}", "{\"key\": \"k\", \"more\": 1}"] {
        let answer = nobody.send(&host, "POST", "/ui/api/session", &[], body);
        assert_eq!(answer.status, 400, "{body}: {}", answer.text());
    }
    let long = json!({"key": "k".repeat(100_000)}).to_string();
    assert_eq!(nobody.send(&host, "POST", "/ui/api/session", &[], &long).status, 413);
    let foreign = [("origin", "http://evil.example")];
    let body = json!({"key": keys.ops}).to_string();
    assert_eq!(nobody.send(&host, "POST", "/ui/api/session", &foreign, &body).status, 403);

    let ops = Browser::sign_in(&host, &keys.ops).unwrap_or_else(|answer| panic!("{}", answer.text()));
    assert_eq!(ops.get(&host, "/ui/api/session").json()["caller"], "key:ops");
    let reads = ["status", "policy", "reloads", "pipelines"].map(|name| format!("/ui/api/admin/{name}"));
    let reads: Vec<&str> =
        reads.iter().map(|path| &**path).chain(["/ui/api/jobs", "/ui/api/models"]).collect();
    for path in &reads {
        assert_eq!(ops.get(&host, path).status, 200, "{path}");
        let answer = nobody.get(&host, path);
        assert_eq!((answer.status, &answer.error()["kind"]), (401, &json!("unauthenticated")), "{path}");
        let (name, value) = ops.cookie.split_once('=').unwrap();
        let value: String = value.chars().rev().collect();
        let forged = Browser { cookie: format!("{name}={value}"), ..Browser::default() };
        assert_eq!(forged.get(&host, path).status, 401, "{path}");
    }
    // The cookie opens nothing but the page.
    assert_eq!(ops.get(&host, "/admin/status").status, 401);
    assert_eq!(ops.get(&host, "/metrics").status, 401);
    let cookie = [("cookie", &*ops.cookie)];
    assert_eq!(Client::new(host.http).request("GET", "/models", &cookie, b"").status, 401);
    // The token belongs to the session.
    let other = Browser::sign_in(&host, &keys.ops).unwrap_or_else(|answer| panic!("{}", answer.text()));
    for token in ["", "guess", &other.token] {
        let answer = ops.send(&host, "POST", "/ui/api/admin/reload", &[("x-hostler-csrf", token)], "");
        assert_eq!(answer.status, 403, "{token}");
    }
    assert_eq!(ops.send(&host, "POST", "/ui/api/admin/reload", &[], "").json()["outcome"], "unchanged");
    let record = &host_policy(&host, &ops)["last_reload"];
    assert_eq!(record["trigger"], json!({"admin": "key:ops"}), "{record}");
    // Keys work without a session too, and then have no right to act without a token.
    let bearer = [("authorization", &*format!("Bearer {}", keys.ops))];
    assert_eq!(nobody.send(&host, "GET", "/ui/api/admin/status", &bearer, "").status, 200);
    assert_eq!(nobody.send(&host, "POST", "/ui/api/admin/reload", &bearer, "").status, 403);

    let answer = ops.send(&host, "DELETE", "/ui/api/session", &[], "");
    assert_eq!(answer.status, 204);
    assert!(answer.header("set-cookie").unwrap().contains("Max-Age=0"));
    assert_eq!(ops.get(&host, "/ui/api/admin/status").status, 401);
    assert_eq!(other.get(&host, "/ui/api/admin/status").status, 200);
    let log = host.log();
    for secret in [&keys.ops, &keys.app, &ops.token, &other.cookie] {
        assert!(!log.contains(&**secret), "{log}");
    }
    assert!(log.contains("operator signed in") && log.contains("key:ops"), "{log}");
}

fn host_policy(host: &Host, browser: &Browser) -> Value {
    browser.get(host, "/ui/api/admin/policy").json()
}

#[test]
fn a_session_ends_with_its_key_and_has_no_more_rights_than_it() {
    let keys = Keys::make();
    let host = guarded(&keys);
    let ops = Browser::sign_in(&host, &keys.ops).unwrap_or_else(|answer| panic!("{}", answer.text()));
    let predict = json!({"model": "plus", "data": [1.5]}).to_string();
    let answer = ops.send(&host, "POST", "/ui/api/predict", &[], &predict);
    assert_eq!(answer.json()["result"], json!({"y": [2.5]}), "{}", answer.text());
    // Without the verb `predict`, an operator looks only.
    let fewer = RULES.replace(r#"["predict", "jobs", "read", "load", "metrics", "admin"]"#, r#"["admin"]"#);
    replace(&host.path("access.toml"), fewer.as_bytes());
    let refused = || {
        let answer = ops.send(&host, "POST", "/ui/api/predict", &[], &predict);
        (answer.status == 403).then_some(answer)
    };
    let answer = eventually("predictions refused", refused, || host.log());
    assert!(answer.error()["message"].as_str().unwrap().contains("may not \"predict\""), "{}", answer.text());
    assert_eq!(ops.get(&host, "/ui/api/admin/status").status, 200);
    assert_eq!(ops.get(&host, "/ui/api/jobs").status, 403);
    // No rule any more: the session stays, and may do nothing.
    replace(&host.path("access.toml"), RULES.replace("key:ops", "key:other-ops").as_bytes());
    let status = |wanted: u16| {
        let known = || (ops.get(&host, "/ui/api/admin/status").status == wanted).then_some(());
        eventually(&format!("status {wanted}"), known, || host.log());
    };
    status(403);
    replace(&host.path("access.toml"), RULES.as_bytes());
    status(200);
    // The key is withdrawn, and comes back: its session does not.
    let (before, _) = keys.file.split_once("[keys.\"ops\"]").unwrap();
    let (_, after) = keys.file.split_once("[keys.\"stranger\"]").unwrap();
    replace(&host.path("keys.toml"), format!("{before}[keys.\"stranger\"]{after}").as_bytes());
    status(401);
    replace(&host.path("keys.toml"), keys.file.as_bytes());
    let again = || Browser::sign_in(&host, &keys.ops).ok();
    eventually("the key is known again", again, || host.log());
    assert_eq!(ops.get(&host, "/ui/api/admin/status").status, 401);
    // A key that is given an end ends its sessions.
    let ops = Browser::sign_in(&host, &keys.ops).unwrap_or_else(|answer| panic!("{}", answer.text()));
    let ended = keys.file.replace("[keys.\"ops\"]\n", "[keys.\"ops\"]\nexpires = \"2020-01-01T00:00:00Z\"\n");
    assert_ne!(ended, keys.file);
    replace(&host.path("keys.toml"), ended.as_bytes());
    let known = || (ops.get(&host, "/ui/api/admin/status").status == 401).then_some(());
    eventually("the session ends", known, || host.log());
}

#[test]
fn a_session_has_the_rights_of_its_key_and_none_of_the_certificate_beside_it() {
    let (keys, certificates) = (Keys::make(), Certificates::make());
    let rules = RULES.replace("who = [\"key:ops\"]", "who = [\"key:ops\", \"cert:triton.test\"]");
    let tls = "[server]\naccess_rules = \"access.toml\"\n[server.tls]\ncertificate = \"server.pem\"\nkey = \"server.key\"\n\
               client_ca = \"ca.pem\"\nclient_certificates = \"optional\"\n[models.plus]\npath = \"plus.onnx\"\n";
    let host = Setup::new(tls)
        .file("plus.onnx", model("plus1"))
        .file("server.pem", certificates.path("server.pem"))
        .file("server.key", certificates.path("server.key"))
        .file("ca.pem", certificates.path("ca.pem"))
        .text("keys.toml", &keys.file)
        .text("access.toml", &rules)
        .start();
    let ca = certificates.path("ca.pem");
    let known = TlsClient::new(&ca, Some((certificates.path("client.pem"), certificates.path("client.key"))));
    let nameless = TlsClient::new(&ca, None);
    let ask = |client: &TlsClient, method: &str, path: &str, headers: &[(&str, &str)], body: &str| {
        let reply = client.run(async {
            client.connect(host.admin, &["http/1.1"]).await?.send(method, path, headers, body).await
        });
        reply.expect("a reply")
    };
    let sign_in = |client: &TlsClient, key: &str| {
        ask(client, "POST", "/ui/api/session", &[], &json!({"key": key}).to_string())
    };
    // The certificate needs no session.
    let session: Value = serde_json::from_str(&ask(&known, "GET", "/ui/api/session", &[], "").body).unwrap();
    assert_eq!((&session["caller"], &session["session"]), (&json!("cert:triton.test"), &json!(false)));
    assert_eq!(ask(&known, "GET", "/ui/api/admin/status", &[], "").status, 200);
    // A key without the verb does not get it by the certificate.
    assert_eq!(sign_in(&known, &keys.app).status, 403);
    let signed_in = sign_in(&known, &keys.ops);
    let set = signed_in.headers["set-cookie"].to_str().unwrap();
    assert!(set.ends_with("; Secure"), "{set}");
    let cookie = set.split(';').next().unwrap();
    assert_eq!(ask(&nameless, "GET", "/ui/api/admin/status", &[("cookie", cookie)], "").status, 200);
    assert_eq!(ask(&nameless, "GET", "/ui/api/admin/status", &[], "").status, 401);
}

#[test]
fn clients_that_keep_all_connections_busy_do_not_keep_operators_out() {
    let keys = Keys::make();
    let host = guarded(&keys);
    let ops = Browser::sign_in(&host, &keys.ops).unwrap_or_else(|answer| panic!("{}", answer.text()));
    let cookie = format!("cookie: {}\r\n", ops.cookie);
    // More than the listener has connections: sign-ins whose bodies never come, and an operator's
    // own pages that wait for a log.
    for (head, more) in [
        ("POST /ui/api/session", "content-length: 1000\r\n"),
        ("GET /ui/api/admin/plugins/hostile/log?wait_ms=30000", &*cookie),
    ] {
        let mut clients: Vec<Client> = (0..80).map(|_| Client::new(host.admin)).collect();
        for client in &mut clients {
            let head = format!("{head} HTTP/1.1\r\nhost: localhost\r\n{more}\r\n");
            client.send(head.as_bytes()).unwrap();
        }
        for _ in 0..5 {
            assert_eq!(host.admin_get("/health").status, 200, "{head}");
            assert_eq!(ops.get(&host, "/ui/api/admin/status").status, 200, "{head}");
            let answer = ops.send(&host, "POST", "/ui/api/admin/policy/rollback", &[], "");
            assert_eq!(answer.status, 400, "{head}: there is nothing to go back to: {}", answer.text());
        }
    }
}

#[test]
fn what_a_plugin_returns_is_data_in_every_browser() {
    let host = Setup::new(
        "[plugins.hostile]\npath = \"hostile.wasm\"\n[models.m]\nplugin = \"hostile\"\ntransformer = \"hostile\"\n",
    )
    .file("hostile.wasm", plugin("hostile"))
    .start();
    let html = [("content-type", "text/html")];
    let script = b"<script>alert(1)</script>";
    let answer = host.client().request("POST", "/predict/m", &html, script);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let job = host.client().request("POST", "/predict/async/m", &html, script).json();
    let result = format!("{}/result?wait_ms=60000", job["url"].as_str().unwrap());
    let token = host.admin_get("/ui/api/session").json()["csrf"].as_str().unwrap().to_owned();
    let on_page = host.admin_request("GET", &format!("/ui/api{result}"), &[("x-hostler-csrf", &token)]);
    for answer in [answer, host.get(&result), on_page] {
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("content-security-policy"), Some("default-src 'none'; sandbox"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
}
