//! The audit log: what changes the host is recorded before it happens, or refused.

use crate::access::{Keys, MANIFEST, RULES};
use crate::support::{Answer, Client, Host, Setup, model};
use serde_json::Value;

/// The manifest of the tests of access rules, with an audit log at this path.
fn manifest(audit_log: &str) -> String {
    MANIFEST.replace("[server]\n", &format!("[server]\naudit_log = \"{audit_log}\"\n"))
}

fn setup(keys: &Keys, manifest: &str) -> Setup {
    Setup::new(manifest)
        .file("plus.onnx", model("plus1"))
        .text("keys.toml", &keys.file)
        .text("access.toml", RULES)
}

fn post(address: std::net::SocketAddr, key: &str, path: &str, body: &str) -> Answer {
    let bearer = format!("Bearer {key}");
    Client::new(address).request("POST", path, &[("authorization", &bearer)], body.as_bytes())
}

fn lines(host: &Host) -> Vec<Value> {
    let text = std::fs::read_to_string(host.path("audit.jsonl")).expect("the audit log");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn each_act_has_a_line_with_who_and_what() {
    let keys = Keys::make();
    let host = setup(&keys, &manifest("audit.jsonl")).start();
    let admin = |path: &str| post(host.admin, &keys.ops, path, "").status;
    assert_eq!(post(host.http, &keys.loader, "/v2/repository/models/minus/unload", "").status, 200);
    assert_eq!(post(host.http, &keys.loader, "/v2/repository/models/minus/load", "").status, 200);
    assert_eq!(admin("/admin/reload"), 200);
    assert_eq!(admin("/admin/reload?dry_run=true"), 200);
    assert_eq!(admin("/admin/jobs/purge?all=true"), 200);
    assert_eq!(admin("/admin/jobs/purge?all=true&dry_run=true"), 200);
    admin("/admin/policy/rollback");
    // What is not allowed is not done, and what is no act has no line.
    assert_eq!(post(host.http, &keys.app, "/v2/repository/models/minus/unload", "").status, 403);
    assert_eq!(post(host.http, &keys.app, "/predict", r#"{"model":"plus","data":[1]}"#).status, 200);
    host.signal("HUP");
    let seen = || {
        let acts: Vec<String> = lines(&host)
            .iter()
            .map(|line| format!("{} {} {}", line["by"], line["act"], line["target"]))
            .collect();
        (acts.len() == 6).then_some(acts)
    };
    let acts = crate::support::eventually("six lines", seen, || format!("{:?}", lines(&host)));
    let expected = [
        r#""key:loader" "unload" "minus""#,
        r#""key:loader" "load" "minus""#,
        r#""key:ops" "reload" """#,
        r#""key:ops" "purge_jobs" "all=true""#,
        r#""key:ops" "rollback" """#,
        r#""SIGHUP" "reload" """#,
    ];
    assert_eq!(acts, expected);
    let first = &lines(&host)[0];
    assert_eq!(first["address"], "127.0.0.1", "{first}");
    assert!(first["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{first}");
    assert!(first["request_id"].as_str().is_some_and(|id| !id.is_empty()), "{first}");
}

#[test]
fn an_act_that_cannot_be_recorded_is_refused_except_for_a_rollback() {
    let keys = Keys::make();
    let setup = setup(&keys, &manifest("audit.jsonl"));
    // A log of this size cannot grow once files are limited to it.
    let earlier = "{\"time\":\"\",\"act\":\"earlier\"}\n".repeat((64 << 10) / 31);
    std::fs::write(setup.path("audit.jsonl"), &earlier).expect("written");
    let host = setup.start();
    limit_file_size(host.pid(), earlier.len());
    let refused = post(host.http, &keys.loader, "/v2/repository/models/minus/unload", "");
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.text().contains("cannot record unload in the audit log"), "{}", refused.text());
    let minus = post(host.http, &keys.ops, "/predict", r#"{"model":"minus","data":[1]}"#);
    assert_eq!(minus.status, 200, "it is still there: {}", minus.text());
    let reload = post(host.admin, &keys.ops, "/admin/reload", "");
    assert_eq!((reload.status, reload.error()["kind"].clone()), (503, "unavailable".into()));
    // There is no earlier policy, which is another error than that of the audit log.
    let rollback = post(host.admin, &keys.ops, "/admin/policy/rollback", "");
    assert!(!rollback.text().contains("audit log"), "{}", rollback.text());
    let reserve = std::fs::read(host.path("audit.jsonl.reserve")).expect("the reserve");
    assert!(reserve.starts_with(b"{\"time\":") && reserve.len() == 64 << 10, "{}", reserve.len());
}

/// Lets the process write no file beyond this size.
fn limit_file_size(pid: u32, bytes: usize) {
    let limit = format!("--fsize={bytes}");
    let output = std::process::Command::new("prlimit").args([&limit, "--pid", &pid.to_string()]).output();
    let output = output.expect("prlimit runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_file_that_cannot_be_the_audit_log_is_named_at_start() {
    let keys = Keys::make();
    for (path, part) in
        [("/dev/full", "not a regular file"), ("gone/audit.jsonl", "cannot open the audit log")]
    {
        let error = setup(&keys, &manifest(path)).try_start().err().expect("it does not start");
        assert!(error.contains(part) && error.contains(path), "{error}");
    }
}
