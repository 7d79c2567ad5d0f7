//! Builds plugins in Python and JavaScript. Their componentizers come from PyPI and npm, and `sdk`
//! pins the versions. Builds to `<target>/plugins/NAME.wasm`, and does nothing if no input has
//! changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Language;
use crate::command::{run, step};
use crate::content;
use crate::error::{Attempt, Error, Result};
use crate::layout::Layout;
use crate::packages::{node_packages, python_packages, see_packages};

/// Returns the component of a plugin in Python or JavaScript. Builds it if any of its inputs
/// changed.
pub fn build(layout: &Layout, name: &str, language: Language, folder: &Path) -> Result<PathBuf> {
    let artifact = layout.target()?.join("plugins").join(format!("{name}.wasm"));
    let stamp = artifact.with_extension("key");
    let inputs = [
        folder.to_path_buf(),
        sdk(layout, language),
        layout.root.join("wit"),
        layout.root.join("xtask/src/plugin"),
    ];
    let key = content::key(&[name], &inputs)?;
    if artifact.is_file() && fs::read_to_string(&stamp).is_ok_and(|old| old == key) {
        return Ok(artifact);
    }
    step(&format!("build {language:?} plugin: {name}"));
    content::make_folder(artifact.parent().unwrap_or(Path::new(".")))?;
    let fresh = artifact.with_extension("new.wasm");
    match language {
        Language::Python => componentize_py(layout, folder, &fresh)?,
        _ => componentize_qjs(layout, folder, &fresh)?,
    }
    content::install(&fresh, &artifact)?;
    drop(fs::remove_file(&fresh));
    content::write(&stamp, key.as_bytes())?;
    Ok(artifact)
}

/// Returns the JavaScript file that is a plugin's entry point: `app.js`, else the only `.js` file
/// in the folder.
pub fn javascript_source(folder: &Path) -> Option<PathBuf> {
    let app = folder.join("app.js");
    if app.is_file() {
        return Some(app);
    }
    let files = fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut sources = files.filter(|path| path.extension().is_some_and(|extension| extension == "js"));
    sources.next().filter(|_| sources.next().is_none())
}

/// The roles of plugins in Python and JavaScript. Only Python supports `WAITING`.
const ROLES: [&str; 4] = ["transformer", "model", "executor", WAITING];
const WAITING: &str = "streaming-model";
const WAITING_WORLD: &str = "hostler:concurrent/streaming-model-plugin";

/// Returns the world of a source, by the one role that it defines and by what it calls. A component
/// has all imports of its world, and the host sees from them whether its calls may wait.
fn world(layout: &Layout, source: &Path) -> Result<String> {
    let text = fs::read_to_string(source).attempting(|| format!("read {}", source.display()))?;
    match roles(&text)[..] {
        [WAITING] => Ok(WAITING_WORLD.to_owned()),
        ["model"] if defines(&text, "optional-inputs") => Ok(optional_world(&text).to_owned()),
        [role] if asks_servers(&text) => Ok(format!("{role}-outbound-plugin")),
        [role] if role != "executor" && calls_models(&text) => Ok(format!("calling-{role}-plugin")),
        [role] => Ok(format!("{role}-plugin")),
        ref roles => Err(Error::new(
            format!(
                "cannot build {}: it defines {} roles, expected one",
                layout.relative(source),
                roles.len()
            ),
            "one line must begin with `class Transformer`, `class Model`, `class Executor` or `class StreamingModel`\n\
             (Python), or with `export const transformer`, `export const model` or `export const executor` (JavaScript)",
        )),
    }
}

/// Returns the world of a model with optional inputs.
fn optional_world(source: &str) -> &'static str {
    if asks_servers(source) {
        "optional-model-outbound-plugin"
    } else if calls_models(source) {
        "calling-optional-model-plugin"
    } else {
        "optional-model-plugin"
    }
}

/// Returns whether a Python source sends requests to HTTP servers. These need a separate world,
/// because only some hosts can run such a component.
fn asks_servers(source: &str) -> bool {
    source
        .lines()
        .any(|line| line.starts_with("import hostler_http") || line.starts_with("from hostler_http"))
}

