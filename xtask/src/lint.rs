//! What the sources must be before they are run: formatted, free of warnings, documented without broken links.

use crate::command::{run, step};
use crate::error::Result;
use crate::layout::Layout;
use crate::packages::{WASM_TARGET, rust_components, wasm_target};
use crate::plugin::{Language, all};

/// Cheapest first; stops at the first that fails.
pub fn lint(layout: &Layout) -> Result<()> {
    rust_components(layout)?;
    step("check the format");
    run(layout.cargo().args(["fmt", "--all", "--check"]), "cargo fmt --all")?;

    step("clippy");
    let deny = ["--", "-D", "warnings"];
    run(layout.cargo().args(["clippy", "--workspace", "--all-targets"]).args(deny), "")?;

    let crates: Vec<_> =
        all(layout)?.into_iter().filter(|plugin| plugin.language == Language::Rust).collect();
    if !crates.is_empty() {
        wasm_target(layout)?;
        step("clippy on plugins, as WebAssembly");
        let mut clippy = layout.cargo();
        clippy.args(["clippy", "--target", WASM_TARGET]);
        clippy.args(crates.iter().flat_map(|plugin| ["-p", &plugin.name]));
        run(clippy.args(deny), "")?;
    }

    step("documentation");
    run(layout.cargo().args(["doc", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"), "")
}
