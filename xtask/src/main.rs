//! `cargo xtask <command>`: the tasks in this repository that take more than one cargo call. Each
//! command sets up what it needs and is cheap if there is nothing to do.

use std::process::ExitCode;

use xtask::command::run;
use xtask::error::{Error, Result};
use xtask::layout::Layout;
use xtask::{deny, dist, onnxruntime, plugin, sbom, serve, test, triton};

const USAGE: &str = "\
cargo xtask <command>

  serve [--release] [EXAMPLE] [-- ARGS]   build and serve examples/EXAMPLE (default: bankchurn); pass ARGS to hostler
  test [--only lints|tests] [ARGS]        run all checks of CI; with ARGS, only `cargo test ARGS`
  advisories                              check the dependencies for known vulnerabilities; needs github.com
  soak [N]                                run the long versions of the soak tests, N swaps each (default: 400)
  plugin NAME [--as OTHER]                build a plugin and install it as plugins/bin/NAME.wasm (or OTHER.wasm)
  ort                                     fetch the ONNX Runtime library into the cache and print its path
  dist [--hostler PATH] [--out FOLDER]    pack a release build as a Python wheel and an archive, in target/dist
  sbom [--out FILE]                       list what the host consists of (CycloneDX); `dist` packs the list as well
  triton                                  fetch Triton into the cache and print the path of its start program
  bench [--seconds N] [--rounds N]        compare with FastAPI + uvicorn and update docs/measured/performance.md
        [--quick]                         check only that everything works; do not update the page
        [--hostler PATH]                  measure another build of hostler
        [--batching]                      instead: each model with and without max_batch_size
        [--executors]                     instead: each model with and without a plugin before its executor
        [--calls]                         instead: a plugin alone, and one that calls another model
        [--pipelines]                     instead: one model and a pipeline of five, beside Triton's ensemble
  bench --against BINARY [--seconds N]    compare this build with an earlier one, in pairs; fail if it costs more
        [--rounds PAIRS] [--only ROW]     at least 20 pairs; ROW is plain, reused, fresh, batched, passed,
                                          calls-shared, waits or plain-grpc
        [--quick] [--hostler PATH]        check only that everything works; judge another build
  bench triton [--seconds N] [--rounds N] compare with a real Triton, over HTTP and gRPC, including streams
  bench jobs [--seconds N] [--rounds N]   compare jobs in a store on disk with direct requests and the disk,
        [--kept N] [--quick]              and measure a store of a million jobs
  bench waits [--seconds N] [--rounds N]  compare thousands of waiting requests in one instance with a real Triton
  bench protocol [--seconds N]            compare users with think time, a slow model and probes with FastAPI

Downloads are kept in $HOSTLER_CACHE, else $XDG_CACHE_HOME/hostler, else ~/.cache/hostler.";

fn main() -> ExitCode {
    // ONNX Runtime, in tests and in the benchmark's peers, sends usage data to its vendor unless
    // this variable is set.
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
        "advisories" => deny::advisories(&layout),
        "plugin" => plugin::command(&layout, rest),
        "ort" => onnxruntime::library(&layout).map(|path| println!("{}", path.display())),
        "dist" => dist::dist(&layout, rest),
        "sbom" => sbom::command(&layout, rest),
        "triton" => triton::program(&layout).map(|path| println!("{}", path.display())),
        "bench" => bench(&layout, rest),
        _ => Err(Error::new(format!("unknown command {name:?}"), USAGE)),
    }
}

/// Builds and runs the benchmark, which is a separate crate.
fn bench(layout: &Layout, args: &[String]) -> Result<()> {
    run(
        layout.cargo().args(["run", "--locked", "--quiet", "--package", "hostler-bench", "--"]).args(args),
        "",
    )
}
