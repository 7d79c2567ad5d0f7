//! Starts a real host on free ports, in its own folder, and sends it requests as a client does.
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
pub mod http2;
pub mod in_process;
pub mod jobs;
pub mod load;
pub mod onnx;
pub mod pipelines;
pub mod process;
pub mod receiver;
pub mod setup;
pub mod slow;
pub mod store;
pub mod streaming;
pub mod tls;
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

/// The limit of every wait in a test, even on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Returns the root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the path of a plugin that `cargo xtask plugin` (or `test`) built.
pub fn plugin(name: &str) -> PathBuf {
    let path = root().join("plugins/bin").join(format!("{name}.wasm"));
    assert!(path.is_file(), "{} is missing: run `cargo xtask plugin {name}`", path.display());
    path
}

/// Creates a plugin engine in this process. Its components are compiled by the `hostler` binary,
/// because a test binary has no command for that.
pub fn engine(instances: u32) -> Arc<hostler::plugin::Engine> {
    let compiler = Some(env!("CARGO_BIN_EXE_hostler").into());
    let config = hostler::config::EngineConfig { instances, compiler, ..Default::default() };
    hostler::plugin::Engine::new(config)
}

/// Returns the path of an example's file.
pub fn example(path: &str) -> PathBuf {
    root().join("examples").join(path)
}

/// Returns the path of a small ONNX model in `tests/models`.
pub fn model(name: &str) -> PathBuf {
    let path = root().join("tests/models").join(format!("{name}.onnx"));
    assert!(path.is_file(), "{} is missing: see tests/models/make.py", path.display());
    path
}

/// Writes a temporary file in the same folder and renames it, so that the file changes atomically.
pub fn replace(path: &Path, content: &[u8]) {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).expect("the folder");
    }
    let beside = path.with_extension("being-written");
    std::fs::write(&beside, content).expect("the file can be written");
    std::fs::rename(&beside, path).expect("the file can be renamed");
}

/// Returns the same component with another digest, by adding a custom section at its end.
pub fn never_seen(component: &[u8], number: u8) -> Vec<u8> {
    // The process id makes the digest unknown to any cache of an earlier run.
    let id = std::process::id().to_le_bytes();
    [component, &[0, 7, 1, b'n', number], &id[..]].concat()
}

/// Returns the bytes with every `from` replaced by `to`, which must have the same length.
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

/// Returns how often a test repeats its main step: as `cargo xtask soak` says, or `few` elsewhere.
pub fn repeats(few: usize) -> usize {
    std::env::var("HOSTLER_SOAK").map_or(few, |count| count.parse().expect("HOSTLER_SOAK is a number"))
}

/// Returns whether `cargo xtask soak` runs this test, at its full length.
pub fn is_soak() -> bool {
    std::env::var_os("HOSTLER_SOAK").is_some()
}

/// Repeats `attempt`, which returns how long something took, until it took less than `limit`.
/// A busy machine delays some attempts, and a host that is too slow delays all of them.
pub fn takes_less_than(limit: Duration, mut attempt: impl FnMut() -> Duration) {
    let mut tried = Vec::new();
    while tried.len() < 10 {
        tried.push(attempt());
        if tried.last().is_some_and(|took| *took < limit) {
            return;
        }
    }
    panic!("it always took at least {limit:?}: {tried:?}");
}

/// Calls `ask` until it returns a value. Panics with `context` after `PATIENCE`.
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

/// Whether a character ends a line, controls a terminal, or changes the direction of text.
pub fn is_deceptive(one: char) -> bool {
    let others = "\u{61c}\u{200e}\u{200f}\u{2028}\u{2029}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\
                  \u{2066}\u{2067}\u{2068}\u{2069}";
    one.is_control() || others.contains(one)
}
