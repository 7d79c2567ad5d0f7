//! The OpenAPI document says what the host does: `conformance.py` has schemathesis generate
//! requests from it, and compares the answers.

use crate::support::{Host, Setup, model, plugin, root};
use serde_json::Value;
use std::net::SocketAddr;
use std::process::Command;

/// The models that the examples of the document name.
const MANIFEST: &str = r#"
[server]
access_log = false

[models.plus1]
path = "plus1.onnx"

[plugins.echo]
path = "echo.wasm"

[models.echo]
plugin = "echo"

[models.chain]
pipeline = "chain"

[pipelines.chain]
outputs = { y = "one.y" }

[pipelines.chain.steps.one]
model = "plus1"
in = { x = "input.x" }
"#;

fn start() -> Host {
    Setup::new(MANIFEST).file("plus1.onnx", model("plus1")).file("echo.wasm", plugin("echo")).start()
}

fn check(address: SocketAddr, tags: &[&str]) {
    let Some(packages) = std::env::var_os("HOSTLER_TRITONCLIENT") else {
        assert!(std::env::var_os("CI").is_none(), "HOSTLER_TRITONCLIENT is not set: run `cargo xtask test`");
        eprintln!("skipped: HOSTLER_TRITONCLIENT is not set; `cargo xtask test` sets it");
        return;
    };
    let mut command = Command::new("python3");
    command.arg(root().join("tests/clients/conformance.py")).arg(format!("http://{address}"));
    // These send the same requests in each run; more come from the phases `fuzzing` and `stateful`.
    command
        .args(["--phases", "examples,coverage", "--seconds", "300"])
        .args(tags.iter().flat_map(|tag| ["--tag", tag]));
    command.env("PYTHONPATH", packages).env("PYTHONDONTWRITEBYTECODE", "1");
    let output = command.output().expect("python3 runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

#[test]
fn predictions_and_jobs_are_as_the_document_says() {
    let host = start();
    check(host.http, &["plain", "jobs"]);
    assert_eq!(host.get("/health").status, 200);
}

#[test]
fn administration_is_as_the_document_says() {
    let host = start();
    check(host.admin, &["admin"]);
    assert_eq!(host.get("/health").status, 200);
}

#[test]
fn both_listeners_serve_the_document() {
    let host = start();
    let document: Value = serde_json::from_str(include_str!("../../host/server/openapi.json")).unwrap();
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    for answer in [host.get("/openapi.json"), host.admin_get("/openapi.json")] {
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
        assert_eq!(answer.json(), document);
    }
}
