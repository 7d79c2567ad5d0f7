//! Tests `hostler drill`: it subjects a copy of a manifest to faults under load, and reports and
//! fails on forbidden outcomes.

use crate::support::{Setup, eventually, example, model, plugin, root};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::SystemTime;

const EXERCISES: [&str; 11] = [
    "steady", "manifest", "plugins", "models", "moves", "damage", "rollback", "hostile", "leavers",
    "overload", "stop",
];

/// A setup, and the folder in which the drill makes its copy.
struct Drill {
    setup: Setup,
    copies: tempfile::TempDir,
}

impl Drill {
    fn of(setup: Setup) -> Self {
        Drill { setup, copies: tempfile::tempdir().unwrap() }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hostler"));
        command.arg("drill").args(args).current_dir(self.setup.dir.path());
        command.env("TMPDIR", self.copies.path());
        command
    }

    /// Runs a short drill and returns its JSON report.
    fn short(&self, args: &[&str]) -> (Output, Value) {
        let short = ["--json", "--seconds", "0.2", "--connections", "4", "--swaps-per-second", "10"];
        let output = self.command(&[&short[..], args].concat()).output().unwrap();
        let report = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (output, report)
    }

    /// Returns the processes that serve the copy.
    fn running(&self) -> Vec<PathBuf> {
        let folder = self.copies.path().to_str().unwrap();
        let processes = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
        let serves = |path: &PathBuf| {
            let line = std::fs::read(path.join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(folder)
        };
        processes.filter(serves).collect()
    }

    fn nothing_is_left(&self) {
        assert_eq!(self.running(), Vec::<PathBuf>::new());
        assert_eq!(std::fs::read_dir(self.copies.path()).unwrap().count(), 0);
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Returns every file in a folder, recursively, with its content and modification time.
fn state(folder: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(state(&path));
        } else {
            let written = std::fs::metadata(&path).unwrap().modified().unwrap();
            found.insert(path.clone(), (std::fs::read(&path).unwrap(), written));
        }
    }
    found
}

fn row<'a>(report: &'a Value, name: &str) -> &'a Value {
    let rows = report["exercises"].as_array().unwrap();
    rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("no {name} in {report:#}"))
}

/// Checks for exit code 0, and that every exercise except `skipped` passed and had answers.
fn passed(output: &Output, report: &Value, skipped: &[&str]) {
    assert_eq!(output.status.code(), Some(0), "{report:#}\n{}", text(&output.stderr));
    assert_eq!(report["passed"], true);
    for name in EXERCISES {
        let row = row(report, name);
        let verdict = if skipped.contains(&name) { "skipped" } else { "pass" };
        assert_eq!(row["verdict"], verdict, "{row:#}");
        if verdict == "pass" {
            assert!(row["requests"].as_u64() > Some(0), "{row:#}");
            assert_eq!((&row["failed"], &row["wrong"]), (&json!(0), &json!(0)), "{row:#}");
            assert!(row["p50_ms"].as_f64() <= row["worst_ms"].as_f64(), "{row:#}");
        }
    }
}

#[test]
fn a_sound_manifest_passes_and_its_files_are_left_alone() {
    let mut setup = Setup::new(
        &std::fs::read_to_string(example("bankchurn/hostler.toml"))
            .unwrap()
            .replace("../../plugins/bin/churn.wasm", plugin("churn").to_str().unwrap()),
    );
    for file in ["model.onnx", "scaling.json", "checks.json"] {
        setup = setup.file(file, example("bankchurn").join(file));
    }
    let drill = Drill::of(setup);
    let before = state(drill.setup.dir.path());
    let (output, report) = drill.short(&[]);
    passed(&output, &report, &[]);
    assert_eq!(state(drill.setup.dir.path()), before);
    drill.nothing_is_left();

    let checked = json!({"model": "bankchurn:1", "samples": 3, "from": "checks"});
    let made_up = json!({"model": "bankchurn-raw:1", "samples": 1, "from": "metadata"});
    assert_eq!(report["models"], json!([checked, made_up]));
    // At least twice from each of two clients, on fresh and on reused instances.
    for (misdeed, status) in [("spins", 504), ("sleeps", 504), ("traps", 500), ("answers other tensors", 500)]
    {
        let row = row(&report, &format!("hostile: {misdeed}"));
        assert!(row["requests"].as_u64() >= Some(4) && row["failed"] == 0, "{row:#}");
        assert!(row["done"].as_str().unwrap().ends_with(&status.to_string()), "{row:#}");
    }
}

