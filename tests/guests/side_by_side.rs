//! Bad requests, each to a real host and to a real Triton: `tests/clients/side_by_side.py` asks
//! both, and `docs/measured/bad-requests.md` has the table of what they answer.
//!
//! `cargo xtask test` says where Triton and the packages of Python are. Without them a laptop skips
//! this, and CI fails.

use crate::support::root;
use std::process::Command;

/// All cases, and a new Triton after each that kills it.
const PROGRAM_SECONDS_MAX: &str = "900";

/// What `cargo xtask test` has put into a variable.
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
