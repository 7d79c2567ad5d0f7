//! A project in each language: created, built, tested, tried.

use crate::installed::{Project, environment, run, text};
use std::path::Path;
use std::process::Command;

/// Builds a project, runs its cases, and sends its request through it.
fn build_and_try(project: &Project, result: &str) {
    let built = run(project.hostler().arg("build"));
    assert!(built.contains("built my-"), "{built}");
    let tested = run(project.hostler().arg("test"));
    assert!(tested.contains(" passed, 0 failed"), "{tested}");
    let predicted = run(project.hostler().args(["predict", "request.json"]));
    assert!(predicted.contains(result), "{predicted}");
}

#[test]
fn a_model_in_rust() {
    let project = Project::new("rust", "model");
    build_and_try(&project, r#"{"y":[2.0,5.0]}"#);
    // A case that fails is said, and --update takes the answer over.
    project.replace("cases.json", r#"{"y": [2, 5]}"#, r#"{"y": [2, 6]}"#);
    let output = project.hostler().arg("test").output().unwrap();
    assert!(!output.status.success());
    assert!(text(&output).contains("result.y[1]: expected 6, got 5.0"), "{}", text(&output));
    let updated = run(project.hostler().args(["test", "--update"]));
    assert!(updated.contains("2 passed, 0 failed, 1 updated"), "{updated}");
    let tested = run(project.hostler().arg("test"));
    assert!(tested.contains("3 passed, 0 failed"), "{tested}");
}

#[test]
fn a_transformer_in_python() {
    let project = Project::new("python", "transformer");
    build_and_try(&project, r#"{"answer":42"#.replace(':', ": ").as_str());
    let tested = run(project.command(".venv/bin/python").args(["-m", "pytest", "-q"]));
    assert!(tested.contains(" passed"), "{tested}");
}

#[test]
fn an_executor_in_typescript() {
    let project = Project::new("ts", "executor");
    build_and_try(&project, r#"{"y":[42.0]}"#);
    run(project.command("npm").args(["test"]));
}

#[test]
fn a_model_in_c() {
    let project = Project::new("c", "model");
    build_and_try(&project, r#"{"y":[2.0,5.0]}"#);
    // As `make test`, which not every machine has.
    std::fs::create_dir_all(project.folder.join("build")).unwrap();
    let sources = ["-I", "sdk", "test.c", "app.c", "sdk/testing/model.c", "-lm", "-o", "build/test"];
    run(project.command("cc").arg("-std=c11").args(sources));
    run(&mut project.command("build/test"));
}

#[test]
fn a_transformer_in_go() {
    let project = Project::new("go", "transformer");
    build_and_try(&project, r#"{"answer":42"#);
    run(project.command(".venv/bin/go").args(["test", "./..."]));
}

#[test]
fn messages_about_mistakes_name_their_place() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/authors/mistakes/run.py");
    let program = environment().join("bin/hostler");
    let printed = run(Command::new("python3").arg(script).arg(program).arg("--short"));
    assert!(printed.contains("12 messages, 0 of them lack something"), "{printed}");
}
