//! `cargo xtask sbom`: a software bill of materials of the host, in the format CycloneDX.
//!
//! It lists the crates that are linked into the program, those that only its build runs (their
//! scope is `excluded`), and ONNX Runtime, which is shipped beside the program.

use std::process::Command;

use crate::command::output;
use crate::content::{Fresh, write};
use crate::error::{Attempt, Error, Result};
use crate::layout::Layout;
use crate::onnxruntime;

const USAGE: &str = "sbom [--out FILE]";
/// A Python script, because xtask has no parser of JSON.
const SCRIPT: &str = include_str!("sbom.py");
const METADATA: [&str; 4] = ["metadata", "--locked", "--format-version=1", "--filter-platform"];
const TREE: [&str; 8] = [
    "tree",
    "--locked",
    "--package=hostler",
    "--edges=normal,build",
    "--prefix=none",
    "--format={p}",
    "--quiet",
    "--target",
];

/// The name of the file in packages.
pub const FILE: &str = "hostler.cdx.json";

/// Runs `sbom`: prints the document, or writes it to the file that `--out` names.
pub fn command(layout: &Layout, args: &[String]) -> Result<()> {
    match args {
        [] => document(layout).map(|text| print!("{text}")),
        [option, file] if option == "--out" => {
            let file = std::path::absolute(file).attempting(|| format!("use --out {file}"))?;
            write(&file, document(layout)?.as_bytes())
        }
        _ => Err(Error::new(format!("sbom: unexpected arguments {args:?}"), USAGE)),
    }
}

/// Returns the document for a build of the host on this kind of machine.
pub fn document(layout: &Layout) -> Result<String> {
    let work = Fresh::beside(&layout.target()?.join("sbom"))?;
    let (metadata, tree) = (work.path.join("metadata.json"), work.path.join("tree.txt"));
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    write(&metadata, cargo(layout, &METADATA, &platform)?.as_bytes())?;
    write(&tree, cargo(layout, &TREE, &platform)?.as_bytes())?;
    let mut python = Command::new("python3");
    python.args(["-c", SCRIPT, "hostler"]).arg(&metadata).arg(&tree).arg(layout.root.join("Cargo.lock"));
    output(python.arg(onnxruntime::VERSION), "install Python 3.8 or newer")
}

/// Runs a command of cargo about the dependencies on a platform, which is its last argument.
fn cargo(layout: &Layout, args: &[&str], platform: &str) -> Result<String> {
    output(layout.cargo().args(args).arg(platform), "run `cargo fetch --locked` first")
}
