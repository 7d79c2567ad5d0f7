//! Tests versions of a model: which one serves a request without a version, and the routing rules
//! that decide it.

use crate::support::{Client, Host, Setup, model, plugin};
use serde_json::json;
use std::collections::BTreeSet;

const TWO: &str = "[models.\"m:v1\"]\npath = \"1.onnx\"\n[models.\"m:v2\"]\npath = \"2.onnx\"\n";

fn setup(manifest: &str) -> Setup {
    let setup = Setup::new(manifest).file("1.onnx", model("plus1")).file("2.onnx", model("plus2"));
    setup.file("echo.wasm", plugin("echo"))
}

/// Runs `hostler check` with `args`; returns the exit code and all output.
fn check(setup: &Setup, args: &[&str]) -> (i32, String) {
    let (code, out, err) = setup.run(&[&["check", "hostler.toml"], args].concat());
    (code, out + &err)
}

fn refused(manifest: &str, parts: &[&str]) {
    let (code, said) = check(&setup(manifest), &[]);
    assert_eq!(code, 1, "{manifest}\n{said}");
    for part in parts {
        assert!(said.contains(part), "{manifest}\n{said}\nlacks {part}");
    }
}

fn accepted(manifest: &str) {
    let (code, said) = check(&setup(manifest), &[]);
    assert_eq!(code, 0, "{manifest}\n{said}");
}

fn serve(routing: &str) -> Host {
    setup(&format!("{TWO}[routing.m]\n{routing}\n")).start()
}

/// Returns the version that answered, after checking it against the result.
fn version(client: &mut Client, headers: &[(&str, &str)], body: &str) -> String {
    let answer = client.request("POST", "/predict", headers, body.as_bytes());
    let version = answer.json()["version"].as_str().unwrap_or_else(|| panic!("{}", answer.text())).to_owned();
    assert_eq!(answer.result()["y"], json!([if version == "v1" { 1.0 } else { 2.0 }]));
    version
}

