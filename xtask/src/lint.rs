//! Checks the sources without running them: they must be formatted, free of warnings, and
//! documented without broken links.

use crate::command::{run, step};
use crate::error::Result;
use crate::layout::Layout;
use crate::packages::{WASM_TARGET, rust_components, wasm_target};
use crate::plugin::{Language, all};

/// Runs the checks, the cheapest first, and stops at the first failure.
pub fn lint(layout: &Layout) -> Result<()> {
    rust_components(layout)?;
    step("check the formatting");
    run(layout.cargo().args(["fmt", "--all", "--check"]), "run `cargo fmt --all`")?;

    step("run clippy");
    let deny = ["--", "-D", "warnings"];
    run(layout.cargo().args(["clippy", "--locked", "--workspace", "--all-targets"]).args(deny), "")?;

    let crates: Vec<_> =
        all(layout)?.into_iter().filter(|plugin| plugin.language == Language::Rust).collect();
    if !crates.is_empty() {
        wasm_target(layout)?;
        step("run clippy on the Rust plugins, for WebAssembly");
        let mut clippy = layout.cargo();
        clippy.args(["clippy", "--locked", "--target", WASM_TARGET]);
        clippy.args(crates.iter().flat_map(|plugin| ["-p", &plugin.name]));
        run(clippy.args(deny), "")?;
    }

    step("build the documentation");
    run(layout.cargo().args(["doc", "--locked", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"), "")
}
