//! Tools and libraries from package registries, kept in the cache and made once: PyPI by pip, npm, Debian by apt,
//! Rust targets by rustup. Every version is pinned by the caller; nothing is installed into the system but by apt.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{output, run, step};
use crate::content::{Fresh, key, make_folder};
use crate::error::{Attempt, Error, Result};
use crate::layout::Layout;

pub const WASM_TARGET: &str = "wasm32-wasip2";
const PIP_MEND: &str =
    "Python 3.11 or newer with pip is needed (Debian: apt-get install python3-pip), and access to PyPI";
const NPM_MEND: &str = "Node 20 or newer with npm is needed, and access to the npm registry";

/// The standard library of the target that plugins are built for.
pub fn wasm_target(layout: &Layout) -> Result<()> {
    let query = ["--print", "target-libdir", "--target", WASM_TARGET];
    let folder =
        output(Command::new("rustc").current_dir(&layout.root).args(query), "install Rust with rustup")?;
    if Path::new(folder.trim()).is_dir() {
        return Ok(());
    }
    step(&format!("rustup target add {WASM_TARGET}"));
    run(
        Command::new("rustup").current_dir(&layout.root).args(["target", "add", WASM_TARGET]),
        "without rustup, install the Rust standard library for wasm32-wasip2 by your system's means",
    )
}

/// Parts of the Rust tool chain that a minimal installation leaves out.
pub fn rust_components(layout: &Layout) -> Result<()> {
    for (command, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        if output(layout.cargo().args([command, "--version"]), "").is_err() {
            step(&format!("rustup component add {component}"));
            let mut rustup = Command::new("rustup");
            rustup.current_dir(&layout.root).args(["component", "add", component]);
            run(&mut rustup, "without rustup, install it by your system's means")?;
        }
    }
    Ok(())
}

/// A folder with Python packages, to be used with [`see_packages`]. `requirements` is a file with pinned versions.
pub fn python_packages(layout: &Layout, requirements: &Path) -> Result<PathBuf> {
    let version = output(Command::new("python3").arg("--version"), PIP_MEND)?;
    let key = key(&[&version], &[requirements.to_path_buf()])?;
    let folder = layout.cache.join("python").join(key);
    if folder.is_dir() {
        return Ok(folder);
    }
    step(&format!("pip install -r {}", layout.relative(requirements)));
    let fresh = Fresh::beside(&folder)?;
    // A folder of its own instead of a virtual environment: Debian's Python comes without ensurepip.
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-warn-conflicts"];
    let mut install = Command::new("python3");
    install.args(pip).arg("--root-user-action=ignore").arg("--target").arg(&fresh.path);
    run(install.arg("-r").arg(requirements), PIP_MEND)?;
    fresh.put_in_place()?;
    Ok(folder)
}

/// Lets a command that is Python see the packages of such a folder before all others.
pub fn see_packages(python: &mut Command, packages: &Path) {
    // No bytecode beside sources: it would litter the repository.
    python.env("PYTHONPATH", packages).env("PYTHONDONTWRITEBYTECODE", "1").env("PYTHONNOUSERSITE", "1");
}

/// A folder with `node_modules`, made from the `package.json` in `project`, which pins exact versions. No lock file:
/// npm refuses those that do not hold the optional packages of every other platform.
pub fn node_packages(layout: &Layout, project: &Path) -> Result<PathBuf> {
    let manifest = project.join("package.json");
    let folder = layout.cache.join("node").join(key(&[], std::slice::from_ref(&manifest))?);
    if folder.is_dir() {
        return Ok(folder);
    }
    step(&format!("npm install in {}", layout.relative(project)));
    let fresh = Fresh::beside(&folder)?;
    std::fs::copy(&manifest, fresh.path.join("package.json"))
        .attempting(|| format!("copy {}", manifest.display()))?;
    let npm = ["install", "--loglevel=error", "--no-package-lock", "--no-audit", "--no-fund"];
    run(Command::new("npm").args(npm).current_dir(&fresh.path), NPM_MEND)?;
    fresh.put_in_place()?;
    Ok(folder)
}

/// Downloads one wheel, without its dependencies, into `folder`.
pub fn python_wheel(requirement: &str, folder: &Path) -> Result<()> {
    make_folder(folder)?;
    let pip = [
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--only-binary=:all:",
    ];
    run(Command::new("python3").args(pip).arg("--dest").arg(folder).arg(requirement), PIP_MEND)
}

/// A program that Debian packages under its own name.
pub fn debian_program(name: &str) -> Result<()> {
    debian_program_of(name, name)
}

/// A program in a package of another name.
pub fn debian_program_of(name: &str, package: &str) -> Result<()> {
    if on_path(name) {
        return Ok(());
    }
    let mend = format!("install it: sudo apt-get install {package}");
    if output(Command::new("id").arg("-u"), &mend)?.trim() != "0" {
        return Err(Error::new(format!("`{name}` is not installed, and installing it needs root"), mend));
    }
    step(&format!("apt-get install {package}"));
    let install = || {
        let mut apt = Command::new("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive").args([
            "install",
            "-y",
            "-qq",
            "--no-install-recommends",
            package,
        ]);
        output(&mut apt, &mend)
    };
    if install().is_err() {
        // A new machine has no package lists yet.
        output(Command::new("apt-get").args(["update", "-qq"]), &mend)?;
        install()?;
    }
    Ok(())
}

fn on_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}
