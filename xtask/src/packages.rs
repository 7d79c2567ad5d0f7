//! Tools and libraries from package registries: PyPI by pip, npm, Debian by apt, Rust by rustup.
//! Packages from PyPI and npm have versions that the caller pins, and are installed once, into the
//! cache. Only apt installs into the system.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{output, run, step};
use crate::content::{Fresh, key, make_folder};
use crate::error::{Attempt, Error, Result};
use crate::layout::Layout;

pub const WASM_TARGET: &str = "wasm32-wasip2";
const PIP_MEND: &str =
    "install Python 3.11 or newer with pip (Debian: apt-get install python3-pip), and allow access to PyPI";
const NPM_MEND: &str = "install Node 20 or newer with npm, and allow access to the npm registry";

/// Installs the Rust standard library for [`WASM_TARGET`], the target of plugins, if it is missing.
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
        "without rustup, install the Rust standard library for wasm32-wasip2 with your package manager",
    )
}

/// Installs rustfmt and clippy if they are missing: a minimal Rust installation omits them.
pub fn rust_components(layout: &Layout) -> Result<()> {
    for (command, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        if output(layout.cargo().args([command, "--version"]), "").is_err() {
            step(&format!("rustup component add {component}"));
            let mut rustup = Command::new("rustup");
            rustup.current_dir(&layout.root).args(["component", "add", component]);
            run(&mut rustup, "without rustup, install it with your package manager")?;
        }
    }
    Ok(())
}

/// Returns a folder with Python packages for [`see_packages`]. Installs them if they are not in the
/// cache. `requirements` is a file with pinned versions.
pub fn python_packages(layout: &Layout, requirements: &Path) -> Result<PathBuf> {
    let version = output(Command::new("python3").arg("--version"), PIP_MEND)?;
    let key = key(&[&version], &[requirements.to_path_buf()])?;
    let folder = layout.cache.join("python").join(key);
    if folder.is_dir() {
        return Ok(folder);
    }
    step(&format!("pip install -r {}", layout.relative(requirements)));
    let fresh = Fresh::beside(&folder)?;
    // Not a virtual environment: Debian's Python comes without ensurepip.
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-warn-conflicts"];
    let mut install = Command::new("python3");
    install.args(pip).arg("--root-user-action=ignore").arg("--target").arg(&fresh.path);
    run(install.arg("-r").arg(requirements), PIP_MEND)?;
    fresh.put_in_place()?;
    Ok(folder)
}

/// Configures a Python command to find the packages in a folder before all others.
pub fn see_packages(python: &mut Command, packages: &Path) {
    // Bytecode files beside sources would litter the repository.
    python.env("PYTHONPATH", packages).env("PYTHONDONTWRITEBYTECODE", "1").env("PYTHONNOUSERSITE", "1");
}

/// Returns a folder with `node_modules`, installed from the `package.json` in `project`, which pins
/// exact versions. There is no lock file: npm rejects one that lacks the optional packages of other
/// platforms.
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

/// Ensures that a program is installed whose Debian package has the same name.
pub fn debian_program(name: &str) -> Result<()> {
    debian_program_of(name, name)
}

/// Ensures that a program is installed. If it is not on the path, installs the Debian package
/// `package`, which needs root.
pub fn debian_program_of(name: &str, package: &str) -> Result<()> {
    if on_path(name) {
        return Ok(());
    }
    let fix = format!("run `sudo apt-get install {package}`");
    if output(Command::new("id").arg("-u"), &fix)?.trim() != "0" {
        return Err(Error::new(format!("`{name}` is not installed, and only root can install it"), fix));
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
        output(&mut apt, &fix)
    };
    if install().is_err() {
        // A new machine has no package lists yet.
        output(Command::new("apt-get").args(["update", "-qq"]), &fix)?;
        install()?;
    }
    Ok(())
}

/// Returns a folder with the files of a Debian package, which is not installed: its services would
/// start. Needs no root if the lists of packages are there.
pub fn debian_files(layout: &Layout, package: &str) -> Result<PathBuf> {
    let folder = layout.cache.join("debian").join(package);
    if folder.is_dir() {
        return Ok(folder);
    }
    step(&format!("apt-get download {package}"));
    let fix = format!("check that `apt-get download {package}` succeeds, after `sudo apt-get update`");
    let (fresh, download) = (Fresh::beside(&folder)?, Fresh::beside(&folder.with_extension("deb"))?);
    let fetch = || {
        output(Command::new("apt-get").args(["download", "-qq", package]).current_dir(&download.path), &fix)
    };
    if fetch().is_err() {
        // A new machine has no package lists yet.
        output(Command::new("apt-get").args(["update", "-qq"]), &fix)?;
        fetch()?;
    }
    let entries =
        std::fs::read_dir(&download.path).attempting(|| format!("list {}", download.path.display()))?;
    for entry in entries.flatten() {
        output(Command::new("dpkg-deb").arg("-x").arg(entry.path()).arg(&fresh.path), &fix)?;
    }
    fresh.put_in_place()?;
    Ok(folder)
}

fn on_path(name: &str) -> bool {
    find_program(name).is_some()
}

/// Returns the path of a program that is installed.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}
