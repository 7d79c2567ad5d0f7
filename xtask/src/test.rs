//! `cargo xtask test`: all that continuous integration checks, the cheap before the dear.

use std::process::Command;

use crate::command::{run, step};
use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::lint::lint;
use crate::{clients, onnxruntime, plugin, triton};

/// `test [--only lints|tests] [ARGS]`: whoever passes arguments to `cargo test` is after these tests, not the lints.
pub fn test(layout: &Layout, args: &[String]) -> Result<()> {
    let (lints, tests, args) = match args {
        [only, what, rest @ ..] if only == "--only" => match what.as_str() {
            "lints" if rest.is_empty() => (true, false, rest),
            "tests" => (false, true, rest),
            _ => {
                return Err(Error::new(
                    format!("test: --only {what:?}"),
                    "expected --only lints, or --only tests [ARGS]",
                ));
            }
        },
        [] => (true, true, args),
        args => (false, true, args),
    };
    if lints {
        lint(layout)?;
    }
    if tests {
        let mut cargo = prepared(layout)?;
        step("tests");
        run(cargo.args(["test", "--workspace"]).args(args), "")?;
    }
    step("all good");
    Ok(())
}

/// `soak [N]`: the tests that repeat something and are short in CI, at their full length, in a release build.
pub fn soak(layout: &Layout, args: &[String]) -> Result<()> {
    let swaps: u32 = match args {
        [] => 400,
        [count] => count.parse().ok().unwrap_or(0),
        _ => 0,
    };
    if swaps == 0 {
        return Err(Error::new("soak: expected a number of swaps", "example: cargo xtask soak 400"));
    }
    let mut cargo = prepared(layout)?;
    step(&format!("long tests, {swaps} swaps each"));
    cargo.args(["test", "--release", "--test", "guests", "--test", "operations", "--test", "remotes"]);
    cargo.args(["--test", "pipelines", "--"]);
    cargo.args(["--nocapture", "--test-threads=1"]).args(SOAKS).env("HOSTLER_SOAK", swaps.to_string());
    run(&mut cargo, "")
}

/// Modules with tests that read `HOSTLER_SOAK`.
const SOAKS: [&str; 8] = [
    "soak::",
    "custom_swaps::",
    "triton_swaps::",
    "streaming_faults::",
    "swaps::every_answer",
    "random::",
    "elsewhere::nothing_of",
    "limits::what_has_begun",
];

/// Cargo, with all that the tests need built, fetched and named in its environment.
fn prepared(layout: &Layout) -> Result<Command> {
    let library = onnxruntime::library(layout)?;
    plugin::build_all(layout, false)?;
    let packages = clients::packages(layout)?;
    let (variable, value) = triton::variable(layout);
    let mut cargo = layout.cargo();
    cargo.env(onnxruntime::VARIABLE, library).env(clients::VARIABLE, packages).env(variable, value);
    Ok(cargo)
}
