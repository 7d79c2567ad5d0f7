//! `cargo xtask <command>`: everything about this repository that takes more than one cargo call. Each command sets up
//! what it needs and is cheap when there is nothing to do.

use std::process::ExitCode;

use xtask::command::run;
use xtask::error::{Error, Result};
use xtask::layout::Layout;
use xtask::{onnxruntime, plugin, serve, test, triton};

const USAGE: &str = "\
cargo xtask <command>

  serve [--release] [EXAMPLE] [-- ARGS]   set up, build and serve examples/EXAMPLE (default: bankchurn)
  test [--only lints|tests] [ARGS]        all that CI checks; ARGS go to `cargo test` and skip the lints
  soak [N]                                the long forms of tests that have one, N swaps each (default: 400)
  plugin NAME [--as OTHER]                build plugins/NAME and put it at plugins/bin/NAME.wasm (or OTHER.wasm)
  ort                                     fetch the ONNX Runtime library into the cache and print its path
  triton                                  fetch a Triton into the cache and print the program that starts it
  bench [--seconds N] [--rounds N]        measure against FastAPI + uvicorn, write docs/measured/performance.md
        [--quick] [--hostler PATH]        only see that it works; measure another build
        [--batching]                      instead: each model with and without max_batch_size
        [--executors]                     instead: each model with and without a plugin before its executor
        [--pipelines]                     instead: one model and a pipeline of five, beside Triton's ensemble
  bench --against BINARY [--seconds N]    measure this build against an earlier one, pair by pair, and judge
        [--rounds PAIRS] [--only ROW]     at least 20 pairs; one of plain, reused, fresh, batched, plain-grpc
        [--quick] [--hostler PATH]        only see that it works; judge another build
  bench triton [--seconds N] [--rounds N] measure against a real Triton, by HTTP and gRPC, streams included
  bench waits [--rounds N]                thousands of requests that wait in one instance; against a real Triton
  bench protocol [--seconds N]            users who think, a slow model, probes; against FastAPI

Downloads are kept in $HOSTLER_CACHE, else $XDG_CACHE_HOME/hostler, else ~/.cache/hostler.";

fn main() -> ExitCode {
    // ONNX Runtime in tests and in the benchmark's peers sends usage data to its maker unless told not to.
    // SAFETY: no other thread runs yet.
    unsafe { std::env::set_var("ORT_DISABLE_TELEMETRY", "1") };
    let args: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(args: &[String]) -> Result<()> {
    let (name, rest) = match args.split_first() {
        None => ("help", args),
        Some((name, rest)) => (name.as_str(), rest),
    };
    if matches!(name, "help" | "-h" | "--help") || rest.first().is_some_and(|arg| arg == "--help") {
        println!("{USAGE}");
        return Ok(());
    }
    let layout = Layout::locate()?;
    match name {
        "serve" => serve::serve(&layout, rest),
        "test" => test::test(&layout, rest),
        "soak" => test::soak(&layout, rest),
        "plugin" => plugin::command(&layout, rest),
        "ort" => onnxruntime::library(&layout).map(|path| println!("{}", path.display())),
        "triton" => triton::program(&layout).map(|path| println!("{}", path.display())),
        "bench" => bench(&layout, rest),
        _ => Err(Error::new(format!("command {name:?}: there is none of that name"), USAGE)),
    }
}

/// Builds and runs the benchmark, a crate of its own.
fn bench(layout: &Layout, args: &[String]) -> Result<()> {
    run(layout.cargo().args(["run", "--quiet", "--package", "hostler-bench", "--"]).args(args), "")
}
