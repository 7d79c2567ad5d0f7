//! Starts a real host on free ports, in a folder of its own, and speaks to it as a client would.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod certificates;
pub mod churn;
pub mod client;
pub mod control;
pub mod custom;
pub mod exposition;
pub mod gather;
pub mod grpc;
pub mod host;
pub mod jobs;
pub mod load;
pub mod onnx;
pub mod pipelines;
pub mod process;
pub mod setup;
pub mod slow;
pub mod store;
pub mod streaming;
pub mod triton;
pub mod usage;
pub mod versions;

pub use client::{Answer, Client};
pub use host::Host;
pub use setup::Setup;
pub use usage::Usage;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Nothing that a test waits for takes longer, even on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A plugin that `cargo xtask plugin` (or `test`) has built.
pub fn plugin(name: &str) -> PathBuf {
    let path = root().join("plugins/bin").join(format!("{name}.wasm"));
    assert!(path.is_file(), "{} is missing: run `cargo xtask plugin {name}`", path.display());
    path
}

/// A plugin engine in this process. Its components are compiled by the binary: a test has no
/// command for that.
pub fn engine(instances: u32) -> Arc<hostler::plugin::Engine> {
    let compiler = Some(env!("CARGO_BIN_EXE_hostler").into());
    let config = hostler::config::EngineConfig { instances, compiler, ..Default::default() };
    hostler::plugin::Engine::new(config).expect("a plugin engine")
}

/// A file of an example.
pub fn example(path: &str) -> PathBuf {
    root().join("examples").join(path)
}

/// A small ONNX model of `tests/models`.
pub fn model(name: &str) -> PathBuf {
    let path = root().join("tests/models").join(format!("{name}.onnx"));
    assert!(path.is_file(), "{} is missing: see tests/models/make.py", path.display());
    path
}

/// Writes a file beside its place and renames it there, as a careful tool does.
pub fn replace(path: &Path, content: &[u8]) {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).expect("the folder");
    }
    let beside = path.with_extension("being-written");
    std::fs::write(&beside, content).expect("the file can be written");
    std::fs::rename(&beside, path).expect("the file can be renamed");
}

/// The same component with another digest: a custom section at its end.
pub fn never_seen(component: &[u8], number: u8) -> Vec<u8> {
    // The process id, so that no cache of an earlier run knows it.
    let id = std::process::id().to_le_bytes();
    [component, &[0, 7, 1, b'n', number], &id[..]].concat()
}

/// The file with every `from` replaced by `to`, which is as long.
pub fn patched(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut patched = bytes.to_vec();
    let mut hits = 0;
    for start in 0..=bytes.len() - from.len() {
        if &bytes[start..start + from.len()] == from {
            patched[start..start + to.len()].copy_from_slice(to);
            hits += 1;
        }
    }
    assert!(hits > 0, "nothing to patch");
    patched
}

/// How often `cargo xtask soak` wants a test to repeat what it is about; `few` elsewhere.
pub fn repeats(few: usize) -> usize {
    std::env::var("HOSTLER_SOAK").map_or(few, |count| count.parse().expect("HOSTLER_SOAK is a number"))
}

/// `cargo xtask soak` runs this test, at its full length.
pub fn is_soak() -> bool {
    std::env::var_os("HOSTLER_SOAK").is_some()
}

/// Asks until there is an answer; panics with `context` when patience is at its end.
pub fn eventually<T>(what: &str, ask: impl Fn() -> Option<T>, context: impl Fn() -> String) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < until, "waited in vain for {what}\n{}", context());
        std::thread::sleep(Duration::from_millis(5));
    }
}
