//! Programs that use `tritonclient`, Triton's own Python client, against a real host. Each program
//! covers one theme and is in `tests/clients/<protocol>`, or in `tests/clients/both` if it is the
//! same for both protocols.
//!
//! `cargo xtask test` passes the folder of the Python packages. Without it the test is skipped, but
//! fails in CI.

use crate::support::{Host, Setup, model, plugin, root};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;

/// The environment variable that names the folder with the packages of
/// `tests/clients/requirements.txt`.
const PACKAGES: &str = "HOSTLER_TRITONCLIENT";

/// The time limit of each program, even on a busy machine.
const PROGRAM_SECONDS_MAX: &str = "120";

/// The models that the programs call.
const MANIFEST: &str = "[models.simple]\npath = \"add_sub.onnx\"\n[models.texts]\npath = \"texts.onnx\"\n\
    [models.int8]\npath = \"int8.onnx\"\n[models.datatypes]\npath = \"datatypes.onnx\"\n\
    [models.colours]\npath = \"colours.onnx\"\nlabels = { shares = \"colours.txt\" }\n\
    [models.repeat]\nplugin = \"repeat\"\n[plugins.repeat]\npath = \"repeat.wasm\"\n";

fn start() -> Host {
    let mut setup = Setup::new(MANIFEST).text("colours.txt", "red\ngreen\nblue\n");
    for name in ["add_sub", "texts", "int8", "datatypes", "colours"] {
        setup = setup.file(&format!("{name}.onnx"), model(name));
    }
    setup.file("repeat.wasm", plugin("repeat")).grpc().start()
}

fn packages() -> Option<PathBuf> {
    let packages = std::env::var_os(PACKAGES).map(PathBuf::from);
    if packages.is_none() {
        assert!(std::env::var_os("CI").is_none(), "{PACKAGES} is not set: run `cargo xtask test`");
        eprintln!("skipped: {PACKAGES} is not set; `cargo xtask test` sets it");
    }
    packages
}

fn programs(protocol: &str) -> Vec<PathBuf> {
    let folder = root().join("tests/clients").join(protocol);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "py"));
    files.sort();
    assert!(!files.is_empty(), "{} has no programs", folder.display());
    files
}

/// Runs one program to its end.
fn run(program: &Path, packages: &Path, address: &str, protocol: &str) -> Output {
    let shared = root().join("tests/clients");
    let path = std::env::join_paths([packages, &shared]).unwrap();
    // A program that hangs is killed, and then counts as failed.
    let mut python = Command::new("timeout");
    python
        .arg(PROGRAM_SECONDS_MAX)
        .arg("python3")
        .arg(program)
        .args([address, protocol])
        .env("PYTHONPATH", path);
    python.env("PYTHONDONTWRITEBYTECODE", "1").env("PYTHONNOUSERSITE", "1");
    python.output().expect("python3 starts")
}

/// Runs all programs of a protocol, a few concurrently, and reports all that fail.
fn run_all(protocol: &str, packages: &Path, address: &str) {
    let waiting = Mutex::new([programs("both"), programs(protocol)].concat());
    let faults = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from).min(4) {
            scope.spawn(|| {
                while let Some(program) = { waiting.lock().unwrap().pop() } {
                    let output = run(&program, packages, address, protocol);
                    if !output.status.success() {
                        let said = String::from_utf8_lossy(&output.stderr).into_owned();
                        faults.lock().unwrap().push(format!("{}:\n{said}", program.display()));
                    }
                }
            });
        }
    });
    let faults = faults.into_inner().unwrap();
    assert!(faults.is_empty(), "{} programs failed:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn programs_on_tritonclient_work_over_http() {
    let Some(packages) = packages() else { return };
    let host = start();
    run_all("http", &packages, &host.http.to_string());
}

#[test]
fn programs_on_tritonclient_work_over_grpc() {
    let Some(packages) = packages() else { return };
    let host = start();
    run_all("grpc", &packages, &host.grpc.expect("a gRPC listener").to_string());
}
