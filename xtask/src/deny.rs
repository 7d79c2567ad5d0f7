//! `cargo-deny`: checks the licenses and sources of all dependencies (`deny.toml`), in CI, and the
//! security advisories about them, on request.

use std::path::Path;
use std::process::Command;

use crate::command::{output, run, step};
use crate::error::Result;
use crate::layout::Layout;
use crate::packages::python_packages;

/// Must be the version in `deny-requirements.txt`.
const VERSION: &str = "cargo-deny 0.20.2";

/// Checks licenses, sources and banned crates. Needs the crates of `Cargo.lock`, and nothing else
/// from the network.
pub fn check(layout: &Layout) -> Result<()> {
    let mut deny = command(layout)?;
    step("check the licenses and sources of dependencies");
    let fix = "each refused crate is named above; allow it in deny.toml, with the reason, or remove it";
    run(deny.args(["check", "--hide-inclusion-graph", "licenses", "sources", "bans"]), fix)
}

/// Checks the advisories about dependencies. The database is a git repository, which CI may not
/// reach, so this is a command of its own.
pub fn advisories(layout: &Layout) -> Result<()> {
    let mut deny = command(layout)?;
    step("check the security advisories about dependencies");
    let fix = "advisories named above: docs/operations/security.md says which are known; update the crate, or add it \
               there and to [advisories] in deny.toml, with the reason.\n\
               \"failed to fetch\": the command clones https://github.com/rustsec/advisory-db with git and needs \
               access to github.com";
    run(deny.args(["check", "--hide-inclusion-graph", "advisories"]), fix)
}

/// Returns a command for the installed cargo-deny if it has the right version, or for the one in
/// the cache, which is fetched if it is not there.
fn command(layout: &Layout) -> Result<Command> {
    let is_right = |program: &Path| {
        output(Command::new(program).arg("--version"), "").is_ok_and(|version| version.trim() == VERSION)
    };
    let installed = Path::new("cargo-deny");
    let mut deny = if is_right(installed) {
        Command::new(installed)
    } else {
        let packages = python_packages(layout, &layout.root.join("xtask/deny-requirements.txt"))?;
        Command::new(packages.join("bin/cargo-deny"))
    };
    deny.current_dir(&layout.root).args(["--workspace", "--locked"]);
    Ok(deny)
}
