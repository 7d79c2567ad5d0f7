//! `cargo xtask serve`: sets up and builds everything, then replaces this process with the host.
//! The host prints its routes and addresses itself.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{not_started, run, step};
use crate::error::{Attempt, Error, Result};
use crate::layout::Layout;
use crate::{onnxruntime, plugin};

/// Runs `serve [--release] [EXAMPLE] [-- ARGS]`. Returns only if it fails.
pub fn serve(layout: &Layout, args: &[String]) -> Result<()> {
    let split = args.iter().position(|arg| arg == "--").unwrap_or(args.len());
    let (own, passed_on) = (&args[..split], args.get(split + 1..).unwrap_or_default());
    let (flags, names): (Vec<_>, Vec<_>) = own.iter().partition(|arg| arg.starts_with('-'));
    if let Some(extra) = flags.iter().find(|flag| **flag != "--release").or(names.get(1)) {
        return Err(Error::new(
            format!("serve: unexpected argument {extra:?}"),
            "put arguments for hostler after `--`",
        ));
    }
    let release = !flags.is_empty();
    let example = names.first().map_or("bankchurn", |name| name.as_str());
    let manifest = format!("examples/{example}/hostler.toml");
    if !layout.root.join(&manifest).is_file() {
        return Err(Error::new(format!("serve: {manifest} does not exist"), examples(layout)));
    }

    let library = onnxruntime::library(layout)?;
    plugin::build_named(layout, &plugins_of(layout, &manifest)?)?;
    let binary = build_host(layout, release)?;
    step(&format!("hostler serve {manifest}"));
    let mut host = Command::new(binary);
    host.current_dir(&layout.root)
        .env(onnxruntime::VARIABLE, library)
        .args(["serve", &manifest])
        .args(passed_on);
    // The host replaces this process, so that signals reach it and its exit status is that of the
    // command.
    let cause = host.exec();
    Err(not_started(&host, &cause, ""))
}

/// Builds the host and returns the path of its program.
pub fn build_host(layout: &Layout, release: bool) -> Result<PathBuf> {
    let profile = if release { "release" } else { "debug" };
    step(&format!("build the host ({profile})"));
    let mut cargo = layout.cargo();
    cargo.args(["build", "--locked", "--bin", "hostler"]).args(release.then_some("--release"));
    run(&mut cargo, "")?;
    Ok(layout.target()?.join(profile).join("hostler"))
}

/// Builds the host and `grpc-floor`, its gRPC baseline, for a benchmark. Returns the path of the
/// host; cargo puts `grpc-floor` into the folder `examples` beside it. One cargo call builds both,
/// because two calls would build some dependencies twice: an example enables more of their
/// features.
pub fn build_host_and_floor(layout: &Layout) -> Result<PathBuf> {
    step("build the host and grpc-floor (release)");
    run(
        layout.cargo().args([
            "build",
            "--locked",
            "--release",
            "--bin",
            "hostler",
            "--example",
            "grpc-floor",
        ]),
        "",
    )?;
    Ok(layout.target()?.join("release/hostler"))
}

/// Returns the names of the plugins that a manifest takes from `plugins/bin`.
fn plugins_of(layout: &Layout, manifest: &str) -> Result<Vec<String>> {
    let text =
        std::fs::read_to_string(layout.root.join(manifest)).attempting(|| format!("read {manifest}"))?;
    let named = text.split("plugins/bin/").skip(1).filter_map(|rest| rest.split_once(".wasm"));
    let mut names: Vec<String> = named.map(|(name, _)| name.to_owned()).collect();
    names.sort();
    names.dedup();
    Ok(names)
}

fn examples(layout: &Layout) -> String {
    let entries = std::fs::read_dir(layout.root.join("examples")).into_iter().flatten().flatten();
    let served = |path: &Path| path.join("hostler.toml").is_file();
    let mut names: Vec<_> =
        entries.filter(|entry| served(&entry.path())).map(|entry| entry.file_name()).collect();
    names.sort();
    let names: Vec<_> = names.iter().map(|name| name.to_string_lossy()).collect();
    format!("available examples: {}", names.join(", "))
}
