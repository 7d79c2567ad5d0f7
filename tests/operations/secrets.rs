//! Tests that the host never reveals a plugin's `config`: not to operators, not in the log, not in
//! error messages.

use crate::support::{Setup, plugin, replace};
use std::os::unix::fs::PermissionsExt;

const FIRST: &str = "hunter2-first";
const SECOND: &str = "hunter2-second";

fn manifest(config: &str) -> String {
    format!(
        "[models.echo]\nplugin = \"echo\"\n[plugins.echo]\npath = \"echo.wasm\"\n[plugins.echo.config]\n{config}\n"
    )
}

fn setup(config: &str) -> Setup {
    Setup::new(&manifest(config)).file("echo.wasm", plugin("echo"))
}

#[test]
fn a_changed_value_is_a_change_and_neither_value_is_shown() {
    let setup = setup(&format!("prefix = \"{FIRST}\"\ngone = \"{FIRST}\"")).env("HOSTLER_LOG", "debug");
    let host = setup.start();
    let before = host.policy();
    replace(
        &host.path("hostler.toml"),
        manifest(&format!("prefix = \"{SECOND}\"\nnew = \"{SECOND}\"")).as_bytes(),
    );
    let after = host.wait_for_generation(2);
    for change in ["config.prefix changed", "config.gone removed", "config.new added"] {
        let changes = after["last_reload"]["changes"].to_string();
        assert!(changes.contains(change), "{changes}");
        host.wait_for_log(&["policy applied", change]);
    }
    assert_ne!(before["digest"], after["digest"]);
    let digest = |policy: &serde_json::Value, key: &str| {
        policy["description"]["plugin \"echo\""][key].as_str().expect("a digest").to_owned()
    };
    assert!(digest(&before, "config.prefix").starts_with("digest:"), "{before}");
    assert_ne!(digest(&before, "config.prefix"), digest(&after, "config.prefix"));
    assert_ne!(
        digest(&before, "config.prefix"),
        digest(&before, "config.gone"),
        "each has a digest of its own"
    );

    // The same manifest has the same digests in another process, so `diff` finds no change.
    let admin = host.admin.to_string();
    let (code, out, log) = host.setup.run(&["diff", "hostler.toml", "--admin", &admin]);
    assert!(code == 0 && out.contains("no change"), "{out}{log}");
    replace(
        &host.path("other.toml"),
        manifest(&format!("prefix = \"{FIRST}\"\nnew = \"{SECOND}\"")).as_bytes(),
    );
    let (code, out, log) = host.setup.run(&["diff", "other.toml", "--admin", &admin]);
    assert!(code == 0 && out.contains("config.prefix changed"), "{out}{log}");

    assert_eq!(host.predict("echo", serde_json::json!(["a"])).status, 200, "the plugin has its value");
    let shown = [before.to_string(), after.to_string(), out, log, host.log(), host.stdout().join("\n")];
    let shown = shown.join("\n") + &host.admin_get("/metrics").text();
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn faults_in_a_manifest_do_not_show_values() {
    let host = setup("").start();
    for (config, part) in [
        (format!("prefix = \"{FIRST}\\q\""), "hostler.toml:6:"),
        (format!("prefix = \"{FIRST}"), "invalid"),
        ("prefix = 4711081500".to_owned(), "wrong type: integer, expected a string"),
        ("prefix = [\"4711081500\"]".to_owned(), "wrong type"),
        (format!("prefix = \"a\" \"{FIRST}\""), "hostler.toml:6:"),
        (format!("prefix = \"\"\"\n{FIRST}: \\q\n\"\"\""), "hostler.toml:7:"),
        (
            format!("[plugins.other]\npath = \"echo.wasm\"\nconfig = \"{FIRST}\""),
            "wrong type: string, expected",
        ),
        (format!("[plugins.other]\npath = \"echo.wasm\"\napi_key = \"{FIRST}\""), "unknown key \"api_key\""),
    ] {
        let before = host.policy()["last_reload"]["at"].as_f64();
        replace(&host.path("hostler.toml"), manifest(&config).as_bytes());
        let policy = host.wait_for_policy(&config, |policy| {
            policy["last_reload"]["at"].as_f64() > before && policy["last_reload"]["outcome"] == "rejected"
        });
        let errors = policy["last_reload"]["errors"].to_string();
        let (code, out, log) = host.setup.run(&["check", "hostler.toml"]);
        assert_eq!(code, 1, "{config}");
        assert!(log.contains("-->") && log.contains("<hidden>"), "{config}: {log}");
        for shown in [policy.to_string(), out, log, host.log()] {
            assert!(!shown.contains("hunter2") && !shown.contains("4711081500"), "{config}: {shown}");
        }
        assert!(errors.replace("\\\"", "\"").contains(part), "{config}: {errors}");
    }
}

#[test]
fn copies_of_the_manifest_are_for_its_user_alone() {
    let state = tempfile::tempdir().expect("a folder");
    let folder = state.path().join("state");
    let setup = setup(&format!("prefix = \"{FIRST}\"")).arg("--fallback").arg("last-good");
    let mut host = setup.arg("--state-dir").arg(folder.to_str().expect("UTF-8")).start();
    host.signal("TERM");
    assert!(host.wait().success(), "{}", host.log());
    // No other user can enter the folder, whatever it contains.
    let mode = std::fs::metadata(&folder).expect("the copies").permissions().mode();
    assert_eq!(mode & 0o077, 0, "{mode:o}");
}
