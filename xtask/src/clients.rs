//! The Python packages that the client programs of the tests need. Only fetches them: `tests/protocols/tritonclient.rs` and
//! `tests/guests/side_by_side.rs` run the programs, and find the packages through the variable that this module names.

use std::path::PathBuf;

use crate::error::Result;
use crate::layout::Layout;
use crate::packages::python_packages;

/// Where the tests look for the packages.
pub const VARIABLE: &str = "HOSTLER_TRITONCLIENT";

/// Which packages.
pub const REQUIREMENTS: &str = "tests/clients/requirements.txt";

/// The folder with them, made if need be.
pub fn packages(layout: &Layout) -> Result<PathBuf> {
    python_packages(layout, &layout.root.join(REQUIREMENTS))
}
