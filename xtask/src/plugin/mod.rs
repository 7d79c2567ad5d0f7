//! Builds plugins and installs each atomically at the path where manifests expect it.
//! An output that is up to date is not touched, so that a watching host sees no change.

mod script;

use std::fs;
use std::path::{Path, PathBuf};

use crate::command::{run, step};
use crate::content::install;
use crate::error::{Attempt, Error, Result};
use crate::layout::Layout;
use crate::packages::{WASM_TARGET, wasm_target};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    Rust,
    Python,
    JavaScript,
}

/// A folder in `plugins/`, `examples/` or `tests/plugins/` that can be built.
pub struct Plugin {
    pub name: String,
    pub language: Language,
    folder: PathBuf,
}

/// Runs `plugin NAME [--as OTHER]`.
pub fn command(layout: &Layout, args: &[String]) -> Result<()> {
    let (name, output) = match args {
        [name] => (name, name),
        [name, flag, output] | [flag, output, name] if flag == "--as" => (name, output),
        _ => {
            return Err(Error::new(
                "plugin: expected NAME [--as OTHER]",
                "example: cargo xtask plugin churn",
            ));
        }
    };
    if output.contains('/') || output.starts_with('.') {
        return Err(Error::new(
            format!("--as {output:?}: expected a name, not a path"),
            "example: --as churn",
        ));
    }
    let plugin = find(layout, name)?;
    let artifact = match plugin.language {
        Language::Rust => {
            build_rust(layout, &[&plugin])?;
            rust_artifact(layout, name)?
        }
        _ => script::build(layout, &plugin.name, plugin.language, &plugin.folder)?,
    };
    put_in_place(layout, &artifact, output)
}

/// Builds all plugins, or only those in Rust.
pub fn build_all(layout: &Layout, rust_only: bool) -> Result<()> {
    let plugins = all(layout)?;
    build(layout, plugins.iter().filter(|plugin| !rust_only || plugin.language == Language::Rust))
}

/// Builds the plugins with these names. Names that are not in the repository are ignored:
/// the host reports a file that is missing.
pub fn build_named(layout: &Layout, names: &[String]) -> Result<()> {
    let plugins = all(layout)?;
    build(layout, plugins.iter().filter(|plugin| names.contains(&plugin.name)))
}

/// One cargo call builds all crates.
fn build<'a>(layout: &Layout, plugins: impl Iterator<Item = &'a Plugin>) -> Result<()> {
    let (crates, scripts): (Vec<_>, Vec<_>) = plugins.partition(|plugin| plugin.language == Language::Rust);
    if !crates.is_empty() {
        build_rust(layout, &crates)?;
    }
    for plugin in crates {
        put_in_place(layout, &rust_artifact(layout, &plugin.name)?, &plugin.name)?;
    }
    for plugin in scripts {
        let artifact = script::build(layout, &plugin.name, plugin.language, &plugin.folder)?;
        put_in_place(layout, &artifact, &plugin.name)?;
    }
    Ok(())
}

/// Returns every plugin of the repository, in `plugins/`, `examples/` and `tests/plugins/`, sorted
/// by name.
pub fn all(layout: &Layout) -> Result<Vec<Plugin>> {
    let mut plugins = Vec::new();
    for parent in ["plugins", "examples", "tests/plugins"] {
        let entries = fs::read_dir(layout.root.join(parent)).attempting(|| format!("list {parent}/"))?;
        for entry in entries {
            let entry = entry.attempting(|| format!("list {parent}/"))?;
            let (name, folder) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
            if let Some(language) = language(&folder) {
                plugins.push(Plugin { name, language, folder });
            }
        }
    }
    plugins.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(plugins)
}

fn find(layout: &Layout, name: &str) -> Result<Plugin> {
    let plugins = all(layout)?;
    let names = plugins.iter().map(|plugin| plugin.name.as_str()).collect::<Vec<_>>().join(", ");
    plugins.into_iter().find(|plugin| plugin.name == name).ok_or_else(|| {
        let attempted = format!("cannot find plugin {name:?}: plugins/{name}, examples/{name} and tests/plugins/{name} contain no Cargo.toml, app.py or .js file");
        Error::new(attempted, format!("available plugins: {names}"))
    })
}

/// Detects the language of a plugin by the files in its folder. `None` if it is not a plugin.
fn language(folder: &Path) -> Option<Language> {
    if folder.join("Cargo.toml").is_file() {
        Some(Language::Rust)
    } else if folder.join("app.py").is_file() {
        Some(Language::Python)
    } else {
        script::javascript_source(folder).map(|_| Language::JavaScript)
    }
}

fn build_rust(layout: &Layout, plugins: &[&Plugin]) -> Result<()> {
    wasm_target(layout)?;
    let names: Vec<_> = plugins.iter().map(|plugin| plugin.name.as_str()).collect();
    step(&format!("build Rust plugins: {}", names.join(", ")));
    let mut cargo = layout.cargo();
    cargo.args(["build", "--locked", "--target", WASM_TARGET, "--profile", "plugin"]);
    cargo.args(names.iter().flat_map(|name| ["-p", name]));
    run(&mut cargo, "the installed plugins are unchanged")
}

/// Returns the path of a built crate. Cargo names libraries with underscores, and programs like
/// their package.
fn rust_artifact(layout: &Layout, name: &str) -> Result<PathBuf> {
    let folder = layout.target()?.join(WASM_TARGET).join("plugin");
    let candidates = [name.replace('-', "_"), name.to_owned()].map(|name| folder.join(name + ".wasm"));
    candidates.into_iter().find(|path| path.is_file()).ok_or_else(|| {
        let fix = format!(
            "the package {name} needs `[lib] crate-type = [\"cdylib\"]` and the same name as its folder"
        );
        Error::new(format!("plugin {name:?}: cargo created no {name}.wasm in {}", folder.display()), fix)
    })
}

fn put_in_place(layout: &Layout, artifact: &Path, name: &str) -> Result<()> {
    let output = layout.plugin_output(name);
    if install(artifact, &output)? {
        let bytes = fs::metadata(&output).map_or(0, |metadata| metadata.len());
        step(&format!("plugin {name}: installed {} ({} KB)", layout.relative(&output), bytes.div_ceil(1024)));
    }
    Ok(())
}
