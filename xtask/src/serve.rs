//! `cargo xtask serve`: set up, build, and become the host. The host prints its own routes and addresses.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{not_started, run, step};
use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::{onnxruntime, plugin};

/// `serve [--release] [EXAMPLE] [-- ARGS]`
pub fn serve(layout: &Layout, args: &[String]) -> Result<()> {
    let split = args.iter().position(|arg| arg == "--").unwrap_or(args.len());
    let (own, passed_on) = (&args[..split], args.get(split + 1..).unwrap_or_default());
    let (flags, names): (Vec<_>, Vec<_>) = own.iter().partition(|arg| arg.starts_with('-'));
    if let Some(extra) = flags.iter().find(|flag| **flag != "--release").or(names.get(1)) {
        return Err(Error::new(
            format!("serve: unexpected argument {extra:?}"),
            "arguments for hostler itself go behind `--`",
        ));
    }
    let release = !flags.is_empty();
    let example = names.first().map_or("bankchurn", |name| name.as_str());
    let manifest = format!("examples/{example}/hostler.toml");
    if !layout.root.join(&manifest).is_file() {
        return Err(Error::new(format!("serve: there is no {manifest}"), examples(layout)));
    }

    let library = onnxruntime::library(layout)?;
    plugin::build_all(layout, true)?;
    plugin::build_example(layout, example)?;
    let binary = build_host(layout, release)?;
    step(&format!("hostler serve {manifest}"));
    let mut host = Command::new(binary);
    host.current_dir(&layout.root)
        .env(onnxruntime::VARIABLE, library)
        .args(["serve", &manifest])
        .args(passed_on);
    // In place of this process, so that signals reach the host itself and its exit status is the command's.
    let cause = host.exec();
    Err(not_started(&host, &cause, ""))
}

/// Builds the program; its path.
pub fn build_host(layout: &Layout, release: bool) -> Result<PathBuf> {
    let profile = if release { "release" } else { "debug" };
    step(&format!("build host ({profile})"));
    let mut cargo = layout.cargo();
    cargo.args(["build", "--bin", "hostler"]).args(release.then_some("--release"));
    run(&mut cargo, "")?;
    Ok(layout.target()?.join(profile).join("hostler"))
}

/// Builds the program for a benchmark, and the floor of its gRPC, which cargo puts into the folder `examples` beside it.
/// In one call, because two would build some dependencies twice: an example asks more features of them.
pub fn build_host_and_floor(layout: &Layout) -> Result<PathBuf> {
    step("build host and grpc-floor (release)");
    run(layout.cargo().args(["build", "--release", "--bin", "hostler", "--example", "grpc-floor"]), "")?;
    Ok(layout.target()?.join("release/hostler"))
}

fn examples(layout: &Layout) -> String {
    let entries = std::fs::read_dir(layout.root.join("examples")).into_iter().flatten().flatten();
    let served = |path: &Path| path.join("hostler.toml").is_file();
    let mut names: Vec<_> =
        entries.filter(|entry| served(&entry.path())).map(|entry| entry.file_name()).collect();
    names.sort();
    let names: Vec<_> = names.iter().map(|name| name.to_string_lossy()).collect();
    format!("there are: {}", names.join(", "))
}
