//! Tests paths that do not lead to a regular file, never end or are too large: they are refused
//! immediately, by name, for every use of a file.

use crate::support::{Setup, churn, example, model, plugin, replace};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// A reload that waits for a file takes longer than this.
const AT_ONCE: Duration = Duration::from_secs(20);

/// What a path may lead to instead of a regular file, and the expected message.
const STRANGE: [(&str, &str); 4] = [
    ("fifo", "it is a FIFO; only regular files are read"),
    ("device", "it is a device; only regular files are read"),
    ("folder", "it is a folder; only regular files are read"),
    ("sparse", "it has 10737418240 bytes, over the limit of"),
];

fn put(path: &Path, what: &str) {
    let _ = std::fs::remove_file(path);
    match what {
        "fifo" => assert!(Command::new("mkfifo").arg(path).status().unwrap().success()),
        "device" => std::os::unix::fs::symlink("/dev/zero", path).unwrap(),
        "folder" => std::fs::create_dir(path).unwrap(),
        _ => std::fs::File::create(path).unwrap().set_len(10 << 30).unwrap(),
    }
}

fn take_away(path: &Path) {
    let _ = std::fs::remove_file(path).or_else(|_| std::fs::remove_dir(path));
}

/// Returns a setup whose manifest names a file of each kind.
fn every_kind() -> Setup {
    let manifest = "[models.churn]\npath = \"model.onnx\"\ntransformer = \"churn\"\nchecks = [{ file = \
        \"checks.json\" }]\n\n[models.outside]\npath = \"external.onnx\"\n[models.outside.labels]\ny = \
        \"labels.txt\"\n\n[plugins.churn]\npath = \"churn.wasm\"\n[plugins.churn.assets]\nscaling = \
        \"scaling.json\"\n\n[executors.far]\nkind = \"triton\"\nurl = \"127.0.0.1:1\"\ntls = { ca = \
        \"ca.pem\" }\n";
    Setup::new(manifest)
        .file("model.onnx", example("bankchurn/model.onnx"))
        .file("checks.json", example("bankchurn/checks.json"))
        .file("external.onnx", model("external"))
        .file("external.bin", model("external").with_extension("bin"))
        .text("labels.txt", "one\ntwo\n")
        .file("churn.wasm", plugin("churn"))
        .file("scaling.json", example("bankchurn/scaling.json"))
        .file("ca.pem", crate::support::root().join("tests/tls/ca.pem"))
}

const KINDS: [(&str, &str); 9] = [
    ("hostler.toml", "cannot read the manifest"),
    ("model.onnx", "model \"churn:1\""),
    ("checks.json", "model \"churn:1\": check"),
    ("external.onnx", "model \"outside:1\""),
    ("external.bin", "model \"outside:1\""),
    ("labels.txt", "model \"outside:1\": labels of \"y\""),
    ("churn.wasm", "plugin \"churn\""),
    ("scaling.json", "plugin \"churn\": asset \"scaling\""),
    ("ca.pem", "executor \"far\": tls"),
];

#[test]
fn what_is_no_regular_file_or_too_large_is_refused_at_once_as_every_kind() {
    let setup = every_kind();
    let check = || setup.run(&["check", "hostler.toml", "--quick"]);
    let (code, _, error) = check();
    assert_eq!(code, 0, "{error}");
    for (file, named) in KINDS {
        let path = setup.path(file);
        let content = std::fs::read(&path).unwrap();
        for (what, said) in STRANGE {
            put(&path, what);
            let started = Instant::now();
            let (code, _, error) = check();
            assert!(started.elapsed() < AT_ONCE, "{what} as {file} took {:?}", started.elapsed());
            assert_eq!(code, 1, "{what} as {file}: {error}");
            for part in [named, file, said] {
                assert!(error.contains(part), "{what} as {file} does not say {part:?}:\n{error}");
            }
            take_away(&path);
        }
        replace(&path, &content);
    }
    let (code, _, error) = check();
    assert_eq!(code, 0, "{error}");
}

#[test]
fn arguments_of_commands_are_read_within_the_same_bounds() {
    let setup = Setup::new("[models.plus]\npath = \"plus.onnx\"\n").file("plus.onnx", model("plus1"));
    for (what, said) in STRANGE {
        for (file, args) in [
            ("argument.wasm", &["check", "argument.wasm"][..]),
            ("request.json", &["predict", "request.json"]),
            ("body.bin", &["predict", "--body", "body.bin"]),
            ("core.wasm", &["component", "core.wasm", "--world", "model-plugin", "--out", "out.wasm"]),
            ("other.toml", &["check", "other.toml"]),
            ("other.toml", &["diff", "other.toml"]),
            ("other.toml", &["drill", "other.toml"]),
        ] {
            put(&setup.path(file), what);
            let started = Instant::now();
            let (code, _, error) = setup.run(args);
            assert!(started.elapsed() < AT_ONCE, "{what}: {args:?} took {:?}", started.elapsed());
            assert_eq!(code, 1, "{what}: {args:?}: {error}");
            assert!(error.contains(said), "{what}: {args:?}: {error}");
            take_away(&setup.path(file));
        }
    }
}

#[test]
fn a_reload_that_meets_them_is_rejected_and_the_old_policy_serves() {
    let host = churn::setup("").start();
    let error = |policy: &Value| policy["last_reload"]["errors"].to_string();
    for (file, what, said) in [
        ("model.onnx", "fifo", "model.onnx: it is a FIFO"),
        ("scaling.json", "device", "scaling.json: it is a device"),
        ("churn.wasm", "sparse", "raise max_plugin_mb under [files]"),
        ("hostler.toml", "fifo", "cannot read the manifest: it is a FIFO"),
    ] {
        let content = std::fs::read(host.path(file)).unwrap();
        put(&host.path(file), what);
        let policy = host.wait_for_policy(said, |policy| error(policy).contains(said));
        assert_eq!(policy["last_reload"]["outcome"], "rejected");
        assert_eq!(host.predict("bankchurn", churn::low_risk()).status, 200);
        take_away(&host.path(file));
        replace(&host.path(file), &content);
        host.wait_for_outcome("unchanged");
    }
}

#[test]
fn the_manifest_raises_and_lowers_the_limits() {
    let setup = |files: &str| {
        let manifest =
            format!("[models.plus]\npath = \"plus.onnx\"\n[models.plus.labels]\ny = \"l\"\n{files}\n");
        let setup = Setup::new(&manifest).file("plus.onnx", model("plus1"));
        replace(&setup.path("l"), &vec![b'\n'; 2 << 20]);
        setup
    };
    let quick = ["check", "hostler.toml", "--quick"];
    assert_eq!(setup("").run(&quick).0, 0);
    let (code, _, error) = setup("[files]\nmax_labels_mb = 1").run(&quick);
    assert_eq!(code, 1);
    for part in ["l: it has 2097152 bytes, over the limit of 1 MiB for labels", "raise max_labels_mb"] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(setup("[files]\nmax_labels_mb = 2").run(&quick).0, 0);
    for (files, said) in [
        ("max_labels_mb = 0", "[files] max_labels_mb must be at least 1"),
        ("max_model_mb = 2048", "[files] max_model_mb must be at most 2047"),
    ] {
        let (code, _, error) = setup(&format!("[files]\n{files}")).run(&quick);
        assert!(code == 1 && error.contains(said), "{error}");
    }
}