#[test]
fn two_lines_are_enough() {
    let drill =
        Drill::of(Setup::new("[models.plus]\npath = \"plus.onnx\"\n").file("plus.onnx", model("plus1")));
    let (output, report) = drill.short(&[]);
    passed(&output, &report, &["plugins"]);
    drill.nothing_is_left();
}

#[test]
fn the_store_of_the_users_jobs_is_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("kept");
    let tables = format!("[stores.main]\nkind = \"redb\"\ndir = {kept:?}\n[jobs]\nstore = \"main\"\n");
    let setup = Setup::new(&format!("[models.plus]\npath = \"plus.onnx\"\n{tables}"));
    let drill = Drill::of(setup.file("plus.onnx", model("plus1")));
    let (output, report) = drill.short(&["--only", "steady"]);
    assert!(output.status.success(), "{report}\n{}", text(&output.stderr));
    assert!(!kept.exists(), "the drill serves a copy");
}

#[test]
fn manual_reloads_pins_and_versions_are_drilled_too() {
    let digest = |path: &Path| {
        let output = Command::new("sha256sum").arg(path).output().unwrap();
        text(&output.stdout).split(' ').next().unwrap().to_owned()
    };
    let (echo, plus) = (plugin("echo"), model("plus1"));
    let manifest = format!(
        "[reload]\nmode = \"manual\"\n[plugins.echo]\npath = {echo:?}\nsha256 = \"{}\"\n[models.\"echo:v1\"]\n\
         plugin = \"echo\"\n[models.\"echo:v2\"]\nplugin = \"echo\"\n[policy]\n\"echo:v2\" = \"gpu\"\n\
         [routing.echo]\nweights = {{ v1 = 1, v2 = 1 }}\n[models.plus]\npath = {plus:?}\nsha256 = \"sha256:{}\"\n",
        digest(&echo),
        digest(&plus),
    );
    let drill = Drill::of(Setup::new(&manifest));
    let only = ["--only", "plugins", "--only", "models", "--only", "moves", "--only", "damage"];
    let (output, report) = drill.short(&only);
    assert_eq!(output.status.code(), Some(0), "{report:#}\n{}", text(&output.stderr));
    let names: Vec<&Value> = report["exercises"].as_array().unwrap().iter().map(|row| &row["name"]).collect();
    assert_eq!(names, ["plugins", "models", "moves", "damage"]);
    drill.nothing_is_left();
}

#[test]
fn a_plugin_that_remembers_fails() {
    let wat = root().join("tests/plugins/hostile/wat/remembers.wat");
    let setup = |instances: &str| {
        let manifest = format!(
            "[plugins.p]\npath = \"p.wasm\"\ninstances = \"{instances}\"\n[models.p]\nplugin = \"p\"\n\
             [models.plus]\npath = \"plus.onnx\"\n"
        );
        let setup = Setup::new(&manifest).file("plus.onnx", model("plus1"));
        crate::support::replace(&setup.path("p.wasm"), &wat::parse_file(&wat).unwrap());
        Drill::of(setup)
    };
    let only = ["--only", "steady", "--only", "stop"];
    let (output, report) = setup("reused").short(&only);
    assert_eq!(output.status.code(), Some(1), "{report:#}");
    assert_eq!(report["passed"], false);
    let steady = row(&report, "steady");
    assert!(steady["verdict"] == "fail" && steady["wrong"].as_u64() > Some(0), "{steady:#}");
    assert!(steady["faults"].to_string().contains("model \\\"p:1\\\": result.x: expected"), "{steady:#}");

    let (output, report) = setup("fresh").short(&only);
    assert_eq!(output.status.code(), Some(0), "a fresh instance remembers nothing: {report:#}");

    // The same drill with the report as a table.
    let drill = setup("reused");
    let args = ["--seconds", "0.1", "--connections", "2", "--only", "steady"];
    let output = drill.command(&args).output().unwrap();
    let table = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{table}");
    for part in ["exercise ", "FAIL", "answers are wrong", "hostler.toml: failed: steady"] {
        assert!(table.contains(part), "{table}\nlacks {part}");
    }
    drill.nothing_is_left();
}

