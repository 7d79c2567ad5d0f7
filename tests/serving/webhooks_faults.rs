//! What webhooks refuse: receivers that are not allowed, and receivers that misbehave.

use super::webhooks::{allowing, calling, delivery, echo, last_error};
use crate::support::jobs::{ended, submit};
use crate::support::receiver::{Reaction, Receiver, secret};
use crate::support::store::Store;
use crate::support::{Setup, model, root};
use serde_json::{Value, json};

#[test]
fn what_is_not_allowed_is_refused_at_the_submission() {
    let (receiver, other) = (Receiver::start(), Receiver::start());
    let host = calling(&receiver, "");
    let allowed = receiver.url("/");
    for (url, part) in [
        (json!(other.url("/")), format!("add \"{}\" to allow_hosts of [jobs.webhooks]", other.url(""))),
        (json!(allowed.replace("http:", "https:")), "are not allowed".to_owned()),
        (json!(allowed.replace("127.0.0.1", "localhost")), "are not allowed".to_owned()),
        (json!("/hook"), "does not begin with https:// or http://".to_owned()),
        (json!(allowed.replace("//", "//me:secret@")), "has a user".to_owned()),
        (json!(format!("{allowed}{}", "a".repeat(9000))), "more than 8192 bytes".to_owned()),
        (json!("http://127.0.0.1\r\nx: y"), "is invalid".to_owned()),
        (json!(""), "is invalid".to_owned()),
        (json!(["http://127.0.0.1"]), "webhook must be a text".to_owned()),
    ] {
        let single = json!({"model": "hostile", "data": ["a"], "webhook": url});
        let batch = json!({"model": "hostile", "items": [{"data": ["a"]}], "webhook": url});
        for (path, body) in [("/predict/async", single), ("/predict/async/batch", batch)] {
            let answer = host.post(path, body.to_string());
            let error = answer.refused(400, "invalid_input", &["webhook", &part]);
            assert_eq!(error["field"], "webhook", "{error}");
            let (text, allowed) = (answer.text(), receiver.address.to_string());
            // Who may submit a job need not know who else is called.
            assert!(!text.contains(&allowed) || url.to_string().contains(&allowed), "{text}");
        }
    }
    assert_eq!(host.get("/jobs").json()["jobs"], json!([]), "nothing was created");
    let silent =
        Setup::new("[models.plus1]\npath = \"plus1.onnx\"\n").file("plus1.onnx", model("plus1")).start();
    let body = json!({"model": "plus1", "data": {"x": [1.0]}, "webhook": allowed});
    let answer = silent.post("/predict/async", body.to_string());
    let error = answer.refused(400, "invalid_input", &["calls no webhooks", "[jobs.webhooks]"]);
    assert_eq!(error["field"], "webhook", "{error}");
}

#[test]
fn a_name_that_resolves_to_this_machine_is_not_called() {
    let receiver = Receiver::start();
    // A short form of 127.0.0.1, which only the resolver understands.
    let named = format!("http://127.1:{}", receiver.address.port());
    let host = allowing(std::slice::from_ref(&named), "").start();
    let id = submit(&host, &echo(&format!("{named}/")));
    let error = last_error(&host, &id);
    assert!(error.contains("resolves to 127.0.0.1, a loopback address"), "{error}");
    assert!(error.contains(&format!("add \"{}\" to allow_hosts", receiver.url(""))), "{error}");
    assert_eq!(ended(&host, &id, "succeeded")["webhook"]["state"], "pending", "an operator may allow it");
    assert_eq!(receiver.connections(), 0);
}

#[test]
fn a_redirect_is_not_followed() {
    let target = Receiver::start();
    let location: &'static str = format!("location: {}\r\n", target.url("/")).leak();
    let redirecting = Receiver::answering(move |_| Reaction::With(307, location));
    let host = allowing(&[target.url(""), redirecting.url("")], "").start();
    let id = submit(&host, &echo(&redirecting.url("/")));
    let error = last_error(&host, &id);
    assert!(error.ends_with("answered 307, a redirect, which is not followed"), "{error}");
    redirecting.wait_for(2);
    assert_eq!(target.connections(), 0);
}

#[test]
fn a_receiver_that_does_not_answer_holds_few_connections_and_nobody_else_up() {
    let (slow, quick) = (Receiver::answering(|_| Reaction::Stall), Receiver::start());
    let host = allowing(&[slow.url(""), quick.url("")], "timeout_ms = 2000\nmax_in_flight = 8\n").start();
    let waiting: Vec<String> = (0..30).map(|_| submit(&host, &echo(&slow.url("/")))).collect();
    let first = slow.wait_for(1)[0].job();
    // While it is waited for, jobs go on and others are told.
    for _ in 0..5 {
        let id = submit(&host, &echo(&quick.url("/")));
        delivery(&host, &id, "delivered");
    }
    for id in &waiting {
        assert_ne!(ended(&host, id, "succeeded")["webhook"]["state"], "delivered");
    }
    // The jobs end in any order, and are reported in the order of their ends.
    let error = last_error(&host, &first);
    assert!(error.contains("no answer within 2000 ms"), "{error}");
    slow.wait_for(4);
    // A quarter of `max_in_flight` before the first timeout, and one at a time after it. The
    // receiver may see late that a connection was closed. Without shares, it would have six.
    assert!(slow.most_stalled() < 6, "{} at once", slow.most_stalled());
    assert!(host.metric("hostler_webhook_attempts_total{outcome=\"deadline\"}") >= 1.0);
}

