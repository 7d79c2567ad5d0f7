//! Sends bad requests to a real host and to a real Triton: `tests/clients/side_by_side.py` calls
//! both, and `docs/measured/bad-requests.md` tabulates the answers.
//!
//! `cargo xtask test` sets the paths of Triton and of the Python packages. Without them the test is
//! skipped locally, and fails in CI.

use crate::support::root;
use std::process::Command;

/// Time for all cases, including a restart of Triton after each case that kills it.
const PROGRAM_SECONDS_MAX: &str = "900";

/// Returns a variable that `cargo xtask test` has set.
fn set(name: &str) -> Option<String> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty());
    if value.is_none() {
        assert!(std::env::var_os("CI").is_none(), "{name} is not set: run `cargo xtask test`");
        eprintln!("skipped: {name} is not set; `cargo xtask test` sets it");
    }
    value
}

#[test]
fn bad_requests_are_answered_as_the_table_says() {
    let (Some(triton), Some(packages)) = (set("HOSTLER_TRITON"), set("HOSTLER_TRITONCLIENT")) else { return };
    let mut python = Command::new("timeout");
    python.arg(PROGRAM_SECONDS_MAX).arg("python3").arg(root().join("tests/clients/side_by_side.py"));
    python.arg(env!("CARGO_BIN_EXE_hostler")).arg(triton).env("PYTHONPATH", packages);
    python.env("PYTHONDONTWRITEBYTECODE", "1").env("PYTHONNOUSERSITE", "1");
    let output = python.output().expect("python3 starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
