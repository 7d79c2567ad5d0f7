//! The page for operators in a browser: Chromium does what an operator does, by `page.py`, and
//! checks what the page then shows.

use super::access::Keys;
use crate::support::{Setup, model, plugin, replace, root};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::io::Write;
use std::process::{Command, Stdio};

const MANIFEST: &str = r#"
[server]
access_rules = "access.toml"

[reload]
mode = "manual"

[plugins.hostile]
path = "hostile.wasm"

[models.hostile]
plugin = "hostile"

[models.plus]
path = "plus.onnx"

[models.minus]
path = "plus.onnx"

[models.twice]
pipeline = "twice"

[pipelines.twice]
outputs = { y = "second.y" }

[pipelines.twice.steps.first]
model = "plus"
in = { x = "input.x" }

[pipelines.twice.steps.second]
model = "minus"
in = { x = "first.y" }
"#;

const RULES: &str = r#"
keys = "keys.toml"

[[rules]]
who = ["key:ops"]
verbs = ["predict", "jobs", "read", "load", "metrics", "admin"]

[[rules]]
who = ["anonymous"]
verbs = ["jobs"]
"#;

/// Returns the environment variable `name`, without which the test is skipped on a laptop.
fn variable(name: &str) -> Option<std::ffi::OsString> {
    let value = std::env::var_os(name);
    if value.is_none() {
        assert!(std::env::var_os("CI").is_none(), "{name} is not set: run `cargo xtask test`");
        eprintln!("skipped: {name} is not set; `cargo xtask test` sets it");
    }
    value
}

#[test]
fn an_operator_does_everything_on_the_page() {
    let (Some(chromium), Some(packages)) = (variable("HOSTLER_CHROMIUM"), variable("HOSTLER_TRITONCLIENT"))
    else {
        return;
    };
    let keys = Keys::make();
    let host = Setup::new(MANIFEST)
        .file("plus.onnx", model("plus1"))
        .file("hostile.wasm", plugin("hostile"))
        .text("keys.toml", &keys.file)
        .text("access.toml", RULES)
        .start();
    let config = json!({
        "chromium": chromium.to_str(),
        "admin": format!("http://{}", host.admin),
        "public": format!("http://{}", host.http),
        "key": keys.ops,
        "folder": host.path(""),
        "pictures": std::env::var("HOSTLER_PICTURES").ok(),
        "model": "plus", "model_data": {"x": [1.5, 2.5]}, "model_wrong": {"x": ["one"]},
        "pipeline": "twice", "pipeline_data": {"x": [1, 2]},
        "plugin": "hostile", "plugin_model": "hostile", "plugin_data": {"data": ["a"]},
        "plugin_parameters": {"do": "say", "at": "predict", "text": "<img src=x onerror=alert(1)> \u{202e}evil"},
        "job_model": "plus", "job_data": {"x": [1]},
    });
    run(&packages, &config, || host.log());
}

/// A page that is slow to draw would keep an operator from acting when it matters.
#[test]
fn many_models_and_reloads_stay_quick() {
    const MODELS: usize = 200;
    const RELOADS: usize = 100;
    let (Some(chromium), Some(packages)) = (variable("HOSTLER_CHROMIUM"), variable("HOSTLER_TRITONCLIENT"))
    else {
        return;
    };
    let manifest = |timeout: usize| {
        let models = (0..MODELS).map(|at| format!("[models.m{at}]\npath = \"plus.onnx\"\n"));
        let first = format!(
            "[reload]\nmode = \"manual\"\n[models.first]\npath = \"plus.onnx\"\ntimeout_ms = {timeout}\n"
        );
        std::iter::once(first).chain(models).collect::<String>()
    };
    let host = Setup::new(&manifest(1)).file("plus.onnx", model("plus1")).start();
    for timeout in 2..=RELOADS {
        replace(&host.path("hostler.toml"), manifest(timeout).as_bytes());
        assert_eq!(host.admin_post("/admin/reload").json()["outcome"], "applied");
    }
    let config = json!({
        "chromium": chromium.to_str(),
        "admin": format!("http://{}", host.admin),
        "folder": host.path(""),
        "models": MODELS + 1,
        "reloads": RELOADS,
    });
    run(&packages, &config, || host.log());
}

/// Runs `page.py`.
fn run(packages: &OsStr, config: &Value, log: impl Fn() -> String) {
    let mut script = Command::new("python3")
        .arg(root().join("tests/clients/page.py"))
        .env("PYTHONPATH", packages)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::piped())
        .spawn()
        .expect("python3 runs");
    script.stdin.take().expect("a pipe").write_all(config.to_string().as_bytes()).expect("it is read");
    assert!(script.wait().expect("it ends").success(), "{}", log());
}