#[test]
fn the_body_of_an_answer_is_not_read_to_its_end() {
    let receiver = Receiver::answering(|_| Reaction::Endless);
    let host = calling(&receiver, "");
    let id = submit(&host, &echo(&receiver.url("/")));
    assert_eq!(delivery(&host, &id, "delivered")["attempts"], 1, "the status decides");
    let sent = receiver.wait_until_left();
    assert!(sent < 64 << 20, "{sent} bytes, mostly in buffers of the system");
}

#[test]
fn the_certificate_of_a_receiver_is_verified() {
    let receiver = Store::with_tls();
    let named = format!("https://localhost:{}", receiver.address.port());
    let start = |ca: &str| {
        let setup = allowing(std::slice::from_ref(&named), ca);
        setup.file("ca.pem", root().join("tests/tls/ca.pem")).start()
    };
    let (trusting, wary) = (start("ca_file = \"ca.pem\"\n"), start(""));
    let id = submit(&wary, &echo(&format!("{named}/users/1")));
    let error = last_error(&wary, &id);
    assert!(error.contains("TLS: invalid peer certificate"), "{error}");
    assert_eq!(receiver.asked(), Vec::<String>::new(), "nothing was said to it");
    let id = submit(&trusting, &echo(&format!("{named}/users/1")));
    delivery(&trusting, &id, "delivered");
    assert_eq!(receiver.asked(), ["POST /users/1"]);
}

#[test]
fn a_delivery_waits_for_a_manifest_that_allows_it_again() {
    let receiver = Receiver::answering(|number| match number {
        0 => Reaction::Status(500),
        _ => Reaction::Status(204),
    });
    let host = calling(&receiver, "");
    let allowed = std::fs::read_to_string(host.path("hostler.toml")).unwrap();
    let id = submit(&host, &echo(&receiver.url("/")));
    last_error(&host, &id);
    let without = allowed.split("[jobs.webhooks]").next().expect("a manifest").to_owned();
    crate::support::replace(&host.path("hostler.toml"), without.as_bytes());
    host.wait_for_generation(2);
    let refused = |job: &Value| {
        job["webhook"]["last_error"]
            .as_str()
            .is_some_and(|error| error.contains("no [jobs.webhooks] any more"))
    };
    // The second attempt may have been made before the reload.
    let settled = |job: &Value| refused(job) || job["webhook"]["state"] == "delivered";
    let job = crate::support::jobs::wait_for(&host, &id, "the next attempt", settled);
    crate::support::replace(&host.path("hostler.toml"), allowed.as_bytes());
    host.wait_for_generation(3);
    delivery(&host, &id, "delivered");
    assert!(refused(&job) || receiver.received().len() == 2);
}

#[test]
fn faults_of_the_table_are_said_with_their_mend() {
    let file = "secrets = [{ file = \"a.secret\" }]\n";
    let hosts = "allow_hosts = [\"hooks.example.org\"]\n";
    for (table, parts) in [
        (file.to_owned(), &["has no allow_hosts", "write allow_hosts"][..]),
        (hosts.to_owned(), &["has 0 secrets; it needs one, or two", "openssl rand -base64 32"]),
        (format!("{hosts}secrets = [{}]\n", "{ file = \"a.secret\" }, ".repeat(3)), &["has 3 secrets"]),
        (format!("{file}allow_hosts = [\"ftp://a\"]\n"), &["\"ftp://a\" has a scheme", "*.example.org"]),
        (format!("{hosts}secrets = [{{ file = \"none\" }}]\n"), &["secrets: cannot read", "none"]),
        (format!("{hosts}secrets = [{{ file = \"fifo\" }}]\n"), &["secrets: cannot read", "fifo"]),
        (format!("{hosts}secrets = [{{ file = \"huge\" }}]\n"), &["secrets: cannot read", "4096 bytes"]),
        (format!("{hosts}secrets = [{{ file = \"bad\" }}]\n"), &["bad does not begin with whsec_"]),
        (format!("{hosts}secrets = [{{ env = \"NOT_SET\" }}]\n"), &["variable NOT_SET is not set"]),
        (format!("{hosts}secrets = [{{ env = \"SHORT\" }}]\n"), &["variable SHORT has 3 bytes"]),
        (format!("{hosts}secrets = [{{ }}]\n"), &["names either env or file"]),
        (format!("{hosts}{file}timeout_ms = 60001\n"), &["timeout_ms must be at most 60000"]),
        (format!("{hosts}{file}max_age_s = 0\n"), &["max_age_s must be at least 1"]),
        (format!("{hosts}{file}max_in_flight = 1\n"), &["max_in_flight must be at least 2"]),
        (format!("{hosts}{file}ca_file = \"bad\"\n"), &["[jobs.webhooks]: ca_file has no certificate"]),
        (format!("{hosts}{file}retries = 3\n"), &["unknown key \"retries\"", "known here: allow_hosts"]),
    ] {
        let manifest = format!("[models.plus1]\npath = \"plus1.onnx\"\n[jobs.webhooks]\n{table}");
        let setup = Setup::new(&manifest).file("plus1.onnx", model("plus1"));
        let setup = setup.text("a.secret", &secret(1)).text("bad", "nothing").text("huge", &"x".repeat(5000));
        let fifo = std::process::Command::new("mkfifo").arg(setup.path("fifo")).status();
        assert!(fifo.expect("mkfifo runs").success());
        let (code, out, log) = setup.env("SHORT", "whsec_AAAA").run(&["check", "hostler.toml"]);
        assert_eq!(code, 1, "{table}: {out}{log}");
        for part in parts {
            assert!(log.contains(part), "{table}\n{out}{log}\nlacks {part}");
        }
    }
}
