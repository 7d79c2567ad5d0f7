//! The Python packages that the client programs of the tests need. This module only fetches them:
//! `tests/protocols/tritonclient.rs` and `tests/guests/side_by_side.rs` run the programs and find
//! the packages through the environment variable [`VARIABLE`].

use std::path::PathBuf;

use crate::error::Result;
use crate::layout::Layout;
use crate::packages::python_packages;

/// The environment variable in which the tests find the folder with the packages.
pub const VARIABLE: &str = "HOSTLER_TRITONCLIENT";

/// The file that pins the packages.
pub const REQUIREMENTS: &str = "tests/clients/requirements.txt";

/// Returns the folder with the packages. Installs them if they are not in the cache.
pub fn packages(layout: &Layout) -> Result<PathBuf> {
    python_packages(layout, &layout.root.join(REQUIREMENTS))
}