#[test]
fn a_host_that_dies_fails() {
    let setup = Setup::new("[models.plus]\npath = \"plus.onnx\"\n").file("plus.onnx", model("plus1"));
    let drill = Drill::of(setup);
    let args = ["--json", "--seconds", "2", "--connections", "2"];
    let mut child = drill.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line == "drill: steady"));
    let host = drill.running()[0].file_name().unwrap().to_owned();
    assert!(Command::new("kill").arg("-KILL").arg(host).status().unwrap().success());
    lines.for_each(drop);
    let output = child.wait_with_output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &report["passed"]), (Some(1), &json!(false)), "{report:#}");
    let steady = row(&report, "steady");
    assert!(steady["verdict"] == "fail" && steady["failed"].as_u64() > Some(0), "{steady:#}");
    assert_eq!(row(&report, "hostile")["verdict"], "skipped");
    drill.nothing_is_left();
}

#[test]
fn a_drain_that_is_too_short_fails() {
    let manifest = "[server]\ndrain_timeout_ms = 1\n[models.loop]\npath = \"loop.onnx\"\nchecks = [{ file = \"c.json\" }]\n";
    let setup = Setup::new(manifest).file("loop.onnx", model("loop"));
    let setup = setup.text("c.json", "{\"data\": {\"n\": [300000]}, \"expect\": {}}");
    let drill = Drill::of(setup);
    let (output, report) = drill.short(&["--only", "stop"]);
    assert_eq!(output.status.code(), Some(1), "{report:#}");
    let stop = row(&report, "stop");
    assert!(stop["faults"].to_string().contains("exit status: 1; expected exit code 0"), "{stop:#}");
    drill.nothing_is_left();
}

#[test]
fn what_cannot_be_drilled_is_said() {
    let refused = |drill: &Drill, parts: &[&str]| {
        let (output, _) = drill.short(&[]);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!((output.status.code(), &*out), (Some(1), ""), "{err}");
        for part in parts {
            assert!(err.contains(part), "{err}\nlacks {part}");
        }
        assert!(
            !err.contains(drill.copies.path().to_str().unwrap()),
            "the user's paths, not the copy's: {err}"
        );
        drill.nothing_is_left();
    };
    // The same message as from `hostler check`.
    let faulty = Drill::of(Setup::new("[models.a]\npath = \"none.onnx\"\n"));
    refused(&faulty, &["--> ", "hostler.toml:2:8", "none.onnx"]);
    assert!(text(&faulty.short(&[]).0.stderr).ends_with(&faulty.setup.run(&["check"]).2));

    let check = "[models.plus]\npath = \"plus.onnx\"\nchecks = [{ file = \"checks.json\" }]\n";
    let check = Setup::new(check).file("plus.onnx", model("plus1"));
    let check = check.text("checks.json", "{\"data\": [1], \"expect\": {\"y\": [3]}}");
    let place = check.path("checks.json").display().to_string();
    refused(&Drill::of(check), &["model \"plus:1\": check ", &place, "result.y[0]: expected 3, got 2"]);

    let manifest = "[plugins.hostile]\npath = \"hostile.wasm\"\n[models.hostile]\nplugin = \"hostile\"\n\
                    transformer = \"hostile\"\n";
    let opaque = Drill::of(Setup::new(manifest).file("hostile.wasm", plugin("hostile")));
    refused(
        &opaque,
        &["model \"hostile:1\": no sample: add checks", "checks = [{ file = \"checks.json\" }]"],
    );

    let drill = Drill::of(Setup::new(""));
    for args in
        [["--seconds", "0"], ["--connections", "0"], ["--only", "nonsense"], ["--swaps-per-second", "x"]]
    {
        let output = drill.command(&args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", text(&output.stderr));
    }
}

#[test]
fn an_interrupted_drill_leaves_nothing_behind() {
    for signal in ["INT", "TERM", "KILL"] {
        let setup = Setup::new("[models.plus]\npath = \"plus.onnx\"\n").file("plus.onnx", model("plus1"));
        let drill = Drill::of(setup);
        let mut child = drill.command(&["--seconds", "600"]).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        assert!(lines.any(|line| line == "drill: steady"), "{signal}");
        assert_eq!(drill.running().len(), 1, "{signal}");
        let sent = Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status();
        assert!(sent.unwrap().success());
        let said: Vec<String> = lines.collect();
        let status = child.wait().unwrap();
        if signal == "KILL" {
            // SIGKILL: the kernel ends the host, and no process is left to remove the copy.
            let ended = || drill.running().is_empty().then_some(());
            eventually("the host to end", ended, || format!("{:?}", drill.running()));
        } else {
            assert_eq!(status.code(), Some(1), "{signal}");
            assert!(
                said.iter().any(|line| line.contains(&format!("SIG{signal}: the drill was stopped"))),
                "{said:?}"
            );
            drill.nothing_is_left();
        }
    }
}
