//! The SDKs in Python, JavaScript and C: their own tests, and the packages. Those of the SDK in
//! Rust run with all crates. The SDK in Go is tested in its projects, which bring a compiler.

use std::fs;
use std::process::Command;

use crate::command::{run, step};
use crate::content::make_folder;
use crate::error::{Attempt, Result};
use crate::layout::Layout;
use crate::packages::{node_packages, python_packages, see_packages};

/// Runs the unit tests of the SDKs, and packs each SDK as its registry wants it.
pub fn test(layout: &Layout) -> Result<()> {
    let (python, js) = (layout.root.join("sdk/python"), layout.root.join("sdk/js"));
    let packages = python_packages(layout, &python.join("tests/requirements.txt"))?;
    step("test the Python SDK");
    let mut pytest = Command::new("python3");
    see_packages(&mut pytest, &packages);
    pytest.args(["-m", "pytest", "-q", "tests"]).current_dir(&python);
    run(&mut pytest, "see sdk/python/README.md")?;

    let packages = node_packages(layout, &js)?.join("node_modules");
    let link = js.join("node_modules");
    // A folder is that of a developer, who has run npm install.
    let is_folder = fs::symlink_metadata(&link).is_ok_and(|found| found.is_dir());
    if !is_folder && fs::read_link(&link).ok().as_ref() != Some(&packages) {
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink(&packages, &link).attempting(|| format!("create {}", link.display()))?;
    }
    step("test the JavaScript SDK");
    run(Command::new("npm").args(["test", "--silent"]).current_dir(&js), "see sdk/js/README.md")?;
    step("test the C SDK");
    run(Command::new("sh").arg(layout.root.join("sdk/c/tests/run.sh")), "see sdk/c/README.md")?;
    pack(layout)
}

/// Packs the SDKs into `target/dist`.
fn pack(layout: &Layout) -> Result<()> {
    let folder = layout.target()?.join("dist");
    make_folder(&folder)?;
    step("pack the SDKs");
    let mut cargo = layout.cargo();
    cargo.args(["package", "--locked", "--quiet", "--allow-dirty", "--package", "hostler-plugin"]);
    run(&mut cargo, "")?;
    let mut wheel = Command::new("python3");
    wheel.args(["-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps", "--wheel-dir"]);
    run(wheel.arg(&folder).arg(layout.root.join("sdk/python")), "see sdk/python/pyproject.toml")?;
    let mut npm = Command::new("npm");
    npm.args(["pack", "--silent", "--pack-destination"]).arg(&folder).current_dir(layout.root.join("sdk/js"));
    run(&mut npm, "see sdk/js/package.json")
}
