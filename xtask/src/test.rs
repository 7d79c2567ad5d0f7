//! `cargo xtask test`: all that continuous integration checks, the cheap before the dear.

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
        let library = onnxruntime::library(layout)?;
        plugin::build_all(layout, false)?;
        let packages = clients::packages(layout)?;
        let (variable, value) = triton::variable(layout);
        step("tests");
        let mut cargo = layout.cargo();
        cargo.args(["test", "--workspace"]).args(args).env(onnxruntime::VARIABLE, &library);
        cargo.env(clients::VARIABLE, packages).env(variable, value);
        run(&mut cargo, "")?;
        if args.is_empty() {
            // What ships is tested above. This compiles the host once more, and no dependency of it: cargo's target
            // folder has room for both, so that neither is made again.
            step("tests of outbound HTTP");
            let mut cargo = layout.cargo();
            cargo.args(["test", "--workspace", "--features", "hostler/outbound-http", "--test", "outbound"]);
            run(cargo.env(onnxruntime::VARIABLE, library), "")?;
        }
    }
    step("all good");
    Ok(())
}
