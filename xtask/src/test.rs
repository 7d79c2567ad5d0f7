//! `cargo xtask test`: all checks of continuous integration, the cheap ones first.

use std::process::Command;

use crate::command::{run, step, times};
use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::lint::lint;
use crate::{clients, debian, deny, onnxruntime, plugin, sdk, triton};

/// Runs `test [--only lints|tests] [ARGS]`. With ARGS, which go to `cargo test`, the lints are
/// skipped: the arguments select tests.
pub fn test(layout: &Layout, args: &[String]) -> Result<()> {
    let (lints, tests, args) = match args {
        [only, what, rest @ ..] if only == "--only" => match what.as_str() {
            "lints" if rest.is_empty() => (true, false, rest),
            "tests" => (false, true, rest),
            _ => {
                return Err(Error::new(
                    format!("test: invalid arguments after --only: {what:?}"),
                    "expected --only lints, or --only tests [ARGS]",
                ));
            }
        },
        [] => (true, true, args),
        args => (false, true, args),
    };
    if lints {
        lint(layout)?;
        deny::check(layout)?;
    }
    if tests {
        if args.is_empty() {
            sdk::test(layout)?;
        }
        let build = args.split(|arg| arg == "--").next().unwrap_or_default();
        let mut cargo = prepared(layout)?;
        step("build the tests");
        run(cargo.args(["test", "--locked", "--workspace", "--no-run"]).args(build), "")?;
        let mut tests = layout.cargo();
        tests.envs(cargo.get_envs().filter_map(|(name, value)| Some((name, value?))));
        step("run the tests");
        run(tests.args(["test", "--locked", "--workspace"]).args(args), "")?;
    }
    eprintln!("{}", times());
    step("all checks passed");
    Ok(())
}

/// Runs `soak [N]`: the tests that repeat an operation, which are short in CI, at full length in a
/// release build.
pub fn soak(layout: &Layout, args: &[String]) -> Result<()> {
    let swaps: u32 = match args {
        [] => 400,
        [count] => count.parse().ok().unwrap_or(0),
        _ => 0,
    };
    if swaps == 0 {
        return Err(Error::new(
            "soak: expected a number of swaps, at least 1",
            "example: cargo xtask soak 400",
        ));
    }
    let mut cargo = prepared(layout)?;
    step(&format!("run the soak tests, {swaps} swaps each"));
    cargo.args([
        "test",
        "--locked",
        "--release",
        "--lib",
        "--test",
        "guests",
        "--test",
        "operations",
        "--test",
        "remotes",
        "--test",
        "security",
        "--test",
        "serving",
    ]);
    cargo.args(["--test", "pipelines", "--"]);
    cargo.args(["--nocapture", "--test-threads=1"]).args(SOAKS).env("HOSTLER_SOAK", swaps.to_string());
    run(&mut cargo, "")
}

/// Filters that select the tests that read `HOSTLER_SOAK`.
const SOAKS: [&str; 12] = [
    "metrics_swaps::",
    "certificates_change_under_load",
    "power_tests::",
    "soak::",
    "custom_swaps::",
    "triton_swaps::",
    "streaming_faults::",
    "swaps::every_answer",
    "random::",
    "elsewhere::nothing_of",
    "limits::what_has_begun",
    "jobs_kills::",
];

/// Builds and fetches everything that the tests need. Returns a cargo command whose environment
/// names it.
fn prepared(layout: &Layout) -> Result<Command> {
    let library = onnxruntime::library(layout)?;
    plugin::build_all(layout, false)?;
    let packages = clients::packages(layout)?;
    let (variable, value) = triton::variable(layout);
    let mut cargo = layout.cargo();
    for (variable, path) in
        [(debian::CHROMIUM, debian::chromium(layout)?), (debian::PROMTOOL, debian::promtool(layout)?)]
    {
        cargo.envs(path.map(|path| (variable, path)));
    }
    cargo.env(onnxruntime::VARIABLE, library).env(clients::VARIABLE, packages).env(variable, value);
    Ok(cargo)
}
