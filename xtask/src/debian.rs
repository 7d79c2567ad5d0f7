//! Debian's programs that tests use: a browser, and the checker of Prometheus's rules. Without the
//! right to install one, its tests are skipped, except in continuous integration.

use std::path::PathBuf;

use crate::command::step;
use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::packages::{debian_files, debian_program, find_program};

/// The environment variable in which `tests/security/browser.rs` finds the browser.
pub const CHROMIUM: &str = "HOSTLER_CHROMIUM";

/// The environment variable in which `tests/operations/deploy.rs` finds promtool.
pub const PROMTOOL: &str = "HOSTLER_PROMTOOL";

/// Returns the path of Chromium, and installs it if it is missing.
pub fn chromium(_: &Layout) -> Result<Option<PathBuf>> {
    let missing =
        || Error::new("Chromium is installed, and is not on the path", "set PATH so that it has `chromium`");
    let installed = debian_program("chromium").and_then(|()| find_program("chromium").ok_or_else(missing));
    unless_in_ci("Chromium", installed)
}

/// Returns the path of promtool, and fetches it if it is missing.
pub fn promtool(layout: &Layout) -> Result<Option<PathBuf>> {
    let fetched = || debian_files(layout, "prometheus").map(|folder| folder.join("usr/bin/promtool"));
    unless_in_ci("promtool", find_program("promtool").map_or_else(fetched, Ok))
}

fn unless_in_ci(name: &str, found: Result<PathBuf>) -> Result<Option<PathBuf>> {
    match found {
        Ok(path) => Ok(Some(path)),
        Err(error) if std::env::var_os("CI").is_some() => Err(error),
        Err(error) => {
            step(&format!("tests that need {name} are skipped: {error}"));
            Ok(None)
        }
    }
}
