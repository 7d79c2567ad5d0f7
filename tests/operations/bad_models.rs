//! Tests manifests with several models that cannot be loaded: each is reported, in plain words.

use crate::support::{Setup, model, plugin, replace};
use serde_json::json;

/// `good` is loaded. The others fail for different reasons, and `needs` only because of `wasm`.
const MANIFEST: &str = r#"
[models.good]
path = "good.onnx"
[models.text]
path = "text.onnx"
[models.cut]
path = "cut.onnx"
[models.again]
path = "text.onnx"
[models.rank]
path = "good.onnx"
max_batch_size = 8
labels = { z = "labels.txt" }
[models.needs]
plugin = "wasm"
[plugins.wasm]
path = "text.onnx"
[plugins.echo]
path = "echo.wasm"
[models.echo]
plugin = "echo"
"#;

fn setup(manifest: &str) -> Setup {
    let setup = Setup::new(manifest)
        .file("good.onnx", model("identity"))
        .file("echo.wasm", plugin("echo"))
        .text("labels.txt", "a\n")
        .text("text.onnx", "this is not a model");
    let whole = std::fs::read(model("dense")).unwrap();
    replace(&setup.path("cut.onnx"), &whole[..whole.len() / 2]);
    setup
}

/// Checks that each bad model is named once, and no other.
fn names_all(said: &str) {
    for name in ["text", "cut", "again", "rank"] {
        assert_eq!(said.matches(&format!("model \"{name}:1\": ")).count(), 1, "{name}\n{said}");
    }
    assert!(said.contains("plugin \"wasm\": "), "{said}");
    for name in ["good", "needs", "echo"] {
        assert!(!said.contains(&format!("\"{name}")), "{name}\n{said}");
    }
    let words = ["[ONNXRuntimeError]", "onnxruntime::", "onnxruntime_src", ".cc:", ".h:", "common::Status"];
    assert!(words.iter().all(|word| !said.contains(word)), "{said}");
}

#[test]
fn all_bad_models_are_reported_by_a_check_and_at_start() {
    let (code, _, said) = setup(MANIFEST).run(&["check", "hostler.toml"]);
    assert_eq!(code, 1, "{said}");
    names_all(&said);
    names_all(&setup(MANIFEST).try_start().err().expect("it does not start"));
}

#[test]
fn all_bad_models_are_in_the_record_of_a_reload() {
    let good = "[models.good]\npath = \"good.onnx\"\n";
    let host = setup(good).start();
    replace(&host.path("hostler.toml"), MANIFEST.as_bytes());
    let policy = host.wait_for_outcome("rejected");
    let errors = policy["last_reload"]["errors"].as_array().unwrap().clone();
    assert_eq!(errors.len(), 5, "{errors:?}");
    let lines: Vec<&str> = errors.iter().map(|error| error.as_str().unwrap()).collect();
    names_all(&lines.join("\n"));
    assert_eq!(host.predict("good", json!([[1.0]])).result()["y"], json!([[1.0]]));
    // The same files are refused with the same reasons.
    replace(&host.path("hostler.toml"), format!("# the same\n{MANIFEST}").as_bytes());
    let policy = host.wait_for_outcome("refused");
    assert_eq!(policy["last_reload"]["errors"], json!(errors));
}

#[test]
fn all_failed_checks_are_reported() {
    let tables = ["a", "b"].map(|name| {
        format!("[models.{name}]\npath = \"good.onnx\"\nchecks = [{{ file = \"{name}.json\" }}]\n")
    });
    let sample = r#"{"data": [[1.0]], "expect": {"y": [[2.0]]}}"#;
    let setup = setup(&tables.concat()).text("a.json", sample).text("b.json", sample);
    let (code, _, said) = setup.run(&["check", "hostler.toml"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("model \"a:1\": ") && said.contains("model \"b:1\": "), "{said}");
}

#[test]
fn very_many_bad_models_are_counted() {
    let tables: String =
        (0..100).map(|number| format!("[models.m{number:03}]\npath = \"text.onnx\"\n")).collect();
    let (code, _, said) = setup(&tables).run(&["check", "hostler.toml"]);
    assert_eq!(code, 1, "{said}");
    assert_eq!(said.matches("ONNX Runtime cannot load it").count(), 20, "{said}");
    assert!(said.contains("and 80 more plugins and models, which were not tried"), "{said}");
}

#[test]
fn a_missing_locale_is_named_with_the_remedy() {
    let host = || Setup::new("[models.m]\npath = \"m.onnx\"\n").file("m.onnx", model("lower"));
    // The C library looks for locales nowhere else then.
    let (code, _, said) = host().env("LOCPATH", "/nonexistent").run(&["check", "hostler.toml"]);
    assert_eq!(code, 1, "{said}");
    let parts =
        ["model \"m:1\": ", "the locale \"en_US.UTF-8\", which this system does not have", "localedef"];
    assert!(parts.iter().all(|part| said.contains(part)), "{said}");
}