/// Returns whether a source names the SDK function that returns models.
fn calls_models(source: &str) -> bool {
    ["get_model(", "getModel("].iter().any(|call| source.contains(call))
}

/// Returns the roles that a source in Python or JavaScript defines at its top level.
fn roles(source: &str) -> Vec<&'static str> {
    ROLES.into_iter().filter(|role| defines(source, role)).collect()
}

/// Returns whether a source defines the class or the constant of an interface at its top level.
fn defines(source: &str, interface: &str) -> bool {
    let class: String = interface.split('-').map(|word| word[..1].to_uppercase() + &word[1..]).collect();
    let constant = class[..1].to_lowercase() + &class[1..];
    source.lines().any(|line| {
        let (name, rest) = match (line.strip_prefix("class "), line.strip_prefix("export const ")) {
            (Some(rest), _) => (&class, rest),
            (_, Some(rest)) => (&constant, rest),
            _ => return false,
        };
        rest.strip_prefix(name)
            .is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
    })
}

fn sdk(layout: &Layout, language: Language) -> PathBuf {
    layout.root.join("sdk").join(if language == Language::Python { "python" } else { "js" })
}

fn componentize_py(layout: &Layout, folder: &Path, output: &Path) -> Result<()> {
    let sdk = sdk(layout, Language::Python);
    let world = world(layout, &folder.join("app.py"))?;
    let packages = python_packages(layout, &sdk.join("requirements.txt"))?;
    let mut componentize = Command::new("python3");
    see_packages(&mut componentize, &packages);
    // The first lines contain the reason for a failure; a backtrace of the tool would hide it.
    componentize.env("RUST_BACKTRACE", "0");
    componentize.current_dir(&layout.root).arg(packages.join("bin/componentize-py"));
    componentize.args(["-d", "wit"]);
    if world == WAITING_WORLD {
        componentize.args(["-d", "wit/async"]);
    }
    componentize.args(["-w", &world, "componentize", "app"]);
    componentize.arg("-p").arg(folder).arg("-p").arg(&sdk).arg("-o").arg(output);
    run(&mut componentize, "see sdk/python/README.md for what a Python plugin needs")
}

fn componentize_qjs(layout: &Layout, folder: &Path, output: &Path) -> Result<()> {
    let source = javascript_source(folder).unwrap_or_else(|| folder.join("app.js"));
    let world = world(layout, &source)?;
    if world == WAITING_WORLD {
        return Err(Error::new(
            format!(
                "cannot build {}: componentize-qjs does not support streaming models",
                layout.relative(&source)
            ),
            "write streaming models in Rust or Python; see docs/guide/streaming-models.md",
        ));
    }
    let packages = node_packages(layout, &sdk(layout, Language::JavaScript))?;
    let mut componentize = Command::new(packages.join("node_modules/.bin/componentize-qjs"));
    componentize.current_dir(&layout.root).args(["--wit", "wit", "--world", &world]);
    componentize.args(["--sync", "--js"]).arg(source).arg("--output").arg(output);
    run(&mut componentize, "see sdk/js/README.md for what a JavaScript plugin needs")
}

#[cfg(test)]
mod tests {
    use super::{asks_servers, roles};

    #[test]
    fn who_asks_servers_imports_the_module_for_it() {
        assert!(asks_servers("import json\nimport hostler_http as http\n"));
        assert!(!asks_servers("import hostler_plugin\n# import hostler_http\n"));
    }

    #[test]
    fn the_role_is_what_a_source_defines() {
        assert_eq!(roles("import x\n\nclass Executor(x.Executor):\n    pass\n"), ["executor"]);
        assert_eq!(roles("class Model:\n    class Executor:\n        pass\n"), ["model"]);
        assert_eq!(roles("export const transformer = hostler.transformer({});\n"), ["transformer"]);
        assert_eq!(roles("export const model=1;\nexport const executor = 2;\n"), ["model", "executor"]);
        assert_eq!(roles("class StreamingModel(concurrent.StreamingModel):\n"), ["streaming-model"]);
        assert_eq!(roles("export const streamingModel = 1;\n"), ["streaming-model"]);
        assert_eq!(roles("class Models:\n# class Executor\nexport const modelName = 1;\n"), [""; 0]);
    }
}