#[test]
fn weights_share_requests_and_an_id_stays_on_its_version() {
    let host = serve("weights = { v1 = 90, v2 = 10 }");
    let mut client = host.client();
    let mut ask = |id: &str| version(&mut client, &[("x-request-id", id)], r#"{"model":"m","data":[0]}"#);
    let first: Vec<String> = (0..2000).map(|id| ask(&format!("order-{id}"))).collect();
    let share = first.iter().filter(|version| *version == "v2").count();
    assert!((140..=260).contains(&share), "{share} of 2000 went to the version with 10 %");
    for id in (0..2000).step_by(10) {
        assert_eq!(ask(&format!("order-{id}")), first[id]);
    }
}

#[test]
fn a_header_keeps_its_sender_on_one_version_whatever_the_request_id() {
    let host = serve("weights = { v1 = 50, v2 = 50 }\nby = \"header:X-User-Id\"");
    let mut client = host.client();
    let mut seen = BTreeSet::new();
    let mut by_request = BTreeSet::new();
    for user in 0..50 {
        let user = format!("user-{user}");
        let versions: BTreeSet<String> = (0..5)
            .map(|id| {
                let id = format!("{user}-{id}");
                let headers = [("x-user-id", &*user), ("x-request-id", &*id)];
                version(&mut client, &headers, r#"{"model":"m","data":[0]}"#)
            })
            .collect();
        assert_eq!(versions.len(), 1, "{user} saw {versions:?}");
        seen.extend(versions);
        // Without the header, the request id decides.
        by_request.insert(version(&mut client, &[("x-request-id", &user)], r#"{"model":"m","data":[0]}"#));
    }
    assert_eq!((seen.len(), by_request.len()), (2, 2));
}

#[test]
fn a_version_that_is_asked_for_comes_before_the_weights() {
    let host = serve("weights = { v1 = 0, v2 = 7 }");
    let mut client = host.client();
    for id in 0..20 {
        let id = format!("order-{id}");
        let headers = [("x-request-id", &*id)];
        assert_eq!(version(&mut client, &headers, r#"{"model":"m","data":[0]}"#), "v2");
        assert_eq!(version(&mut client, &headers, r#"{"model":"m","version":"v1","data":[0]}"#), "v1");
    }
    let answer = client.post("/predict", r#"{"model":"m","version":"v3","data":[0]}"#);
    answer.refused(404, "not_found", &["model \"m\" has no version \"v3\"", "versions: v1, v2"]);
}

#[test]
fn routing_rules_must_lead_somewhere() {
    for (rule, parts) in [
        ("weights = { v1 = 0, v2 = 0 }", &["hostler.toml:6:11", "[routing.m]: all weights are 0"][..]),
        ("weights = {}", &["hostler.toml:6:11", "[routing.m]: all weights are 0"]),
        (
            "weights = { v1 = 1, v3 = 1 }",
            &["hostler.toml:6:11", "model \"m\" has no version \"v3\"", "did you mean \"v1\"?"],
        ),
        ("weights = { v1 = -1 }", &["hostler.toml:6:"]),
        ("weights = { v1 = 1.5 }", &["hostler.toml:6:"]),
        (
            "weights = { v1 = 1 }\nby = \"user\"",
            &[
                "hostler.toml:7:6",
                "[routing.m]: by = \"user\" is not known",
                "\"request-id\" or \"header:<name>\"",
            ],
        ),
        ("weights = { v1 = 1 }\nby = \"header:\"", &["hostler.toml:7:6", "by = \"header:\" is not known"]),
        ("by = \"request-id\"", &["hostler.toml:5:1", "the key \"weights\" is missing"]),
    ] {
        refused(&format!("{TWO}[routing.m]\n{rule}\n"), parts);
    }
    accepted(&format!(
        "{TWO}[routing.m]\nweights = {{ v1 = 4294967295, v2 = 4294967295 }}\nby = \"header:X-User\"\n"
    ));
}

#[test]
fn several_versions_without_a_rule_are_refused_and_the_lines_to_add_mend_it() {
    for (name, versions) in [("m", ["v1", "v2"]), ("a.b", ["1.0", "1.1"]), ("m", ["10", "9"])] {
        let manifest: String = versions
            .iter()
            .map(|version| format!("[models.\"{name}:{version}\"]\npath = \"1.onnx\"\n"))
            .collect();
        let list = versions.join(", ");
        let message = format!("model \"{name}\" has the versions {list} and no rule says which one");
        refused(&manifest, &["hostler.toml:3:9", &message, "[routing."]);
        // The text after `help: add` is valid TOML as printed.
        let (_, said) = check(&setup(&manifest), &[]);
        let (_, help) = said.split_once("help: add\n").unwrap_or_else(|| panic!("{said}"));
        let lines: String = help.lines().take(2).map(|line| line.trim_start().to_owned() + "\n").collect();
        assert!(lines.contains(" = 100"), "{lines}");
        let mended = manifest + &lines;
        accepted(&mended);
        let (code, said) = check(&setup(&mended), &["--quick", "--resolve", name]);
        assert_eq!(code, 0, "{said}");
        assert!(said.contains(&format!("100.0 % {name}:{} -> executor onnx", versions[0])), "{said}");
    }
}

#[test]
fn resolve_prints_where_requests_go() {
    let manifest = "[models.\"m:v1\"]\npath = \"1.onnx\"\n[models.\"m:v2\"]\npath = \"2.onnx\"\n[routing.m]\n\
        weights = { v1 = 3, v2 = 1 }\n[models.e]\nplugin = \"echo\"\n[plugins.echo]\npath = \"echo.wasm\"\n[policy]\n\
        \"m:v2\" = \"gpu\"\n";
    let setup = setup(manifest);
    for (asked, code, lines) in [
        ("m", 0, &["75.0 % m:v1 -> executor onnx", "25.0 % m:v2 -> executor gpu"][..]),
        ("m:v2", 0, &["m:v2 -> executor gpu"]),
        ("e", 0, &["e:1 -> executor cpu"]),
        ("e:1", 0, &["e:1 -> executor cpu"]),
        ("m:v3", 1, &["no model \"m:v3\" (did you mean \"m:v1\"?)", "models: e:1, m:v1, m:v2"]),
        ("x", 1, &["no model \"x\"", "models: e:1, m:v1, m:v2"]),
    ] {
        let (got, said) = check(&setup, &["--resolve", asked]);
        assert_eq!(got, code, "{asked}: {said}");
        assert!(lines.iter().all(|line| said.contains(line)), "{asked}: {said}");
    }
    let huge = manifest.replace("v1 = 3, v2 = 1", "v1 = 4294967295, v2 = 4294967295");
    let (code, said) = check(&self::setup(&huge), &["--quick", "--resolve", "m"]);
    assert_eq!((code, said.matches("50.0 %").count()), (0, 2), "{said}");
}
